"""Make an engine of psycopg 3 for a client whose application's engine has another driver."""

import inspect
from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, NullPool, QueuePool, create_engine, event

from riverrun.db.urls import psycopg_url
from riverrun.errors import InvalidOption
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)

_OWN_ENGINE = (
    "give riverrun an engine of psycopg 3 or a URL of its own: Client.from_url(), "
    "RIVERRUN_DATABASE_URL in Flask, riverrun.database_url in Pyramid"
)
_OF_URL = frozenset({"host", "port", "database", "dbname", "dsn"})
"""Arguments of asyncpg that come from the URL, in its own form. Psycopg gets the URL, too."""


def engine_beside(engine: Engine) -> Engine:
    """Return `engine` if a client can work with it; otherwise a new one of psycopg 3.

    The new engine is on the same database and takes over all that psycopg 3 and its pool support:
    the `connect_args`, with the changes that the application's `do_connect` listeners make at each
    connection, such as a password that expires; the isolation level; the execution options; the
    JSON functions; and the pool's settings.

    Raises:
        InvalidOption: If the application makes connections itself, by `creator`, or passes its
            driver an argument that psycopg 3 cannot take, such as an SSLContext.
        UnsupportedDatabase: If the engine's database is not PostgreSQL.
    """
    dialect = engine.dialect
    if (dialect.name, dialect.driver, dialect.is_async) == ("postgresql", "psycopg", False):
        return engine
    own_url = psycopg_url(engine.url)
    given = _connect_args(engine)
    _for_psycopg(given, engine)  # raises here, not at the first connection
    options = {
        "execution_options": engine.get_execution_options(),
        "hide_parameters": engine.hide_parameters,
        "json_serializer": getattr(dialect, "_json_serializer", None),
        "json_deserializer": getattr(dialect, "_json_deserializer", None),
        **_pool_settings(engine),
    }
    if (level := getattr(dialect, "_on_connect_isolation_level", None)) is not None:
        options["isolation_level"] = level
    own = create_engine(own_url, **options)

    @event.listens_for(own, "do_connect")
    def take_over(_: Any, record: Any, args: Any, cparams: dict[str, Any]) -> None:
        params = dict(given)
        for listener in list(engine.dialect.dispatch.do_connect):
            if listener(engine.dialect, record, args, params) is not None:
                raise _made_by_hand("a do_connect listener that connects", engine)
        cparams.update(_for_psycopg(params, engine))

    message = "made an engine of psycopg 3 for the client, at the URL of the application's (%s)"
    logger.info(message, engine.driver)
    return own


def _connect_args(engine: Engine) -> dict[str, Any]:
    """Return the arguments of `engine` for its driver's `connect`, before listeners change them.

    Raises:
        InvalidOption: If a `creator` connects.
    """
    # SQLAlchemy keeps them only in the closure of the function that it makes for the pool. A
    # listener of ours would come too late: the application's listeners are called before it.
    creator = engine.pool._creator
    kept = None
    if inspect.isfunction(creator):
        kept = inspect.getclosurevars(creator).nonlocals.get("cparams")
    if not isinstance(kept, Mapping):
        raise _made_by_hand("a creator", engine)
    return dict(kept)


def _made_by_hand(how: str, engine: Engine) -> InvalidOption:
    expected = f"connect_args, which psycopg 3 can be given, too; or {_OWN_ENGINE}"
    return InvalidOption(f"how the engine of {engine.driver} connects", how, expected)


def _for_psycopg(params: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Return those of another driver's arguments that psycopg 3 takes, in its own form."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    if engine.driver != "asyncpg":
        # The other drivers use libpq, too. Their own arguments, such as a cursor factory, are not
        # for psycopg 3.
        return {name: value for name, value in params.items() if name in known}
    taken = {name: value for name, value in params.items() if name in known and name not in _OF_URL}
    for name in ("user", "password"):
        if callable(taken.get(name)):
            raise _made_by_hand(f"a function for the {name}", engine)
    if "timeout" in params:
        taken["connect_timeout"] = max(1, int(float(params["timeout"])))
    ssl = params.get("ssl")
    if isinstance(ssl, bool):
        taken["sslmode"] = "require" if ssl else "disable"
    elif isinstance(ssl, str):
        taken["sslmode"] = str(ssl)
    elif ssl is not None:
        raise _made_by_hand("an SSLContext", engine)
    settings = dict(params.get("server_settings") or {})
    if "application_name" in settings:
        taken["application_name"] = settings.pop("application_name")
    if settings:
        # In libpq's syntax a blank ends a value, unless a backslash precedes it.
        escape = str.maketrans({"\\": "\\\\", " ": "\\ "})
        taken["options"] = " ".join(
            f"-c {name}={str(value).translate(escape)}" for name, value in settings.items()
        )
    return taken


def _pool_settings(engine: Engine) -> dict[str, Any]:
    pool = engine.pool
    if isinstance(pool, NullPool):
        return {"poolclass": NullPool}
    settings: dict[str, Any] = {
        "pool_pre_ping": pool._pre_ping,
        "pool_recycle": pool._recycle,
        # Reuse the connection that was used last: the caches of its server process are warm.
        "pool_use_lifo": True,
    }
    if isinstance(pool, QueuePool):
        settings |= {
            "pool_size": pool.size(),
            "max_overflow": pool._max_overflow,
            "pool_timeout": pool.timeout(),
        }
    return settings
