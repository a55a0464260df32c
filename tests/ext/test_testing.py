"""`riverrun.testing`: jobs are found and worked inside a test's own transaction."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from riverrun import (
    Client,
    Constant,
    InsertOpts,
    JobArgs,
    JobCancel,
    JobContext,
    JobSnooze,
    JobState,
    QueueConfig,
    UniqueOpts,
    Workers,
)
from riverrun.errors import ClientNotReady, InvalidOption, JobNotWaiting
from riverrun.models import Job
from riverrun.testing import (
    FrozenClock,
    Jobs,
    drain,
    drain_async,
    require_inserted,
    require_many_inserted,
    require_not_inserted,
    rolled_back,
    rolled_back_async,
    without_uniqueness,
    work_one,
    work_one_async,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@attrs.frozen
class Note(JobArgs, kind="note"):
    text: str = "hello"
    how: str = "return"


@attrs.frozen
class Report(JobArgs, kind="report"):
    pages: int = 1


workers = Workers()
written: list[str] = []


@workers.register(backoff=Constant(delay=60, jitter=0))
def work_note(args: Note, ctx: JobContext) -> None:
    """End in the way that the args name."""
    match args.how:
        case "raise":
            raise OSError("the printer is on fire")
        case "snooze":
            raise JobSnooze(30)
        case "cancel":
            raise JobCancel("no longer wanted")
        case "insert":
            with ctx.transaction() as session:
                ctx.client.insert(session, Note(text="second"))
        case "forever":
            with ctx.transaction() as session:
                ctx.client.insert(session, args)
        case "snooze and commit":
            with ctx.transaction() as session:
                ctx.client.insert(session, Note(text="second"))
                raise JobSnooze(30, commit=True)
        case "half":
            with ctx.transaction() as session:
                ctx.client.insert(session, Report())
                raise OSError("half-way")
    written.append(args.text)


@workers.register
async def work_report(args: Report, ctx: JobContext) -> None:
    """Record that it ran."""
    await asyncio.sleep(0)
    written.append(f"{args.pages} pages")


@pytest.fixture
def client(engine: Engine, schema: str) -> Client:
    """A client that is never started."""
    written.clear()
    return Client(engine, workers=workers, schema=schema)


@pytest.fixture
def session(engine: Engine, schema: str) -> Iterator[Session]:
    """SQLAlchemy's recipe: all commits of the test are undone."""
    with rolled_back(engine) as session:
        yield session


@pytest.fixture
def jobs(session: Session, client: Client) -> Jobs:
    """The functions, bound to the session and the client."""
    return Jobs(session, client)


def test_finds_what_was_inserted(jobs: Jobs) -> None:
    """An uncommitted job is found by its class, its args, its kind and any attribute."""
    opts = InsertOpts(queue="mail", tags=["new"], metadata={"by": "me", "at": 1})
    inserted = jobs.client.insert(jobs.session, Note(), opts).job
    for expected in (Note, Note(), "note"):
        assert jobs.require_inserted(expected).id == inserted.id
    found = jobs.require_inserted(
        Note, queue="mail", priority=1, state="available", tags=["new"], metadata={"by": "me"}
    )
    assert found == inserted
    jobs.require_not_inserted(Note("bye"))
    jobs.require_not_inserted(Note, queue="default")
    jobs.require_not_inserted(Report)


def test_says_what_there_is_instead(jobs: Jobs) -> None:
    """A failure names the expected job, and lists the jobs of its kind."""
    with pytest.raises(AssertionError, match=r"exactly one job 'note'; found 0; there is none"):
        jobs.require_inserted(Note)
    jobs.client.insert_many(jobs.session, [Note("one"), Note("two")])
    with pytest.raises(AssertionError, match=r"(?s)found 2; of the kind.*'one'.*'two'"):
        jobs.require_inserted(Note)
    with pytest.raises(AssertionError, match=r"(?s)queue='mail'; found 0; of the kind.*'two'"):
        jobs.require_inserted(Note("two"), queue="mail")
    with pytest.raises(AssertionError, match=r"expected no job 'note' .*found 1"):
        jobs.require_not_inserted(Note("one"))
    with pytest.raises(InvalidOption, match="an attribute of a JobRow"):
        jobs.require_inserted(Note, quue="mail")


