"""Engines: what a client does to the host's, and makes of its own."""

import os
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, text

from riverrun.db.driver import plain_results
from riverrun.db.forks import cut_off_connections
from riverrun.db.urls import psycopg_url
from riverrun.errors import InvalidOption

_forked: WeakSet[Engine] = WeakSet()


def renew_after_fork(engine: Engine) -> None:
    """Have a forked child open connections of its own; the parent's stay the parent's.

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
"""libpq's settings by which a server that vanished is noticed after 25 s; unless said, Linux waits
for quarters of an hour, and for hours where nothing was sent. The last is in milliseconds."""


_noticing: WeakSet[Engine] = WeakSet()


def notice_dead_peers(engine: Engine) -> None:
    """Have connections that `engine` makes from now on notice a server that is gone.

    What the engine's own URL or `connect_args` say wins; on Unix sockets nothing of it counts.
    """
    if engine not in _noticing:
        _noticing.add(engine)
        event.listen(engine, "do_connect", _add_dead_peer)


def _add_dead_peer(*event_args: Any) -> None:
    cparams: dict[str, Any] = event_args[-1]
    for name, value in DEAD_PEER.items():
        cparams.setdefault(name, value)


def check_pool(engine: Engine) -> None:
    """Refuse an engine on which two transactions may get the same connection.

    Raises:
        InvalidOption: If its pool is neither a QueuePool nor a NullPool.
    """
    if not isinstance(engine.pool, QueuePool | NullPool):
        expected = (
            "a QueuePool, SQLAlchemy's default, or a NullPool: in others transactions that are open"
            " at the same time share a connection, or are refused one"
        )
        raise InvalidOption("the engine's pool", type(engine.pool), expected)


def engine_at(said: str | URL) -> Engine:
    """Return an engine on the PostgreSQL at the URL `said`, in any spelling.

    Of its connections the one used last is used next: its server process has what it needs at hand.

    Raises:
        UnsupportedDatabase: As `psycopg_url` does.
    """
    return create_engine(psycopg_url(said), pool_use_lifo=True)


def address(engine: Engine, database: str | None = None) -> str:
    """Return where `engine` connects to, without user and password.

    Args:
        engine: The engine.
        database: The database's name, if it is known better than by the engine's URL.
    """
    database = database or engine.url.database or "the default database"
    name = engine.dialect.name
    if name != "postgresql":
        return f"{database} ({name})"
    # As the driver is told: of hosts and ports a URL may have several, and in several places.
    given = engine.dialect.create_connect_args(engine.url)[1]
    return f"{database}@{given.get('host') or 'local'}:{given.get('port') or 5432}"


def same_database(one: Engine, other: Engine) -> bool:
    """Return whether two engines lead to one database, as far as their URLs tell."""
    if one.pool is other.pool:
        return True
    if one.dialect.name != other.dialect.name or one.url.database is None:
        return False
    return address(one) == address(other)


def identity(connection: Connection) -> tuple[str, str]:
    """Return the database's name, and what tells its server from every other one."""
    # As text and without a time zone: drivers and sessions differ in how they read a time.
    server = "CAST(extract(epoch FROM pg_postmaster_start_time()) AS text)"
    with plain_results(connection.connection.driver_connection):
        row = connection.execute(text(f"SELECT current_database(), {server}")).one()
    return str(row[0]), str(row[1])
