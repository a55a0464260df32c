"""Databases that nobody has migrated."""

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

_numbers = itertools.count()


@pytest.fixture
def empty_database(server_url: str) -> Iterator[Engine]:
    """A database of the test's own, in which there is nothing yet."""
    name = f"riverrun_empty_{make_url(server_url).port or 0}_{next(_numbers)}"
    server = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(make_url(server_url).set(database=name))
    yield engine
    engine.dispose()
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
