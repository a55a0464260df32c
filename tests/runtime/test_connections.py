"""Which connections a client uses: its own for itself, the application's for its workers."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from riverrun import Client, JobCompleted, JobContext, QueueConfig, Workers
from riverrun.events import JobEvent, JobInterrupted
from runtime.conftest import Task
from waiting import DEADLINE_S, until

Came = Callable[[threading.Event, str], None]


@pytest.fixture
def small(database_url: str) -> Iterator[Engine]:
    """An engine whose pool has one connection and a short timeout."""
    engine = create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    yield engine
    engine.dispose()


def opened(engine: Engine, name: str) -> int:
    """Return the number of connections whose application_name is `name`."""
    statement = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    with engine.connect() as connection:
        return int(connection.execute(statement, {"name": name}).scalar_one())


def none_left(engine: Engine, name: str) -> None:
    """Wait until the server has closed all connections whose application_name is `name`."""
    until(lambda: opened(engine, name) == 0, f"no connection of {name} is left open")


def test_a_client_lives_while_its_workers_hold_the_pool(
    app: Any, small: Engine, came: Came
) -> None:
    """Heartbeats, claims, completions and cancels work while workers hold the whole pool."""
    begun = threading.Event()

    def body(args: Task, ctx: JobContext) -> None:
        if args.number == 1:
            begun.set()
            ctx.wait(DEADLINE_S)
            ctx.raise_if_cancelled()

    client, events = app.run(body, engine=small, slots=2)
    with small.connect():
        job = app.client().insert(app.engine, Task(number=1)).job
        came(begun, "the job begins")
        assert client._services is not None
        client._services.heartbeat.run_once()
        app.client().cancel(app.engine, job.id)
        assert events.get(DEADLINE_S).job.state == "cancelled"
        assert client.healthy


def test_attempts_wait_for_the_pool(app: Any, small: Engine) -> None:
    """With more slots than connections, each worker is called once and no attempt is lost."""
    calls = []

    def body(args: Task, ctx: JobContext) -> None:
        calls.append(args.number)
        with ctx.transaction() as session:
            session.execute(text("SELECT pg_sleep(0.2)"))

    client = app.client(body, engine=small, slots=5)
    client.insert_many(app.engine, [Task(number=number) for number in range(5)])
    events = client.subscribe(JobEvent)
    client.start()
    ended = [events.get(DEADLINE_S) for _ in range(5)]
    assert {(type(each), each.job.attempt) for each in ended} == {(JobCompleted, 1)}
    assert sorted(calls) == list(range(5))


def test_an_attempt_without_a_connection_does_not_count(
    app: Any, small: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """An attempt that got no connection in time is given back, and the log names pool and slots."""

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            session.execute(text("SELECT 1"))

    client = app.client(body, engine=small, slots=3, job_timeout=0.5)
    events = client.subscribe(JobEvent)
    with small.connect():
        job = client.insert(app.engine, Task()).job
        client.start()
        interrupted = events.get(DEADLINE_S)
        assert type(interrupted) is JobInterrupted
        row = client.get(app.engine, job.id)
        assert (row.state, row.attempt, row.errors) == ("available", 0, ())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    for part in ("3 slots", "the 1 connections", "pool_size=1", "max_overflow=0", "pool_size=3"):
        assert part in caplog.text, f"not in the log: {part}"


def test_a_refused_connection_does_not_count(app: Any, database_url: str) -> None:
    """While the server refuses connections to a worker, its attempt waits; then it is completed."""
    refusals = 3

    def connect() -> Any:
        nonlocal refusals
        if threading.current_thread().name.startswith("riverrun.slot") and refusals:
            refusals -= 1
            raise psycopg.OperationalError("FATAL: sorry, too many clients already")
        return psycopg.connect(database_url.replace("+psycopg", ""))

    def body(args: Task, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            session.execute(text("SELECT 1"))

    engine = create_engine("postgresql+psycopg://", creator=connect)
    client, events = app.run(body, engine=engine)
    app.client().insert(app.engine, Task())
    ended = events.get(DEADLINE_S)
    assert (type(ended), ended.job.attempt, refusals) == (JobCompleted, 1, 0)
    client.stop()
    engine.dispose()


@pytest.mark.parametrize("slots", [15, 16])
@pytest.mark.parametrize("sort", ["sync", "async", "async, its own engine"])
def test_a_start_says_that_sessions_do_not_fit_the_pool(
    app: Any, database_url: str, slots: int, sort: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If slots outnumber the connections for sessions, a warning names the pool size to set."""
    engine = create_engine(database_url)
    caplog.set_level(logging.WARNING)
    workers, options = Workers(), {}
    if sort == "sync":

        @workers.register
        def work(args: Task, session: Session) -> None: ...
    else:

        @workers.register
        async def work_async(args: Task, session: AsyncSession) -> None: ...

    if sort == "async, its own engine":
        own = create_async_engine(database_url, pool_size=5)
        options["async_sessionmaker"] = async_sessionmaker(own)
    client, _ = app.run(engine=engine, slots=slots, workers=workers, **options)
    assert ("create_engine(..., pool_size=16)" in caplog.text) is (slots == 16)
    client.stop()
    engine.dispose()


