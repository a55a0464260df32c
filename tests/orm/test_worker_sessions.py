"""Workers that take a session: their writes and their job's completion are one commit."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, NullPool, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from orm.worker_tables import Account, Entry, host_engine, names
from riverrun import Client, InsertOpts, JobArgs, JobCancel, JobContext, JobSnooze, Workers
from riverrun.errors import AttemptLost, ClientNotReady, InvalidOption
from riverrun.events import JobCancelled, JobCompleted, JobEvent, JobFailed, JobSnoozed
from riverrun.testing import rolled_back, rolled_back_async, work_one, work_one_async
from waiting import DEADLINE_S


@attrs.frozen
class Write(JobArgs, kind="write"):
    how: str = "return"


@attrs.frozen
class WriteAsync(JobArgs, kind="write_async"):
    how: str = "return"


def act(session: Session, how: str) -> None:
    """Write an entry, then use the session as a worker might."""
    session.add(Entry(name="first"))
    match how:
        case "commit":
            session.commit()
        case "commit twice":
            session.commit()
            session.add(Entry(name="second"))
            session.commit()
        case "commit, then roll back":
            session.commit()
            session.add(Entry(name="second"))
            session.flush()
            session.rollback()
        case "commit, then close":
            session.commit()
            session.add(Entry(name="second"))
            session.flush()
            session.close()
        case "commit, then raise":
            session.commit()
            raise ValueError("after the commit")
        case "roll back":
            session.flush()
            session.rollback()
        case "roll back, then write":
            session.flush()
            session.rollback()
            session.add(Entry(name="second"))
        case "close":
            session.flush()
            session.close()
        case "commit, then invalidate":
            session.commit()
            session.invalidate()
        case "commit, invalidate, then write":
            session.commit()
            session.invalidate()
            session.add(Entry(name="second"))
            session.commit()
        case "begin":
            session.rollback()
            with session.begin():
                session.add(Entry(name="second"))
        case "begin, then roll back":
            session.rollback()
            with session.begin():
                session.add(Entry(name="second"))
            session.add(Entry(name="third"))
            session.rollback()
        case "begin, then raise":
            session.rollback()
            with session.begin():
                session.add(Entry(name="second"))
            raise ValueError("after the block")
        case "with":
            with session:
                session.commit()
        case "a savepoint":
            with suppress(IntegrityError), session.begin_nested():
                session.add(Entry(name="taken"))
                session.flush()
        case "a savepoint left open":
            session.begin_nested()
            session.add(Entry(name="second"))
        case "a swallowed flush error":
            with suppress(IntegrityError):
                session.add(Entry(name="taken"))
                session.flush()
        case "a swallowed error after a commit":
            session.commit()
            with suppress(IntegrityError):
                session.add(Entry(name="taken"))
                session.flush()
        case "a swallowed statement error":
            session.flush()
            with suppress(IntegrityError):
                session.execute(text("INSERT INTO entry (name) VALUES ('taken')"))
        case "a swallowed error and a commit":
            session.flush()
            with suppress(IntegrityError):
                session.execute(text("INSERT INTO entry (name) VALUES ('taken')"))
            session.commit()
        case "the connection's commit":
            session.flush()
            session.connection().commit()
        case "the transaction's commit":
            session.flush()
            transaction = session.get_transaction()
            assert transaction is not None
            transaction.commit()
        case "raise":
            session.flush()
            raise ValueError("wrong")
        case "a deferred error":
            session.flush()
            session.execute(text("INSERT INTO late VALUES (1), (1)"))


WRITES = {
    "return": ["first"],
    "commit": ["first"],
    "commit twice": ["first", "second"],
    "commit, then roll back": ["first"],
    "commit, then close": ["first"],
    "roll back": [],
    "roll back, then write": ["second"],
    "close": [],
    "begin": ["second"],
    "begin, then roll back": ["second"],
    "with": ["first"],
    "a savepoint": ["first"],
    "a savepoint left open": ["first", "second"],
}
"""What a worker that does this has written; its job is completed in each case."""

WRITES_NOTHING = (
    "commit, then raise",
    "commit, then invalidate",
    "commit, invalidate, then write",
    "begin, then raise",
    "a swallowed flush error",
    "a swallowed error after a commit",
    "a swallowed statement error",
    "a swallowed error and a commit",
    "the connection's commit",
    "the transaction's commit",
    "raise",
    "a deferred error",
)
"""After each of these nothing is written, and the attempt has failed."""


@pytest.fixture
def host(database_url: str, schema: str) -> Iterator[Engine]:
    """The application's engine."""
    yield from host_engine(database_url, schema)