def test_finds_many_in_their_order(jobs: Jobs) -> None:
    """Jobs of several kinds are compared in the order of their inserts."""
    jobs.client.insert_many(jobs.session, [Note("one"), Report(2), Note("two")])
    found = jobs.require_many_inserted([Note("one"), Report, "note"])
    assert [job.kind for job in found] == ["note", "report", "note"]
    with pytest.raises(AssertionError, match=r"(?s)expected these jobs:.*but there are:.*'two'"):
        jobs.require_many_inserted([Note("two"), Note("one")])


def test_works_one_in_the_tests_transaction(
    jobs: Jobs, engine: Engine, schema: str, session: Session
) -> None:
    """A job is inserted, worked and completed, and nothing of it is left after the test."""
    worked = jobs.work_one(Note("hi"))
    assert (worked.state, worked.error, worked.job.attempt) == (JobState.completed, None, 1)
    assert written == ["hi"]
    session.commit()
    jobs.require_inserted(Note("hi"), state="completed")
    with engine.connect() as other:
        options = {"schema_translate_map": {None: schema}}
        assert other.scalar(select(func.count(Job.id)), execution_options=options) == 0


def test_raises_what_the_worker_raises(jobs: Jobs) -> None:
    """A worker's exception is recorded, and raised in the test unless reraise is False."""
    with pytest.raises(OSError, match="on fire"):
        jobs.work_one(Note(how="raise"))
    job = jobs.require_inserted(Note, state="retryable")
    assert job.errors[0]["error"].endswith("the printer is on fire")
    again = jobs.work_one(job, reraise=False)
    assert (again.job.attempt, again.state) == (2, JobState.retryable)
    assert isinstance(again.error, OSError)
    with pytest.raises(InvalidOption, match="inserted already"):
        jobs.work_one(job, InsertOpts())


def test_wishes_are_no_failures(jobs: Jobs) -> None:
    """JobSnooze and JobCancel are outcomes, and raise nothing."""
    assert jobs.work_one(Note(how="snooze")).state is JobState.scheduled
    assert jobs.work_one(Note(how="snooze and commit")).state is JobState.scheduled
    jobs.require_inserted(Note("second"))
    cancelled = jobs.work_one(Note(how="cancel"))
    assert cancelled.state is JobState.cancelled
    with pytest.raises(JobNotWaiting, match="is cancelled"):
        jobs.work_one(cancelled.job)


def test_a_workers_transaction_is_a_savepoint(jobs: Jobs) -> None:
    """The test sees what `ctx.transaction()` commits, and not what it rolls back."""
    assert jobs.work_one(Note(how="insert")).state is JobState.completed
    jobs.require_inserted(Note("second"))
    with pytest.raises(OSError, match="half-way"):
        jobs.work_one(Note(how="half"))
    jobs.require_not_inserted(Report)


def test_sees_what_the_test_has_not_flushed(
    jobs: Jobs, session: Session, engine: Engine, schema: str
) -> None:
    """Objects added to the test's session are flushed before a worker runs."""
    bound = Session(
        session.connection().execution_options(schema_translate_map={None: schema}),
        join_transaction_mode="create_savepoint",
    )
    with bound:
        bound.add(Job(kind="note", args={"text": "added"}, max_attempts=2, metadata_={}, tags=[]))
        assert [each.state for each in drain(bound, jobs.client)] == [JobState.completed]
    assert written == ["added"]


def test_drains_what_jobs_insert(jobs: Jobs) -> None:
    """Jobs that jobs insert are worked too, sync and async, until none is left."""
    jobs.client.insert_many(jobs.session, [Note("first", how="insert"), Report(3)])
    assert [each.state for each in jobs.drain()] == [JobState.completed] * 3
    assert sorted(written) == ["3 pages", "first", "second"]
    assert jobs.drain() == []


def test_does_not_drain_for_ever(jobs: Jobs) -> None:
    """A job that inserts itself is an error, not a hang."""
    jobs.client.insert(jobs.session, Note(how="forever"))
    with pytest.raises(AssertionError, match="5 attempts did not drain default"):
        jobs.drain(limit=5)


def test_drains_the_clients_queues(engine: Engine, schema: str, session: Session) -> None:
    """Jobs of a queue that the client does not work are left alone, unless it is named."""
    written.clear()
    queues = {"mail": QueueConfig(), "crm": QueueConfig()}
    client = Client(engine, workers=workers, schema=schema, queues=queues)
    for queue in ("mail", "crm", "other"):
        client.insert(session, Note(queue), InsertOpts(queue=queue))
    assert len(drain(session, client)) == 2
    assert len(drain(session, client, "other")) == 1
    assert sorted(written) == ["crm", "mail", "other"]


