"""Engines: make a client's own, prepare and check the application's, and compare them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, text
from sqlalchemy.orm import sessionmaker

from riverrun.db.driver import plain_results
from riverrun.db.forks import cut_off_connections
from riverrun.db.urls import psycopg_url
from riverrun.errors import InvalidOption, NotATransaction, UnsupportedDatabase

_forked: WeakSet[Engine] = WeakSet()


def renew_after_fork(engine: Engine) -> None:
    """Make forked children open their own connections, and leave the parent's to the parent.

    Source: SQLAlchemy 2.1, "Using Connection Pools with Multiprocessing or os.fork()".
    """
    if engine not in _forked:
        _forked.add(engine)
        cut_off_connections(engine)


def _renew() -> None:
    for engine in _forked:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_renew)


DEAD_PEER: dict[str, int] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""libpq's settings that notice a lost server after 25 s. By default Linux waits for a quarter of an
hour, or for hours if nothing was sent. `tcp_user_timeout` is in milliseconds."""


CONNECT_S = 25
"""Seconds that one try to connect may take. By default psycopg waits for 130 s."""


_noticing: WeakSet[Engine] = WeakSet()


_within = threading.local()  # its `limit_s` takes the place of CONNECT_S in one thread


@contextmanager
def connecting_within(limit_s: int) -> Iterator[None]:
    """Let connections that are made in this block take at most `limit_s` seconds, at least 2."""
    _within.limit_s = limit_s
    try:
        yield
    finally:
        del _within.limit_s


def notice_dead_peers(engine: Engine) -> None:
    """Make `engine` notice a lost server: while it connects, and on its new connections.

    Settings in the engine's URL, its `connect_args` or the environment take precedence. Unix
    sockets ignore those of `DEAD_PEER`.
    """
    if engine not in _noticing:
        _noticing.add(engine)
        event.listen(engine, "do_connect", _add_dead_peer)


def _add_dead_peer(*event_args: Any) -> None:
    cparams: dict[str, Any] = event_args[-1]
    for name, value in DEAD_PEER.items():
        cparams.setdefault(name, value)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        cparams.setdefault("connect_timeout", getattr(_within, "limit_s", CONNECT_S))


def check_pool(engine: Engine) -> None:
    """Refuse an engine on which two transactions may get the same connection.

    Raises:
        InvalidOption: If its pool is neither a QueuePool nor a NullPool.
    """
    if not isinstance(engine.pool, QueuePool | NullPool):
        expected = (
            "a QueuePool, SQLAlchemy's default, or a NullPool: in other pools transactions that are"
            " open at the same time share a connection, or are refused one"
        )
        raise InvalidOption("the engine's pool", type(engine.pool), expected)


def check_engine(engine: object) -> Engine:
    """Return `engine` if a client can work with it.

    Raises:
        NotATransaction: If it is not an Engine, or is an async one.
        UnsupportedDatabase: If it is not on PostgreSQL with psycopg 3.
        InvalidOption: If its pool does not give each transaction its own connection.
    """
    beside = "Beside an AsyncEngine, give the client an engine of its own: Client.from_url(url)"
    if not isinstance(engine, Engine):
        advice = "The client takes create_engine(...)'s Engine"
        if hasattr(engine, "sync_engine"):
            advice = beside
        raise NotATransaction(type(engine).__name__, advice)
    if engine.dialect.is_async:
        raise NotATransaction("sync_engine of an AsyncEngine", beside)
    if engine.dialect.name != "postgresql" or engine.driver != "psycopg":
        given = f"{engine.dialect.name}+{engine.driver}"
        expected = "postgresql+psycopg, such as postgresql+psycopg://host/db"
        if engine.dialect.name == "postgresql":
            advice = "Client.from_url(url) makes an engine of its own"
            expected += f". {advice}; your sessions may stay on {engine.driver}, and insert jobs"
        raise UnsupportedDatabase(given, expected)
    check_pool(engine)
    return engine


def check_schemas(maker: sessionmaker[Any], engine: Engine) -> None:
    """Refuse a sessionmaker whose sessions find tables elsewhere than workers' sessions would.

    Those are on a connection of the client's engine, with its schema_translate_map.

    Raises:
        InvalidOption: If an engine of `maker` has another schema_translate_map than `engine`.
    """
    here = _schemas_of(engine)
    for bind in (maker.kw.get("bind"), *(maker.kw.get("binds") or {}).values()):
        if not isinstance(bind, Engine) or not same_database(bind, engine):
            continue
        if (there := _schemas_of(bind)) != here:
            expected = (
                f"one whose engine has the schema_translate_map of the client's, {here}, and not "
                f"{there}; give the client that engine, and schema= if River's tables are elsewhere"
            )
            raise InvalidOption("sessionmaker", maker, expected)


def _schemas_of(engine: Engine) -> dict[str | None, Any]:
    return dict(engine.get_execution_options().get("schema_translate_map") or {})


def isolation_of(engine: Engine) -> str | None:
    """Return the isolation level that an engine sets for its transactions; None if it sets none."""
    level: str | None = engine.get_execution_options().get(
        "isolation_level", engine.dialect._on_connect_isolation_level
    )
    return None if level is None or level.upper() == "AUTOCOMMIT" else level


def engine_at(url: str | URL) -> Engine:
    """Return an engine for a URL in any form that `psycopg_url` accepts.

    Its pool reuses the connection that was used last, because the caches of that connection's
    server process are warm.

    Raises:
        UnsupportedDatabase: If `psycopg_url` raises it.
    """
    return create_engine(psycopg_url(url), pool_use_lifo=True)


def address(engine: Engine, database: str | None = None) -> str:
    """Return the database, host and port of `engine`, without user and password.

    Args:
        engine: The engine.
        database: The database's name. Default: the one in the engine's URL.
    """
    database = database or engine.url.database or "the default database"
    name = engine.dialect.name
    if name != "postgresql":
        return f"{database} ({name})"
    # Use the driver's arguments: a URL may have several hosts and ports, and in several places.
    args = engine.dialect.create_connect_args(engine.url)[1]
    return f"{database}@{args.get('host') or 'local'}:{args.get('port') or 5432}"


def same_database(one: Engine, other: Engine) -> bool:
    """Return whether two engines lead to the same database, judging by their pools and URLs."""
    if one.pool is other.pool:
        return True
    if one.dialect.name != other.dialect.name or one.url.database is None:
        return False
    return address(one) == address(other)


def identity(connection: Connection) -> tuple[str, str]:
    """Return the database's name, and a text that differs for each server: its start time."""
    # Cast in SQL, because drivers and sessions differ in how they read a time.
    server = "CAST(extract(epoch FROM pg_postmaster_start_time()) AS text)"
    with plain_results(connection.connection.driver_connection):
        row = connection.execute(text(f"SELECT current_database(), {server}")).one()
    return str(row[0]), str(row[1])
