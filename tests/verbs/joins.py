"""Helpers for the tests of verbs: transactions to join, and ways to wait and to listen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from waiting import until

KINDS = ("session", "scoped_session", "connection", "engine")
JOINED = KINDS[:3]


@contextmanager
def opened(kind: str, engine: Engine) -> Iterator[Any]:
    """Yield a Session, scoped_session, Connection or Engine; roll back uncommitted changes."""
    match kind:
        case "session":
            with Session(engine) as session:
                yield session
        case "scoped_session":
            registry = scoped_session(sessionmaker(engine))
            try:
                yield registry
            finally:
                registry.remove()
        case "connection":
            with engine.connect() as connection:
                yield connection
        case _:
            yield engine


def commit(tx: Any) -> None:
    """Commit `tx`, unless it is an Engine, which has."""
    end: Callable[[], None] | None = getattr(tx, "commit", None)
    if end is not None:
        end()


def wait_until_blocked(engine: Engine, pid: int) -> None:
    """Return when the backend `pid` waits for another's lock."""
    blocking = select(func.cardinality(func.pg_blocking_pids(pid)))
    with engine.connect() as connection:
        until(lambda: connection.execute(blocking).scalar_one(), f"backend {pid} waits for a lock")


@contextmanager
def listening(engine: Engine, channel: str) -> Iterator[Callable[[], list[str]]]:
    """Listen to `channel`; yield a function that returns the payloads since its last call."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as driver:
        driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

        came: list[str] = []
        # A handler: psycopg 3.2's notifies() misses what came during an execute.
        driver.add_notify_handler(lambda note: came.append(note.payload))

        def received() -> list[str]:
            # One of our own comes after all that were committed before it.
            driver.execute("SELECT pg_notify(%s, 'end')", [channel])
            driver.execute("SELECT 1")
            assert came, "our own notification did not come"
            payloads, came[:] = came[:-1], []
            return payloads

        yield received
