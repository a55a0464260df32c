"""Where an engine connects to, as errors name it and clients compare it."""

import pytest
from sqlalchemy import create_engine

from riverrun.db.engines import address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("user:secret@db1/shop", "shop@db1:5432"),
        ("user:secret@db1:5433/shop", "shop@db1:5433"),
        ("/shop", "shop@local:5432"),
        ("user@/shop?host=/run/postgresql&port=5433", "shop@/run/postgresql:5433"),
        ("user@/shop?host=db1:5432&host=db2:5433", "shop@db1,db2:5432,5433"),
    ],
)
def test_an_address_has_every_host_and_port(url: str, expected: str) -> None:
    """Addresses distinguish servers on one host and in one URL, and contain no user."""
    assert address(create_engine(f"postgresql+psycopg://{url}")) == expected
