"""What an application sets on its connections applies to riverrun's statements as to its own."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from riverrun import Client, InsertOpts, RawArgs
from riverrun.policies.uniqueness import UniqueOpts

JOB = RawArgs(kind="greet", encoded={})

Insert = Callable[[Client, Any], object]

INSERTS: dict[str, Insert] = {
    "insert": lambda client, tx: client.insert(tx, JOB),
    "insert_many": lambda client, tx: client.insert_many(tx, [JOB, JOB]),
    "insert_many_fast": lambda client, tx: client.insert_many_fast(tx, [JOB, JOB]),
    "unique": lambda client, tx: client.insert(
        tx, JOB, InsertOpts(unique=UniqueOpts(by_args=True))
    ),
}


@pytest.fixture(params=["listened to", "not listened to"])
def either(request: pytest.FixtureRequest, database_url: str) -> Iterator[Engine]:
    """An engine whose search path has no tables, with and without a listener to statements."""
    either = create_engine(database_url)
    if request.param == "listened to":
        event.listen(either, "before_cursor_execute", lambda *_: None)
    yield either
    either.dispose()


@pytest.fixture(params=INSERTS)
def insert(request: pytest.FixtureRequest) -> Insert:
    """Each way to insert."""
    return INSERTS[request.param]


def _count(connection: Connection, schema: str) -> int:
    return connection.execute(text(f"SELECT count(*) FROM {schema}.river_job")).scalar_one()


def test_the_map_of_schemas_counts_for_each_insert(
    either: Engine, schema: str, insert: Insert
) -> None:
    """All jobs go to the schema of the application's schema_translate_map."""
    tenant = either.execution_options(schema_translate_map={None: schema})
    client = Client(tenant)
    with Session(tenant) as session:
        insert(client, session)
        session.commit()
    with either.connect() as connection:
        assert _count(connection, schema) in {1, 2}


@pytest.mark.parametrize("places", [None, {}, {None: None}, {None: ""}, {"other": "elsewhere"}])
def test_a_map_that_leads_nowhere(host: Engine, insert: Insert, schema: str, places: Any) -> None:
    """A schema_translate_map without a schema leads to the tables of the engine's default one."""
    mapped = host.execution_options(schema_translate_map=places)
    with mapped.connect() as connection:
        insert(Client(mapped), connection)
        connection.commit()
        assert _count(connection, schema) in {1, 2}


def test_a_default_schema_is_the_engine_s(host: Engine, schema: str) -> None:
    """As for SQLAlchemy, `None: None` leads to the engine's default schema, not the search path."""
    with host.connect() as connection:
        mapped = connection.execution_options(schema_translate_map={None: None})
        mapped.execute(text("SET LOCAL search_path = pg_catalog"))
        Client(host).insert(mapped, JOB)
        Client(host).insert_many_fast(mapped, [JOB])
        assert _count(connection, schema) == 2


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 2}])
def test_inserts_while_rows_are_read(
    either: Engine, schema: str, insert: Insert, options: Any
) -> None:
    """A connection that reads rows as they come can insert a job for each."""
    client = Client(either, schema=schema)
    with either.connect() as connection:
        rows = connection.execution_options(**options).execute(text("SELECT generate_series(1, 3)"))
        assert [insert(client, connection) for _ in rows]
        connection.commit()
        assert _count(connection, schema) in {1, 3, 6}


class Timeout(BaseException):
    """As gevent's Timeout: no Exception."""


@pytest.fixture
def locked(engine: Engine, schema: str) -> Iterator[None]:
    """The table of jobs is locked, and the main thread is interrupted while it waits for it."""

    def interrupt(*_: object) -> None:
        raise Timeout

    old = signal.signal(signal.SIGALRM, interrupt)
    with engine.begin() as connection:
        connection.execute(text(f"LOCK TABLE {schema}.river_job IN ACCESS EXCLUSIVE MODE"))
        yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("own", [False, True])
def test_interrupted_in_a_statement(
    either: Engine, schema: str, insert: Insert, *, own: bool
) -> None:
    """The interruption arrives at the application, and its connection is given up."""
    client = Client(either, schema=schema)

    def wait() -> None:
        with Session(either) as session, session.begin():
            session.connection()
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            insert(client, either if own else session)

    with pytest.raises(Timeout):
        wait()
    assert either.pool.checkedout() == 0
    with either.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_lost_before_an_insert(either: Engine, engine: Engine, schema: str, insert: Insert) -> None:
    """The error says why the connection was lost, as that of any statement does."""
    client = Client(either, schema=schema)

    def lose(execute: Callable[[Session], object]) -> None:
        with Session(either) as session, session.begin():
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
            execute(session)

    def lost_by(execute: Callable[[Session], object]) -> tuple[bool, str | None]:
        with pytest.raises(OperationalError) as lost:
            lose(execute)
        return lost.value.connection_invalidated, getattr(lost.value.orig, "sqlstate", None)

    expected = lost_by(lambda session: session.execute(text("SELECT 1")))
    assert lost_by(lambda session: insert(client, session)) == expected