def test_drains_what_is_due_by_a_time(jobs: Jobs) -> None:
    """Scheduled and retryable jobs are worked only if they are due by `until`."""
    at = datetime.now(UTC) + timedelta(hours=1)
    jobs.client.insert(jobs.session, Note("later"), InsertOpts(scheduled_at=at))
    assert jobs.drain() == []
    assert len(jobs.drain(until=at)) == 1


def test_a_frozen_clock_is_the_rows_clock(engine: Engine, schema: str, session: Session) -> None:
    """Times in rows are the clock's, and advancing it makes jobs due."""
    clock = FrozenClock(NOON)
    client = Client(engine, workers=workers, schema=schema, clock=clock)
    job = client.insert(session, Note(how="raise")).job
    assert (job.created_at, job.scheduled_at) == (NOON, NOON)
    (failed,) = drain(session, client, reraise=False)
    assert failed.job.scheduled_at == NOON + timedelta(seconds=60)
    assert failed.job.attempted_at == NOON
    clock.advance(30)
    assert drain(session, client) == []
    clock.advance(timedelta(seconds=30))
    (again,) = drain(session, client, reraise=False)
    assert again.job.attempt == 2
    assert again.job.errors[1]["at"].startswith("2030-01-01T12:01:00")
    with pytest.raises(InvalidOption):
        clock.advance(-1)


def test_uniqueness_may_be_off(jobs: Jobs) -> None:
    """Within the block, duplicates are inserted; after it, they are skipped again."""
    opts = InsertOpts(unique=UniqueOpts(by_args=True))
    with without_uniqueness(jobs.client):
        for _ in range(2):
            assert not jobs.client.insert(jobs.session, Note(), opts).skipped_as_duplicate
    assert not jobs.client.insert(jobs.session, Note(), opts).skipped_as_duplicate
    assert jobs.client.insert(jobs.session, Note(), opts).skipped_as_duplicate


def test_works_committed_jobs_through_an_engine(client: Client, engine: Engine) -> None:
    """With an Engine, as after a request over HTTP, claims and completions are committed."""
    client.insert_many(engine, [Note("committed", how="insert")])
    assert [each.state for each in drain(engine, client)] == [JobState.completed] * 2
    require_many_inserted(
        engine, [Note(how="insert", text="committed"), Note("second")], schema=client.schema
    )


def test_needs_workers(engine: Engine, schema: str, session: Session) -> None:
    """A client without workers is refused."""
    with pytest.raises(ClientNotReady, match="no workers"):
        drain(session, Client(engine, schema=schema))


def test_names_what_is_no_client_and_no_job(client: Client, session: Session) -> None:
    """The transaction and the client in the wrong order, or a result for its job, are refused."""
    given: Any = session
    with pytest.raises(InvalidOption, match=r"client is .*Session.*; expected a Client"):
        drain(client, given)  # type: ignore[arg-type]  # that is the mistake
    result = client.insert(session, Note("first"))
    for mistake in (result, client.add(session, Note("first")), result.job.id):
        with pytest.raises(InvalidOption, match="expected args, or a JobRow, such as the result's"):
            work_one(session, client, mistake)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_works_in_an_async_session(client: Client, database_url: str, driver: str) -> None:
    """Jobs can be worked in an AsyncSession's transaction, by sync and async workers."""
    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg" and "host" in url.query:
        url = url.set(host=None)

    async def test() -> None:
        engine = create_async_engine(url)
        try:
            async with engine.connect() as connection:
                transaction = await connection.begin()
                session = AsyncSession(connection, join_transaction_mode="create_savepoint")
                await client.insert_async(session, Note("first", how="insert"))
                await client.insert_many_async(session, [Report(7)])
                await session.run_sync(require_inserted, Report(7), schema=client.schema)
                worked = await drain_async(session, client)
                assert [each.state for each in worked] == [JobState.completed] * 3
                one = await work_one_async(session, client, Report(8))
                assert one.state is JobState.completed
                with pytest.raises(ClientNotReady, match="await work_one_async"):
                    await session.run_sync(work_one, client, Report(9))
                with pytest.raises(OSError, match="half-way"):
                    await work_one_async(session, client, Note(how="half"))
                await session.run_sync(require_not_inserted, Report(1), schema=client.schema)
                await session.close()
                await transaction.rollback()
        finally:
            await engine.dispose()

    asyncio.run(test())
    assert sorted(written) == ["7 pages", "8 pages", "first", "second"]


