"""One fleet for each process of the test run: most scenarios take less time than its start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.schema import CreateSchema, DropSchema

pytest.register_assert_rewrite("interop.conformance.fleet")

from interop.conformance.fleet import Fleet, made  # noqa: E402 - after its asserts are rewritten

SCHEMA = "conformance"


@pytest.fixture(scope="session")
def _fleet(engine: Engine, peer_program: Path) -> Iterator[Fleet]:
    with engine.begin() as connection:
        connection.execute(CreateSchema(SCHEMA))
    fleet = made(engine, SCHEMA, peer_program)
    yield fleet
    fleet.close()
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '20s'"))
        connection.execute(DropSchema(SCHEMA, cascade=True))


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    """Go's and riverrun's processes on a schema whose tables are empty."""
    yield _fleet
    _fleet.reset()
