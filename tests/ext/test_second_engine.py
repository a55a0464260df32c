"""The engine of psycopg 3 beside an application's own takes over how that one connects."""

import json
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import psycopg2
import pytest
from sqlalchemy import Engine, NullPool, QueuePool, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from riverrun.db.second_engine import engine_beside
from riverrun.errors import InvalidOption

PSYCOPG2 = {
    "application_name": "the shop",
    "connect_timeout": 7,
    "keepalives_idle": 11,
    "options": "-c statement_timeout=12345",
    "cursor_factory": psycopg2.extensions.cursor,
}
ASYNCPG = {
    "server_settings": {
        "application_name": "the shop",
        "statement_timeout": "12345",
        "search_path": 'public, "a b"',
    },
    "timeout": 7.0,
    "command_timeout": 3,
    "ssl": False,
}


@pytest.fixture
def hosts(database_url: str) -> Iterator[Any]:
    """Make engines of another driver on the tests' database, or on another URL."""
    made: list[Engine] = []

    def make(driver: str, **options: Any) -> Engine:
        url = make_url(database_url).set(drivername=f"postgresql+{driver}")
        if driver == "asyncpg":
            engine = create_async_engine(url, **options).sync_engine
        else:
            engine = create_engine(url, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose(close=False)


def shown(engine: Engine, *names: str) -> dict[str, str]:
    """Return what the server says of settings of a connection."""
    with engine.connect() as connection:
        found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names}
    engine.dispose()
    return found


@pytest.mark.parametrize(("driver", "given"), [("psycopg2", PSYCOPG2), ("asyncpg", ASYNCPG)])
def test_takes_over_connect_args(hosts: Any, driver: str, given: dict[str, Any]) -> None:
    """Settings of the session are the same, and the driver's own arguments are left out."""
    own = engine_beside(hosts(driver, connect_args=given))
    with own.connect() as connection:
        info = connection.connection.driver_connection.info  # type: ignore[union-attr]
        parameters = info.get_parameters()
    assert parameters["connect_timeout"] == "7"
    if driver == "psycopg2":
        assert parameters["keepalives_idle"] == "11"
    else:
        assert parameters["sslmode"] == "disable"
        assert shown(own, "search_path") == {"search_path": 'public, "a b"'}
    wanted = {"application_name": "the shop", "statement_timeout": "12345ms"}
    assert shown(own, *wanted) == wanted


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_takes_over_the_engines_settings(hosts: Any, driver: str) -> None:
    """Isolation, execution options, JSON functions and the pool are as the application's are."""
    host = hosts(
        driver,
        isolation_level="SERIALIZABLE",
        execution_options={"schema_translate_map": {"a": "b"}},
        hide_parameters=True,
        json_serializer=json.dumps,
        pool_size=3,
        max_overflow=4,
        pool_timeout=5,
        pool_recycle=600,
        pool_pre_ping=True,
    )
    own = engine_beside(host)
    pool = own.pool
    assert isinstance(pool, QueuePool)
    assert (pool.size(), pool._max_overflow, pool.timeout()) == (3, 4, 5)
    assert (pool._recycle, pool._pre_ping) == (600, True)
    assert own.get_execution_options()["schema_translate_map"] == {"a": "b"}
    assert own.hide_parameters
    assert own.dialect._json_serializer is json.dumps  # type: ignore[attr-defined]
    assert shown(own, "transaction_isolation") == {"transaction_isolation": "serializable"}
    assert isinstance(engine_beside(hosts(driver, poolclass=NullPool)).pool, NullPool)


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_asks_for_what_changes_at_each_connection(hosts: Any, driver: str) -> None:
    """A listener that gives each connection a password, as clouds want it, gives it to ours."""
    host = hosts(driver, connect_args={})
    count = 0

    @event.listens_for(host, "do_connect")
    def token(_: Any, __: Any, ___: Any, cparams: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        name = f"number {count}"
        if driver == "asyncpg":
            cparams["server_settings"] = {"application_name": name}
        else:
            cparams["application_name"] = name

    own = engine_beside(host)
    assert count == 0
    assert shown(own, "application_name") == {"application_name": "number 1"}
    assert shown(own, "application_name") == {"application_name": "number 2"}


def test_refuses_what_connects_by_hand(hosts: Any, database_url: str) -> None:
    """A creator makes connections of the other driver: the error says what to do instead."""
    made: list[Any] = []

    def connect() -> Any:
        url = make_url(database_url).set(drivername="postgresql")
        made.append(psycopg2.connect(url.render_as_string(hide_password=False)))
        return made[-1]

    with pytest.raises(InvalidOption, match=r"a creator.*connect_args.*RIVERRUN_DATABASE_URL"):
        engine_beside(hosts("psycopg2", creator=connect))
    with pytest.raises(InvalidOption, match=r"a creator.*RIVERRUN_DATABASE_URL"):
        engine_beside(hosts("psycopg2", creator=partial(connect)))
    assert not made
    host = hosts("psycopg2")
    event.listen(host, "do_connect", lambda *_: connect())
    own = engine_beside(host)
    with pytest.raises(InvalidOption, match="a do_connect listener that connects"):
        own.connect()
    for connection in made:
        connection.close()


def test_refuses_to_connect_less_safely(hosts: Any) -> None:
    """Connect arguments that asyncpg takes as objects are refused, as psycopg cannot take them."""
    context = ssl.create_default_context()
    with pytest.raises(InvalidOption, match="an SSLContext"):
        engine_beside(hosts("asyncpg", connect_args={"ssl": context}))
    with pytest.raises(InvalidOption, match="a function for the password"):
        engine_beside(hosts("asyncpg", connect_args={"password": lambda: "secret"}))


def test_leaves_an_engine_of_psycopg_as_it_is(hosts: Any) -> None:
    """A psycopg 3 engine is used as it is, even if it has a creator."""
    host = hosts("psycopg", creator=lambda: psycopg.connect())
    assert engine_beside(host) is host