def test_no_pool_and_no_sessions_are_no_reason_to_warn(
    app: Any, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Defaults cause no warning if no worker takes a session, or each has its own connection."""
    caplog.set_level(logging.WARNING)
    plain = create_engine(database_url)
    client, _ = app.run(engine=plain, queues=["default"])
    client.stop()
    workers = Workers()

    @workers.register
    async def work(args: Task) -> None: ...

    client, _ = app.run(engine=plain, workers=workers, slots=100)
    client.stop()
    workers = Workers()

    @workers.register
    def work_in_session(args: Task, session: Session) -> None: ...

    unbound = create_engine(database_url, poolclass=NullPool)
    client, _ = app.run(engine=unbound, workers=workers, slots=100)
    client.stop()
    assert not caplog.records, caplog.text
    plain.dispose()


def test_own_connections_are_made_as_the_host_s(app: Any, database_url: str) -> None:
    """The client's own connections use the engine's `connect_args` and listeners.

    The engine's statement listeners are called for all of their statements.
    """
    name = "riverrun_own"
    engine = create_engine(
        database_url, pool_size=1, max_overflow=0, connect_args={"application_name": name}
    )
    connects, statements = [], []

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connects.append(connection)

    client = app.client(engine=engine)

    @event.listens_for(engine, "before_cursor_execute")
    def executing(*args: Any) -> None:
        statements.append(args[2])

    events = client.subscribe(JobEvent)
    client.start()
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    until(lambda: opened(app.engine, name) == len(connects) > 1, "each connection is its own")
    for part in ("riverrun_client", "river_leader", "FOR UPDATE SKIP LOCKED", "river_queue"):
        assert any(part in each for each in statements), f"no statement with {part}"
    client.stop()
    assert engine.pool.checkedout() == 0
    engine.dispose()
    none_left(app.engine, name)


def test_an_engine_without_a_pool_has_none_made_for_it(app: Any, database_url: str) -> None:
    """With NullPool, as behind a pooler, no connection is kept open except one that listens."""
    name = "riverrun_null"
    engine = create_engine(
        database_url, poolclass=NullPool, connect_args={"application_name": name}
    )
    client, events = app.run(engine=engine, poll_only=True)
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    own = client._services._connections
    for each in (own.signs, own.claims, own.maintenance, own.sessions):
        assert isinstance(each.pool, NullPool)
    client.stop()
    none_left(app.engine, name)


def test_what_only_inserts_opens_nothing_of_its_own(app: Any, database_url: str) -> None:
    """A client that only inserts uses the application's connection and opens none."""
    name = "riverrun_inserts"
    engine = create_engine(database_url, connect_args={"application_name": name})
    client = Client(engine, schema=app.schema, notify="off")
    client.insert(engine, Task())
    assert opened(app.engine, name) == 1
    engine.dispose()


def test_workers_get_fresh_connections_after_a_cut(app: Any, database_url: str) -> None:
    """Once the client has lost one of its connections, workers get none that is as old."""
    name = "riverrun_cut"
    engine = create_engine(database_url, connect_args={"application_name": name})
    client, events = app.run(
        lambda args, ctx: None, engine=engine, queues={"default": QueueConfig(max_workers=2)}
    )
    with engine.connect() as connection:
        before = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with app.engine.begin() as connection:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :n"
        connection.execute(text(cut), {"n": name})
    client.insert(app.engine, Task())
    assert type(events.get(DEADLINE_S)) is JobCompleted
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != before
    client.stop()
    engine.dispose()
