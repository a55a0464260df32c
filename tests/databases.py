"""Databases of a test's own, and databases that refuse connections for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

_numbers = count(1)


@contextmanager
def own_database(
    server_url: str, *, encoding: str | None = None, **options: Any
) -> Iterator[Engine]:
    """Create an empty database, yield an engine on it, and drop it at the end of the block.

    Args:
        server_url: The URL of the tests' server.
        encoding: The database's encoding. Default: the server's.
        **options: Options of the engine.
    """
    name = f"riverrun_own_{os.getpid()}_{next(_numbers)}"
    form = ""
    if encoding is not None:
        form = f" ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    server = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}{form}"))
    engine = create_engine(make_url(server_url).set(database=name), **options)
    yield engine
    engine.dispose()
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def refuse_connections(engine: Engine, times: int) -> list[None]:
    """Make the next `times` connections of `engine` fail; return a list with an item for each."""
    refused: list[None] = []

    @event.listens_for(engine, "do_connect")
    def refuse(*_: object) -> None:
        if len(refused) < times:
            refused.append(None)
            raise OperationalError("connect", {}, Exception("refused"))

    return refused