@pytest.mark.parametrize("committed", [False, True])
def test_says_that_an_attempt_was_undone(engine: Engine, schema: str, *, committed: bool) -> None:
    """A worker that ends the test's transaction is an error, and not worked again endlessly."""
    workers = Workers()

    @workers.register
    def note(args: Note) -> None:
        session.rollback()

    client = Client(engine, workers=workers, schema=schema)
    with Session(engine) as session:
        client.insert(session, Note())
        if committed:
            session.commit()
            [job] = client.list_jobs(session).jobs
            client.update(session, job.id, metadata={"seen": True})
        with pytest.raises(AssertionError, match=r"is undone: its worker.*riverrun_app"):
            drain(session, client)


@pytest.mark.parametrize("how", ["isolation_level", "connect_args"])
def test_undoes_what_an_engine_in_autocommit_writes(engine: Engine, schema: str, how: str) -> None:
    """`rolled_back` has a transaction even on an autocommit engine, and leaves that setting."""
    options = {
        "isolation_level": {"isolation_level": "AUTOCOMMIT"},
        "connect_args": {"connect_args": {"autocommit": True}},
    }
    own = create_engine(engine.url, pool_size=1, max_overflow=0, **options[how])
    client = Client(own, workers=workers, schema=schema)
    with rolled_back(own) as session:
        client.insert(session, Note())
        session.commit()
        assert [each.state for each in drain(session, client)] == ["completed"]
    require_not_inserted(engine, Note, schema=schema)
    with own.connect() as connection:
        assert connection.connection.driver_connection.autocommit
    own.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_undoes_what_an_async_engine_in_autocommit_writes(
    database_url: str, engine: Engine, schema: str, driver: str
) -> None:
    """`rolled_back_async` has a transaction on an autocommit engine, and leaves that setting."""
    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg" and "host" in url.query:
        url = url.set(host=None)

    async def test() -> None:
        options = {"isolation_level": "AUTOCOMMIT", "pool_size": 1, "max_overflow": 0}
        own = create_async_engine(url, **options)
        client = Client(engine, workers=workers, schema=schema)
        async with rolled_back_async(own) as session:
            await client.insert_async(session, Note())
            await session.commit()
            assert [each.state for each in await drain_async(session, client)] == ["completed"]
        require_not_inserted(engine, Note, schema=schema)
        async with own.connect() as connection:
            assert await connection.run_sync(lambda c: c.connection.dbapi_connection.autocommit)
        await own.dispose()

    asyncio.run(test())


@pytest.mark.parametrize("kind", ["rolled back", "session", "connection"])
def test_drains_what_the_test_has_written(
    engine: Engine, schema: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs that waited before the test are left alone, in whatever state and queue they wait."""
    worked: list[str] = []
    workers = Workers()

    @workers.register
    def note(args: Note, ctx: JobContext) -> None:
        worked.append(args.text)
        if args.text == "again":
            ctx.client.insert(engine, Note("committed meanwhile"))
            with ctx.transaction() as inner:
                ctx.client.insert(inner, Note("by a worker"))

    client = Client(engine, workers=workers, schema=schema)
    later = datetime.now(UTC) + timedelta(days=1)
    for text_, opts in (("before", None), ("before", InsertOpts(scheduled_at=later))):
        client.insert(engine, Note(text_), opts)
    touched = client.insert(engine, Note("touched")).job
    until = later + timedelta(days=1)
    with ExitStack() as stack:
        if kind == "rolled back":
            tx: Any = stack.enter_context(rolled_back(engine))
        elif kind == "session":
            tx = stack.enter_context(Session(engine))
        else:
            tx = stack.enter_context(engine.connect())
        assert drain(tx, client, until=until) == []
        assert "left 2 due jobs alone" in caplog.text  # the third is scheduled, and stays so
        client.insert(tx, Note("again"))
        with suppress(KeyError), tx.begin_nested():
            client.insert(tx, Note("undone"))
            raise KeyError
        with tx.begin_nested():
            client.insert(tx, Note("in a savepoint"), InsertOpts(scheduled_at=later))
        client.update(tx, touched.id, metadata={"seen": True})
        if kind == "rolled back":
            tx.commit()
        drain(tx, client, until=until)
        tx.rollback()
    assert sorted(worked) == ["again", "by a worker", "in a savepoint", "touched"]
    counts = Counter(each.state for each in client.list_jobs(engine).jobs)
    assert counts == {"available": 3, "scheduled": 1}
    drain(engine, client, until=until)
    assert Counter(worked) == {
        "again": 1,
        "before": 2,
        "by a worker": 1,
        "committed meanwhile": 1,
        "in a savepoint": 1,
        "touched": 2,
    }
