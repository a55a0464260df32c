"""Where an engine connects to, as errors name it and clients compare it, and for how long."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from sqlalchemy import create_engine, event

from riverrun.db.engines import CONNECT_S, address, connecting_within, notice_dead_peers


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


class Tried(Exception):
    """A try to connect got this far."""


@pytest.mark.parametrize(
    ("query", "environment", "within", "expected"),
    [
        ("", {}, nullcontext(), CONNECT_S),
        ("", {}, connecting_within(7), 7),
        ("?connect_timeout=3", {}, connecting_within(7), "3"),
        ("", {"PGCONNECT_TIMEOUT": "3"}, connecting_within(7), None),
    ],
    ids=["default", "own", "url", "environment"],
)
def test_a_try_to_connect_has_an_end(
    query: str,
    environment: dict[str, str],
    within: AbstractContextManager[None],
    expected: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A try to connect has a time limit, and the application's own takes precedence."""
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    engine = create_engine(f"postgresql+psycopg://h/db{query}")
    notice_dead_peers(engine)
    seen: list[dict[str, Any]] = []

    @event.listens_for(engine, "do_connect")
    def look(*event_args: Any) -> None:
        seen.append(event_args[-1])
        raise Tried

    with within, pytest.raises(Tried):
        engine.connect()
    assert seen[0].get("connect_timeout") == expected
