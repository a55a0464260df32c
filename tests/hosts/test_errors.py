"""Errors in an application's transaction reach the application as they do without riverrun."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest
import transaction
import zope.sqlalchemy
from sqlalchemy import Connection, Engine, create_engine, event, insert, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from factories import insert_job
from riverrun import Client, InsertOpts, JobContext, QueueConfig, RawArgs, Workers, outcome, verbs
from riverrun.events import JobFailed
from riverrun.models import Job
from waiting import DEADLINE_S

JOB = RawArgs(kind="greet", encoded={})
SELECT_1 = text("SELECT 1")

Insert = Callable[[Any], object]


@pytest.fixture
def own(database_url: str) -> Iterator[Engine]:
    """An engine that no other test has touched."""
    own = create_engine(database_url)
    yield own
    own.dispose()


class Host:
    """A host's engine, with a way to insert a row and one to lose a connection."""

    def __init__(self, engine: Engine, url: str, insert: Insert) -> None:
        self.engine = engine
        self.insert = insert
        self._url = url.replace("+psycopg", "")
        self.seen: list[tuple[str, str | None]] = []

    def lose(self, tx: Session | Connection) -> None:
        """End the server's process of the connection that `tx` is on."""
        connection = tx if isinstance(tx, Connection) else tx.connection()
        self.end(connection.connection.driver_connection.info.backend_pid)  # type: ignore[union-attr]

    def end(self, pid: int) -> None:
        """End a server's process, and wait until it is gone."""
        with psycopg.connect(self._url, autocommit=True) as driver:
            driver.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    def see(self, step: Callable[[], object]) -> None:
        """Take a step, and keep what the host sees of it."""
        try:
            step()
        except Exception as error:
            self.seen.append((type(error).__name__, type(getattr(error, "orig", None)).__name__))
        else:
            self.seen.append(("", None))


def _in_a_session(host: Host) -> None:
    with Session(host.engine) as session, session.begin():
        host.lose(session)
        session.execute(SELECT_1)


def _on_a_connection(host: Host) -> None:
    with host.engine.begin() as connection:
        host.lose(connection)
        connection.execute(SELECT_1)


def _before_an_insert(host: Host) -> None:
    with Session(host.engine) as session, session.begin():
        host.lose(session)
        host.insert(session)


def _between_two_inserts(host: Host) -> None:
    with Session(host.engine) as session, session.begin():
        host.insert(session)
        host.lose(session)
        host.insert(session)


def _before_the_commit(host: Host) -> None:
    with Session(host.engine) as session, session.begin():
        host.insert(session)
        host.lose(session)


def _then_rolled_back(host: Host) -> None:
    with Session(host.engine) as session:
        host.insert(session)
        host.lose(session)
        host.see(lambda: session.execute(SELECT_1))
        host.see(lambda: session.execute(SELECT_1))
        host.see(session.rollback)
        host.see(lambda: session.execute(SELECT_1))
        host.insert(session)
        host.see(session.commit)


def _in_a_savepoint(host: Host) -> None:
    with Session(host.engine) as session:
        host.insert(session)
        savepoint = session.begin_nested()
        host.insert(session)
        host.lose(session)
        host.see(lambda: session.execute(SELECT_1))
        host.see(savepoint.rollback)
        host.see(session.rollback)
        host.see(lambda: session.execute(SELECT_1))


def _at_a_savepoint(host: Host) -> None:
    with Session(host.engine) as session:
        host.insert(session)
        host.lose(session)
        host.see(session.begin_nested)
        host.see(session.rollback)
        host.see(lambda: session.execute(SELECT_1))


def _in_two_phases(host: Host) -> None:
    with Session(host.engine, twophase=True) as session:
        host.insert(session)
        host.lose(session)
        host.see(session.commit)
        host.see(session.rollback)
        host.see(lambda: session.execute(SELECT_1))


def _after_the_first_phase(host: Host) -> None:
    with Session(host.engine, twophase=True) as session:
        host.insert(session)
        session.prepare()
        host.lose(session)
        host.see(session.commit)
        host.see(session.rollback)


def _detached(host: Host) -> None:
    with host.engine.connect() as connection:
        connection.detach()
        host.insert(connection)
        host.lose(connection)
        host.see(lambda: connection.execute(SELECT_1))
        host.see(connection.rollback)
        host.see(lambda: connection.execute(SELECT_1))