@pytest.fixture
def workers() -> Workers:
    """A worker with a Session, and one with an AsyncSession."""
    workers = Workers()

    @workers.register
    def write(args: Write, session: Session) -> None:
        act(session, args.how)

    @workers.register
    async def write_async(args: WriteAsync, session: AsyncSession) -> None:
        await session.run_sync(act, args.how)

    return workers


def worked(client: Client, *jobs: JobArgs, opts: InsertOpts | None = None) -> list[JobEvent]:
    """Work jobs one after the other, in threads and the event loop of a started client."""
    events = client.subscribe(JobEvent)
    ended = []
    with client:
        for job in jobs:
            client.insert(client.engine, job, opts)
            ended.append(events.get(timeout=DEADLINE_S))
    return ended


ARGS = pytest.mark.parametrize("args", [Write, WriteAsync], ids=["sync", "async"])


@ARGS
def test_writes_and_completion_are_one_commit(
    host: Engine, workers: Workers, args: Callable[[str], Any]
) -> None:
    """Whatever a worker does to its session, its writes and its completion exist together or not.

    The writes of a failed attempt never exist.
    """
    with host.begin() as connection:
        connection.execute(text("INSERT INTO entry (name) VALUES ('taken')"))
        connection.execute(
            text("CREATE TABLE late (n int, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)")
        )
    client = Client(host, workers=workers, queues={"default": 1})
    events = client.subscribe(JobEvent)
    with client:
        for how in (*WRITES, *WRITES_NOTHING):
            job = client.insert(host, args(how), InsertOpts(max_attempts=1)).job
            ended = events.get(timeout=DEADLINE_S)
            sort = JobCompleted if how in WRITES else JobFailed
            assert (how, type(ended)) == (how, sort), ended.error
            state = "completed" if how in WRITES else "discarded"
            row = client.get(host, job.id)
            assert (how, row.state, row.attempt) == (how, state, 1)
            assert (how, names(host)) == (how, ["taken", *WRITES.get(how, [])])
            with host.begin() as connection:
                connection.execute(text("DELETE FROM entry WHERE name <> 'taken'"))


def wish(session: Session, how: str) -> None:
    """Write an entry and raise JobSnooze or JobCancel."""
    session.add(Entry(name=how))
    session.flush()
    match how:
        case "snooze":
            raise JobSnooze(0.01)
        case "snooze and commit":
            raise JobSnooze(0.01, commit=True)
        case "cancel":
            raise JobCancel("no more")
        case "cancel and commit":
            raise JobCancel("no more", commit=True)
        case "snooze after an error":
            with suppress(IntegrityError):
                session.execute(text("INSERT INTO entry (name) VALUES ('taken')"))
            raise JobSnooze(0.01, commit=True)


@ARGS
def test_snoozes_and_cancels_roll_back(host: Engine, args: Callable[[str], Any]) -> None:
    """JobSnooze and JobCancel roll back the worker's writes, unless commit=True.

    With commit=True the outcome is part of the commit: after an error neither exists.
    """
    workers = Workers()

    @workers.register
    def write(args: Write, ctx: JobContext, *, db: Session) -> None:
        if ctx.job.metadata.get("snoozes"):
            return
        ctx.set_metadata("seen", args.how)
        wish(db, args.how)

    @workers.register
    async def write_async(args: WriteAsync, db: AsyncSession, ctx: JobContext) -> None:
        if ctx.job.metadata.get("snoozes"):
            return
        ctx.set_metadata("seen", args.how)
        await db.run_sync(wish, args.how)

    with host.begin() as connection:
        connection.execute(text("INSERT INTO entry (name) VALUES ('taken')"))
    client = Client(host, workers=workers, queues={"default": 1})
    events = client.subscribe(JobEvent)
    written = ["taken"]
    with client:
        for how in ("snooze", "snooze and commit", "cancel", "cancel and commit"):
            job = client.insert(host, args(how)).job
            ended = events.get(timeout=DEADLINE_S)
            if how.endswith("commit"):
                written.append(how)
            snoozed = how.startswith("snooze")
            assert (how, type(ended)) == (how, JobSnoozed if snoozed else JobCancelled)
            assert (how, names(host)) == (how, written)
            if snoozed:  # the job becomes due by itself; only this client knows of it
                again = events.get(timeout=DEADLINE_S)
                assert (type(again), again.job.attempt) == (JobCompleted, 1)
            row = client.get(host, job.id)
            assert (row.state, row.attempt) == ("completed" if snoozed else "cancelled", 1)
            assert row.metadata["seen"] == how
            assert len(row.errors) == (0 if snoozed else 1)
        client.insert(host, args("snooze after an error"), InsertOpts(max_attempts=1))
        failed = events.get(timeout=DEADLINE_S)
        assert (type(failed), failed.job.state) == (JobFailed, "discarded")
        assert "begin_nested" in "".join(getattr(failed.error, "__notes__", ()))
    assert names(host) == written


