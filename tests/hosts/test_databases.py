"""A transaction must be on the client's database, however each is reached."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    AssertionPool,
    Engine,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
    create_engine,
    event,
    text,
)
from sqlalchemy.orm import Session

from riverrun import Client, RawArgs, verbs
from riverrun.errors import InvalidOption, WrongDatabase
from riverrun.migrations import migrate

JOB = RawArgs(kind="greet", encoded={})


@pytest.fixture
def other(empty_database: Engine) -> Engine:
    """Another database, which has River's tables too."""
    migrate(empty_database)
    return empty_database


def _dsn(engine: Engine) -> str:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return url.replace("+", "%20")  # SQLAlchemy writes a space as forms do; libpq takes it for a +


def _by_creator(to: Engine, client: Engine) -> Engine:
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(_dsn(to)))


def _by_listener(to: Engine, client: Engine) -> Engine:
    engine = create_engine(client.url)
    event.listen(engine, "do_connect", lambda *args: psycopg.connect(_dsn(to)))
    return engine


def _by_parameters(to: Engine, client: Engine) -> Engine:
    engine = create_engine(client.url)

    @event.listens_for(engine, "do_connect")
    def lead(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> None:
        cparams["dbname"] = to.url.database

    return engine


def _by_connect_args(to: Engine, client: Engine) -> Engine:
    return create_engine(client.url, connect_args={"dbname": to.url.database})


def _by_url(to: Engine, client: Engine) -> Engine:
    return create_engine(to.url)


def _by_alias(to: Engine, client: Engine) -> Engine:
    return create_engine(to.url.update_query_dict({"application_name": "alias"}))


WAYS = [_by_creator, _by_listener, _by_parameters, _by_connect_args, _by_url, _by_alias]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__.strip("_"))
def way(request: pytest.FixtureRequest) -> Any:
    """A way by which an engine reaches a database."""
    return request.param


@pytest.mark.parametrize("own", [_by_url, _by_creator], ids=["url", "creator"])
def test_another_database_is_noticed(host: Engine, other: Engine, way: Any, own: Any) -> None:
    """An insert on another database is refused, however the session gets there."""
    client = Client(own(host, host))
    engine = way(other, host)
    for _ in range(2):
        with Session(engine) as session, pytest.raises(WrongDatabase) as caught:
            client.insert(session, JOB)
        assert other.url.database in str(caught.value), caught.value
        with pytest.raises(WrongDatabase):
            client.insert(engine, JOB)
        with engine.connect() as connection, pytest.raises(WrongDatabase):
            client.insert_many_fast(connection, [JOB])
    assert verbs.list_jobs(other).jobs == []
    engine.dispose()
    client.engine.dispose()


def test_the_same_database_is_asked_once(host: Engine, way: Any) -> None:
    """An engine's database is queried in its first insert only."""
    client = Client(host)
    engine = way(host, host)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for _ in range(3):
        with Session(engine) as session, session.begin():
            client.insert(session, JOB)
        client.insert(engine.execution_options(anything=1), JOB)
    assert [each for each in statements if "pg_postmaster_start_time" in each] == statements[:1]
    assert len(statements) == 7
    engine.dispose()


def test_the_client_s_own_engine_is_not_asked(host: Engine) -> None:
    """An engine that shares the client's pool needs no query."""
    client = Client(host)
    statements: list[str] = []
    event.listen(host, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for options in ({}, {"isolation_level": "SERIALIZABLE"}, {"schema_translate_map": {}}):
        with Session(host.execution_options(**options)) as session, session.begin():
            client.insert(session, JOB)
    assert [each for each in statements if "pg_postmaster_start_time" in each] == []


def test_many_threads_ask(host: Engine, other: Engine) -> None:
    """Threads that ask at the same time get the same answers."""
    client, right, wrong = Client(host), create_engine(host.url), create_engine(other.url)

    def insert(number: int) -> bool:
        try:
            with Session(wrong if number % 2 else right) as session, session.begin():
                client.insert(session, JOB)
        except WrongDatabase:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(insert, range(32))) == [True, False] * 16
    right.dispose()
    wrong.dispose()


def test_the_client_s_pool_is_exhausted(host: Engine) -> None:
    """An insert does not need the client's pool, and so cannot fail because of it."""
    small = create_engine(host.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    client, engine = Client(small), create_engine(host.url)
    with small.connect(), Session(engine) as session, session.begin():
        client.insert(session, JOB)
    assert len(verbs.list_jobs(host).jobs) == 1
    small.dispose()
    engine.dispose()


def test_another_kind_of_database(host: Engine) -> None:
    """A session of SQLite is refused by name, and nothing is executed in it."""
    client, sqlite = Client(host), create_engine("sqlite:///:memory:", poolclass=NullPool)
    statements: list[str] = []
    event.listen(sqlite, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for insert in (client.insert, lambda where, job: client.insert_many(where, [job])):
        with Session(sqlite) as session:
            session.execute(text("SELECT 1"))
            with pytest.raises(WrongDatabase, match=r":memory: \(sqlite\)"):
                insert(session, JOB)
            session.execute(text("SELECT 2"))
            session.commit()
        with pytest.raises(WrongDatabase, match=r":memory: \(sqlite\)"):
            client.insert(sqlite, JOB)
    assert statements == ["SELECT 1", "SELECT 2"] * 2


class OwnPool(QueuePool):
    """A host's own kind of the usual pool."""


class OddPool(StaticPool):
    """A host's own kind of a pool that shares its connection."""


@pytest.fixture
def pooled(host: Engine) -> Iterator[Any]:
    """Engines by the class of their pool."""
    made: list[Engine] = []

    def engine(poolclass: Any) -> Engine:
        made.append(create_engine(host.url, poolclass=poolclass))
        return made[-1]

    yield engine
    for each in made:
        each.dispose()


@pytest.mark.parametrize("poolclass", [StaticPool, SingletonThreadPool, AssertionPool, OddPool])
def test_pools_that_cannot_work(pooled: Any, host: Engine, poolclass: Any) -> None:
    """A pool whose connections transactions would share is refused by name, with what to use."""
    engine = pooled(poolclass)
    for refused in (
        lambda: Client(engine),
        lambda: Client(host, listen_engine=engine),
        lambda: Client(host).insert(engine, JOB),
        lambda: verbs.insert(engine, JOB),
    ):
        with pytest.raises(InvalidOption, match=rf"{poolclass.__name__}.*; expected a QueuePool"):
            refused()


@pytest.mark.parametrize("poolclass", [QueuePool, NullPool, OwnPool])
def test_pools_that_work(pooled: Any, poolclass: Any) -> None:
    """The usual pools, and those derived from them, are taken."""
    engine = pooled(poolclass)
    client = Client(engine)
    client.insert(engine, JOB)
    with Session(engine) as session, session.begin():
        client.insert(session, JOB)
    assert client.flush_announcements(20), "not all was announced"


def test_a_session_on_a_pool_that_shares(pooled: Any, host: Engine) -> None:
    """A host's session on such a pool is joined as any other: its transaction is one already."""
    client, engine = Client(host), pooled(StaticPool)
    with Session(engine) as session, session.begin():
        client.insert(session, JOB)
    assert len(verbs.list_jobs(host).jobs) == 1