def _invalidated(host: Host) -> None:
    with host.engine.connect() as connection:
        host.insert(connection)
        connection.invalidate()
        host.see(lambda: connection.execute(SELECT_1))
        host.see(connection.commit)
        host.see(connection.rollback)
        host.insert(connection)
        host.see(connection.commit)


def _closed(host: Host) -> None:
    connection = host.engine.connect()
    root = connection.begin()
    host.insert(connection)
    connection.close()
    host.see(root.commit)
    host.see(root.rollback)
    host.see(connection.commit)


def _closed_in_a_session(host: Host) -> None:
    with host.engine.connect() as connection:
        session = Session(connection, join_transaction_mode="create_savepoint")
        host.insert(session)
        session.close()
        host.see(connection.commit)
        host.lose(connection)
        host.see(lambda: host.insert(session))
        host.see(session.close)


def _not_flushed(host: Host) -> None:
    with Session(host.engine) as session:
        host.insert(session)
        session.add(Job(kind=None, max_attempts=0))
        host.see(session.flush)
        host.see(session.commit)
        host.see(session.rollback)


def _refused_by_a_listener(host: Host) -> None:
    @event.listens_for(host.engine, "commit")
    def refuse(connection: Connection) -> None:
        raise ZeroDivisionError

    with Session(host.engine) as session:
        host.insert(session)
        host.see(session.commit)
        host.see(session.rollback)
        event.remove(host.engine, "commit", refuse)
        session.execute(SELECT_1)
        host.see(session.commit)


def _retried_by_zope(host: Host) -> None:
    manager = transaction.TransactionManager(explicit=True)
    session = sessionmaker(host.engine)()
    zope.sqlalchemy.register(session, transaction_manager=manager)
    manager.begin()
    host.insert(session)
    host.lose(session)
    try:
        session.execute(SELECT_1)
    except Exception as error:
        host.seen.append((type(error).__name__, str(manager.isRetryableError(error))))
    host.see(manager.abort)
    manager.begin()
    host.see(lambda: host.insert(session))
    host.see(manager.commit)
    session.close()


SCENES = [
    _in_a_session,
    _on_a_connection,
    _before_an_insert,
    _between_two_inserts,
    _before_the_commit,
    _then_rolled_back,
    _in_a_savepoint,
    _at_a_savepoint,
    _in_two_phases,
    _after_the_first_phase,
    _detached,
    _invalidated,
    _closed,
    _closed_in_a_session,
    _not_flushed,
    _refused_by_a_listener,
    _retried_by_zope,
]


def insert_plainly(schema: str) -> Insert:
    """Return what a host without riverrun does in an insert's place."""
    statement = insert(Job).values(kind="greet", args={}, max_attempts=25)
    options = {"schema_translate_map": {None: schema}}
    return lambda where: where.execute(statement, execution_options=options)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__.strip("_"))
def test_the_host_sees_the_error_that_it_sees_without(
    database_url: str, schema: str, scene: Callable[[Host], None]
) -> None:
    """When a connection is lost, the application sees the same errors with and without inserts."""
    seen = []
    for riverrun in (False, True):
        engine = create_engine(database_url)
        put = insert_plainly(schema)
        if riverrun:
            client = Client(engine, schema=schema)
            with Session(engine) as session, session.begin():
                client.insert(session, JOB)
            put = _inserter(client)
        host = Host(engine, database_url, put)
        host.see(lambda: scene(host))  # noqa: B023  it is called here and now
        if riverrun:
            assert client.flush_announcements(DEADLINE_S)
        host.seen.append(("checked out", str(engine.pool.checkedout())))
        seen.append(host.seen)
        engine.dispose()
    _end_what_is_prepared(database_url)
    assert seen[0] == seen[1]
    if scene not in (_invalidated, _closed):
        assert any(name.endswith("Error") for name, _ in seen[0]), "nothing went wrong"


def _inserter(client: Client) -> Insert:
    return lambda where: client.insert(where, JOB)


def _end_what_is_prepared(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as driver:
        for (gid,) in driver.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        ):
            driver.execute(f"ROLLBACK PREPARED '{gid}'")  # type: ignore[arg-type]


async def _by_timeout(engine: AsyncEngine, sleep: Callable[[AsyncSession], Awaitable[Any]]) -> None:
    async with asyncio.timeout(0.2), AsyncSession(engine) as session, session.begin():
        await sleep(session)