def test_a_block_commits_what_is_wished_for(host: Engine) -> None:
    """`ctx.transaction()` supports JobSnooze and JobCancel with commit=True, as a session does."""
    workers = Workers()

    @workers.register
    def write(args: Write, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            wish(session, args.how)

    client = Client(host, workers=workers, queues={"default": 1})
    (cancelled,) = worked(client, Write("cancel and commit"))
    assert (type(cancelled), cancelled.job.state) == (JobCancelled, "cancelled")
    assert names(host) == ["cancel and commit"]


class Tagged(Session):
    """A Session class of the application."""


class Routed(Session):
    """A Session class that chooses its engine itself, as Flask-SQLAlchemy's does."""

    engines: dict[str, Engine] = {}  # noqa: RUF012

    def get_bind(self, mapper: Any = None, **options: Any) -> Any:
        return self.engines["other" if mapper is Account.__mapper__ else "default"]


class TaggedAsync(AsyncSession):
    """An AsyncSession class of the application."""

    sync_session_class = Tagged


@pytest.mark.parametrize("how", ["bind", "binds"])
def test_a_sessionmaker_in_another_schema(host: Engine, how: str) -> None:
    """A sessionmaker whose sessions would write to other tables than workers' is refused."""
    tenant = host.execution_options(schema_translate_map={None: "tenant"})
    maker = sessionmaker(tenant) if how == "bind" else sessionmaker(host, binds={object: tenant})
    with pytest.raises(InvalidOption, match="schema_translate_map"):
        Client(host, workers=Workers(), sessionmaker=maker)
    if how == "bind":
        Client(tenant, workers=Workers(), sessionmaker=maker)


def test_the_sessionmaker_s_settings_count(host: Engine) -> None:
    """A worker's Session has the class, options, info and events of the client's sessionmaker."""
    maker = sessionmaker(
        host, class_=Tagged, expire_on_commit=False, autoflush=False, info={"tenant": 7}
    )
    committed = []
    event.listen(maker, "after_commit", lambda session: committed.append(names(host)))
    seen: list[Any] = []
    workers = Workers()

    @workers.register
    def write(args: Write, session: Tagged) -> None:
        settings = (session.expire_on_commit, session.autoflush, session.info)
        seen.append((isinstance(session, Tagged), isinstance(session, maker.class_), *settings))
        session.add(Entry(name="first"))

    client = Client(host, workers=workers, queues={"default": 1}, sessionmaker=maker)
    (ended,) = worked(client, Write())
    assert (type(ended), seen) == (JobCompleted, [(True, True, False, False, {"tenant": 7})])
    assert committed == [["first"]], "after_commit comes once, after the real commit"
    assert maker.kw["bind"] is host


@pytest.mark.parametrize("by_option", [True, False])
def test_the_sessionmaker_s_isolation_level_counts(host: Engine, by_option: bool) -> None:
    """A worker's transaction has the isolation level of the sessionmaker's engine; ours do not."""
    level = "REPEATABLE READ"
    other = host.execution_options(isolation_level=level)
    if not by_option:
        other = create_engine(host.url, isolation_level=level)
    workers = Workers()
    seen: list[Any] = []

    @workers.register
    def write(args: Write, session: Session) -> None:
        seen.append(session.scalar(text("SHOW transaction_isolation")))
        session.add(Entry(name="repeatable"))

    maker = sessionmaker(other)
    client = Client(host, workers=workers, queues={"default": 1}, sessionmaker=maker)
    (ended,) = worked(client, Write())
    assert type(ended) is JobCompleted
    with host.connect() as connection:
        level_after = connection.scalar(text("SHOW transaction_isolation"))
    assert (seen, level_after) == (["repeatable read"], "read committed")
    other.dispose()


def test_a_sessionmaker_without_autobegin(host: Engine) -> None:
    """Workers of a sessionmaker with autobegin=False may call `session.begin()`, and need not."""
    workers = Workers()

    @workers.register
    def write(args: Write, session: Session) -> None:
        with session.begin():
            session.add(Entry(name="first"))
        session.add(Entry(name="second"))

    @workers.register
    async def write_async(args: WriteAsync, session: AsyncSession) -> None:
        async with session.begin():
            session.add(Entry(name="third"))
        session.add(Entry(name="fourth"))

    client = Client(
        host,
        workers=workers,
        queues={"default": 1},
        sessionmaker=sessionmaker(host, autobegin=False),
        async_sessionmaker=async_sessionmaker(autobegin=False),
    )
    ended = worked(client, Write(), WriteAsync())
    assert [type(each) for each in ended] == [JobCompleted] * 2, [each.error for each in ended]
    assert names(host) == ["first", "second", "third", "fourth"]


@pytest.mark.parametrize("bind", ["own", "none"])
def test_the_async_sessionmaker_s_settings_count(host: Engine, bind: str) -> None:
    """An AsyncSession has the class, options and engine of the client's async sessionmaker."""
    engine = create_async_engine(host.url, poolclass=NullPool)
    options = {"bind": engine} if bind == "own" else {}
    maker = async_sessionmaker(class_=TaggedAsync, expire_on_commit=False, info={"a": 1}, **options)
    seen: list[Any] = []
    workers = Workers()

    @workers.register
    async def write(args: WriteAsync, session: AsyncSession) -> None:
        seen.append((type(session), isinstance(session.sync_session, Tagged), session.info))
        seen.append(session.sync_session.expire_on_commit)
        session.add(Entry(name="first"))
        await session.commit()
        async with session.begin_nested():
            session.add(Entry(name="second"))
        async with session.begin():
            session.add(Entry(name="third"))
        with suppress(ValueError):
            async with session.begin():
                session.add(Entry(name="fourth"))
                raise ValueError
        session.add(Entry(name="fifth"))
        await session.rollback()
        await session.close()

    client = Client(host, workers=workers, queues={"default": 1}, async_sessionmaker=maker)
    (ended,) = worked(client, WriteAsync())
    assert type(ended) is JobCompleted, ended.error
    assert seen == [(TaggedAsync, True, {"a": 1}), False]
    assert names(host) == ["first", "second", "third"]


def test_a_session_that_routes(host: Engine, empty_database: Engine) -> None:
    """In a session with several databases, the jobs' database uses the attempt's connection.

    The others are committed with the session.
    """
    Account.metadata.create_all(empty_database)
    alike = create_engine(host.url)  # another engine for the same database
    Routed.engines = {"default": alike, "other": empty_database}
    workers = Workers()

    @workers.register
    def write(args: Write, session: Session) -> None:
        session.add_all([Entry(name="first"), Account(id=1)])

    client = Client(
        host, workers=workers, queues={"default": 1}, sessionmaker=sessionmaker(class_=Routed)
    )
    (ended,) = worked(client, Write())
    assert (type(ended), names(host)) == (JobCompleted, ["first"]), ended.error
    binds = sessionmaker(host, binds={Account: empty_database, Entry: alike})
    client = Client(host, workers=workers, queues={"default": 1}, sessionmaker=binds)
    with Session(empty_database) as session, session.begin():
        session.delete(session.get_one(Account, 1))
    with Session(host) as session, session.begin():
        session.delete(session.scalars(select(Entry)).one())
    (ended,) = worked(client, Write())
    assert (type(ended), names(host)) == (JobCompleted, ["first"]), ended.error
    with Session(empty_database) as session:
        assert session.get(Account, 1) is not None
    assert alike.pool.checkedout() == 0
    alike.dispose()


def test_one_transaction_an_attempt(host: Engine) -> None:
    """A worker with a session cannot use `ctx.transaction()` as well."""
    workers = Workers()

    @workers.register
    def write(args: Write, ctx: JobContext, session: Session) -> None:
        session.add(Entry(name="first"))
        with ctx.transaction():
            pass

    client = Client(host, workers=workers, queues={"default": 1})
    (ended,) = worked(client, Write(), opts=InsertOpts(max_attempts=1))
    assert (type(ended), names(host)) == (JobFailed, [])
    assert isinstance(ended.error, ClientNotReady)
    assert "beside a session parameter" in str(ended.error)


@ARGS
def test_a_block_commits_once(host: Engine, args: Callable[[str], Any]) -> None:
    """A commit within the block of ctx.transaction() is refused: nothing is written twice."""
    engine = create_async_engine(host.url, poolclass=NullPool)
    workers = Workers()

    def act(session: Session, how: str) -> None:
        with session.begin_nested():
            session.add(Entry(name=how))
        match how:
            case "commit" | "commit, then write":
                session.commit()
            case "the connection's commit":
                session.connection().commit()
            case "a swallowed refusal":
                with suppress(ClientNotReady):
                    session.commit()
        if how == "commit, then write":
            session.add(Entry(name="second"))

    @workers.register
    def write(args: Write, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            act(session, args.how)

    @workers.register
    async def write_async(args: WriteAsync, ctx: JobContext) -> None:
        async with ctx.async_transaction(engine) as session:
            await session.run_sync(act, args.how)

    client = Client(host, workers=workers, queues={"default": 1})
    refused = ("commit", "commit, then write", "the connection's commit", "a swallowed refusal")
    ended = worked(
        client, *(args(how) for how in (*refused, "none")), opts=InsertOpts(max_attempts=1)
    )
    assert [type(each) for each in ended] == [JobFailed] * len(refused) + [JobCompleted]
    assert names(host) == ["none"]
    for each in ended[:3]:
        assert "the block of ctx.transaction() commits at its end" in str(each.error)


def test_jobs_inserted_in_the_session_are_part_of_it(host: Engine, workers: Workers) -> None:
    """A job that a worker inserts in its session exists only if the worker returns."""
    other = Workers()

    @other.register
    def write(args: Write, session: Session, ctx: JobContext) -> None:
        ctx.client.insert(session, WriteAsync())
        session.commit()
        if args.how == "raise":
            raise ValueError

    @other.register
    async def write_async(args: WriteAsync, session: AsyncSession) -> None:
        session.add(Entry(name="by the second"))

    client = Client(host, workers=other, queues={"default": 1}, poll_interval=3600)
    events = client.subscribe(JobEvent)
    with client:
        client.insert(host, Write("raise"), InsertOpts(max_attempts=1))
        assert type(events.get(timeout=DEADLINE_S)) is JobFailed
        client.insert(host, Write())
        ended = [events.get(timeout=DEADLINE_S) for _ in range(2)]
    assert {(type(each), each.job.kind) for each in ended} == {
        (JobCompleted, "write"),
        (JobCompleted, "write_async"),
    }, "it is announced by the commit"
    assert names(host) == ["by the second"]


def test_a_lost_attempt_writes_nothing(host: Engine) -> None:
    """A worker whose job was rescued cannot commit its writes."""
    workers = Workers()

    @workers.register
    def write(args: Write, session: Session, ctx: JobContext) -> None:
        session.add(Entry(name="first"))
        session.commit()
        with host.begin() as connection:
            connection.execute(text("UPDATE river_job SET attempt = attempt + 1"))

    client = Client(host, workers=workers, queues={"default": 1})
    job = client.insert(host, Write()).job
    with pytest.raises(AttemptLost):
        work_one(host, client, job)
    assert names(host) == []
    assert client.get(host, job.id).state == "running"


def test_in_a_test_s_transaction(host: Engine, workers: Workers) -> None:
    """`work_one` gives a worker a session in the test's transaction, which is rolled back."""
    with host.begin() as connection:
        connection.execute(text("INSERT INTO entry (name) VALUES ('taken')"))
        connection.execute(
            text("CREATE TABLE late (n int, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)")
        )
    client = Client(host, workers=workers)
    # A deferred constraint is checked by COMMIT, and a test's transaction has none.
    nothing = [each for each in WRITES_NOTHING if each not in ("a deferred error",)]
    for how in (*WRITES, *nothing):
        if how == "the connection's commit" or "invalidate" in how:
            continue  # it would end the test's transaction
        with rolled_back(host) as session:
            session.add(Entry(name="the test's"))
            one = work_one(session, client, Write(how), InsertOpts(max_attempts=1), reraise=False)
            state = "completed" if how in WRITES else "discarded"
            assert (how, one.state) == (how, state), one.error
            found = list(session.scalars(select(Entry.name).order_by(Entry.id)))
            expected = ["taken", "the test's", *WRITES.get(how, [])]
            assert (how, found) == (how, expected)
        assert names(host) == ["taken"]


async def in_async_tests(host: Engine, workers: Workers) -> None:
    """Make the same checks in the transaction of an AsyncSession."""
    engine = create_async_engine(host.url)
    client = Client(host, workers=workers)
    for job in (WriteAsync("commit"), Write("commit")):
        async with rolled_back_async(engine) as session:
            one = await work_one_async(session, client, job)
            assert one.state == "completed"
            assert list(await session.scalars(select(Entry.name))) == ["first"]
    await engine.dispose()


def test_in_an_async_test_s_transaction(host: Engine, workers: Workers) -> None:
    """`work_one_async` gives sync and async workers a session in the test's transaction."""
    asyncio.run(in_async_tests(host, workers))
    assert names(host) == []
    client = Client(host, workers=workers)
    with rolled_back(host) as session, pytest.raises(ClientNotReady, match="work_one_async"):
        work_one(session, client, WriteAsync())
    assert [each.state for each in (work_one(host, client, WriteAsync()),)] == ["completed"]
    assert names(host) == ["first"]