async def _by_cancel(engine: AsyncEngine, sleep: Callable[[AsyncSession], Awaitable[Any]]) -> None:
    began = asyncio.Event()

    async def work() -> None:
        async with AsyncSession(engine) as session, session.begin():
            began.set()
            await sleep(session)

    task = asyncio.create_task(work())
    await began.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    finally:
        assert task.cancelled()


async def _by_a_group(engine: AsyncEngine, sleep: Callable[[AsyncSession], Awaitable[Any]]) -> None:
    began = asyncio.Event()

    async def work() -> None:
        async with AsyncSession(engine) as session, session.begin():
            began.set()
            await sleep(session)

    async def fail() -> None:
        await began.wait()
        await asyncio.sleep(0.1)
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(fail())


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (_by_timeout, (TimeoutError, [])),
        (_by_cancel, (asyncio.CancelledError, [])),
        (_by_a_group, (ExceptionGroup, [ZeroDivisionError])),
    ],
    ids=["timeout", "cancel", "group"],
)
@pytest.mark.parametrize("inserts", ["before", "within", "autocommit"])
def test_a_cancelled_await_is_cancelled(
    own: Engine, schema: str, driver: str, cut: Any, expected: Any, inserts: str
) -> None:
    """The exception that ends an await reaches its caller, in and after a transaction with jobs."""
    client = Client(own, schema=schema)

    async def sleep(session: AsyncSession) -> None:
        if inserts != "before":
            await client.insert_async(session, JOB)
        await session.execute(text("SELECT pg_sleep(10)"))

    async def run() -> None:
        engine = create_async_engine(own.url.set(drivername=f"postgresql+{driver}"))
        if inserts == "autocommit":
            engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with AsyncSession(engine) as session, session.begin():
            await client.insert_async(session, JOB)
        try:
            await cut(engine, sleep)
        finally:
            async with AsyncSession(engine) as session, session.begin():
                await client.insert_async(session, JOB)
            await engine.dispose()

    with pytest.raises(expected[0]) as caught:
        asyncio.run(run())
    errors = getattr(caught.value, "exceptions", [])
    assert [type(error) for error in errors] == expected[1]
    count = len(client.list_jobs(own).jobs)
    assert count == (3 if inserts == "autocommit" else 2)


@pytest.mark.parametrize("transaction", ["own", "ctx"])
def test_a_lost_worker_records_what_lost_it(
    own: Engine, schema: str, transaction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded error of a worker whose connection was lost is the driver's."""
    monkeypatch.setattr(outcome, "CONFLICTS_MAX", 2)  # A lost transaction begins again as often.
    workers = Workers()

    @workers.register(kind="greet")
    def greet(args: RawArgs, ctx: JobContext) -> None:
        session = Session(own) if transaction == "own" else None
        with session or ctx.transaction() as session, session.begin_nested():
            client.insert(session, JOB, InsertOpts(queue="none"))
            Host(own, own.url.render_as_string(hide_password=False), lambda _: None).lose(session)
            session.execute(SELECT_1)

    client = Client(own, schema=schema, workers=workers, queues={"default": QueueConfig()})
    failures = client.subscribe(JobFailed)
    with Session(own) as session, session.begin():
        job = client.insert(session, JOB).job
    with client:
        failures.get(timeout=DEADLINE_S)
    (error,) = client.get(own, job.id).errors
    assert "PendingRollbackError" not in error["error"]
    assert "terminating connection due to administrator command" in error["error"], error


@pytest.mark.parametrize("nested", [False, True])
def test_a_verb_is_refused_where_statements_are(own: Engine, schema: str, nested: bool) -> None:
    """In a block whose transaction or savepoint is over, a verb fails as any statement does."""
    with own.connect() as connection:
        insert_job(own, schema)
        [job] = verbs.claim(own, client_id="me", schema=schema)
        if nested:
            connection.begin()
        with connection.begin_nested() if nested else connection.begin() as block:
            block.rollback()
            with pytest.raises(InvalidRequestError, match="inside context manager"):
                connection.execute(text("SELECT 1"))
            with pytest.raises(InvalidRequestError, match="inside context manager"):
                verbs.complete(connection, job, schema=schema)
            with pytest.raises(InvalidRequestError, match="inside context manager"):
                verbs.insert(connection, JOB, schema=schema)
            with pytest.raises(InvalidRequestError, match="inside context manager"):
                verbs.insert_many_fast(connection, [JOB], schema=schema)
