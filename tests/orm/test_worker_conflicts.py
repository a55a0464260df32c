"""Attempts whose transaction could not commit through no fault of the worker start again."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, InternalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from orm.commit_proxy import CommitProxy
from orm.worker_tables import Account, Entry, host_engine_with_account, names
from riverrun import Client, InsertOpts, JobArgs, JobContext, Workers
from riverrun.events import JobCompleted, JobConflicted, JobEvent, JobFailed
from waiting import DEADLINE_S

ONCE = InsertOpts(max_attempts=1)


@attrs.frozen
class Pay(JobArgs, kind="pay"):
    how: str


@attrs.frozen
class PayAsync(JobArgs, kind="pay_async"):
    how: str


@pytest.fixture
def host(database_url: str, schema: str) -> Iterator[Engine]:
    """The application's engine, with one account."""
    yield from host_engine_with_account(database_url, schema)


@pytest.fixture
def proxy(server_url: str) -> Iterator[CommitProxy]:
    """A proxy in front of the server."""
    directory = str(make_url(server_url).query.get("host", ""))
    if not directory.startswith("/"):
        pytest.skip("the server has no socket file that is known")
    port = make_url(server_url).port or make_url(server_url).query.get("port", 5432)
    proxy = CommitProxy(Path(directory) / f".s.PGSQL.{port}")
    yield proxy
    proxy.close()


@pytest.fixture
def cut(proxy: CommitProxy, host: Engine) -> Iterator[Engine]:
    """The application's engine, connected through the proxy."""
    url = make_url(proxy.url).set(database=host.url.database)
    url = url.update_query_dict({"options": host.url.query["options"]})
    engine = create_engine(url)
    yield engine
    engine.dispose()


def both(work: Callable[[Session, str], None], seen: list[Any]) -> Workers:
    """Return a sync and an async worker that call `work` and record their input."""
    workers = Workers()

    @workers.register
    def pay(args: Pay, ctx: JobContext, session: Session) -> None:
        seen.append((args, ctx, session, ctx.job.attempt))
        work(session, args.how)

    @workers.register
    async def pay_async(args: PayAsync, ctx: JobContext, session: AsyncSession) -> None:
        seen.append((args, ctx, session, ctx.job.attempt))
        await session.run_sync(work, args.how)

    return workers


ARGS = pytest.mark.parametrize("args", [Pay, PayAsync], ids=["sync", "async"])


@ARGS
@pytest.mark.parametrize(
    ("moment", "calls"),
    [("statement", 2), ("before", 2), ("after", 1), ("late", 1), ("never", 2)],
)
def test_a_lost_connection(
    host: Engine,
    cut: Engine,
    proxy: CommitProxy,
    args: Callable[[str], Any],
    moment: str,
    calls: int,
) -> None:
    """Whenever a worker's connection is lost, its effects happen once and no attempt is spent."""
    seen: list[Any] = []

    def work(session: Session, how: str) -> None:
        if len(seen) == 1:
            proxy.moment = how
        session.add(Entry(name="paid"))
        session.flush()

    client = Client(cut, workers=both(work, seen), queues={"default": 1})
    events = client.subscribe(JobEvent)
    with client:
        job = client.insert(host, args(moment), ONCE).job
        sorts = []
        while JobCompleted not in sorts:
            ended = events.get(timeout=DEADLINE_S)
            sorts.append(type(ended))
    assert sorts == [*[JobConflicted] * (calls - 1), JobCompleted]
    assert (proxy.lost, len(seen), names(host)) == (1, calls, ["paid"])
    row = client.get(host, job.id)
    assert (row.state, row.attempt, row.errors) == ("completed", 1, ())
    assert row.metadata["riverrun:conflicts"] == 1


@ARGS
def test_a_transaction_that_is_idle_for_too_long(host: Engine, args: Callable[[str], Any]) -> None:
    """A connection that the server ended by `idle_in_transaction_session_timeout` is a failure.

    Each attempt would lose it again.
    """
    seen: list[Any] = []

    def work(session: Session, how: str) -> None:
        session.add(Entry(name="paid"))
        session.flush()
        # What the server answers then; how much of it arrives depends on the moment.
        ended = psycopg.errors.IdleInTransactionSessionTimeout(
            "ended due to an idle-in-transaction"
        )
        session.connection().invalidate(ended)
        raise InternalError("SELECT 1", {}, ended)

    client = Client(host, workers=both(work, seen), queues={"default": 1})
    events = client.subscribe(JobEvent)
    with client:
        job = client.insert(host, args(""), ONCE).job
        assert type(events.get(timeout=DEADLINE_S)) is JobFailed
    row = client.get(host, job.id)
    assert (row.state, len(seen), names(host)) == ("discarded", 1, [])
    assert "idle-in-transaction" in row.errors[0]["error"]


def meddle(engine: Engine) -> None:
    """Change the account in another session's transaction."""
    with Session(engine) as other, other.begin():
        other.get_one(Account, 1).total += 10


def conflict(engine: Engine, session: Session, how: str) -> None:
    """Make another transaction conflict with this one, the first time only."""
    match how:
        case "stale":
            account = session.get_one(Account, 1)
            meddle(engine)
            account.total += 1
        case "stale, another raised":
            account = session.get_one(Account, 1)
            meddle(engine)
            account.total += 1
            try:
                session.flush()
            except StaleDataError:
                raise LookupError("no such version")  # noqa: B904  as applications do
        case "serialization":
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            session.execute(text("SELECT 1 FROM account"))
            meddle(engine)
            session.execute(text("UPDATE account SET total = total + 1"))
        case "serialization, another raised":
            try:
                session.execute(text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$"))
            except DBAPIError as error:
                raise RuntimeError("the application's own") from error
        case "at the commit":
            # Each has read what the other writes; PostgreSQL detects that at the second COMMIT.
            session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            session.execute(text("SELECT total FROM account"))
            with Session(engine) as other:
                other.connection(execution_options={"isolation_level": "SERIALIZABLE"})
                other.execute(text("SELECT name FROM entry"))
                other.execute(text("UPDATE account SET total = total + 10"))
                session.add(Entry(name="paid"))
                session.flush()
                other.commit()
        case "deadlock":
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$"))
        case "nowait" | "lock_timeout":
            with Session(engine) as other:
                other.execute(text("UPDATE account SET total = total + 10"))
                if how == "nowait":
                    session.get(Account, 1, with_for_update={"nowait": True})
                session.execute(text("SET LOCAL lock_timeout = 10"))
                session.execute(text("UPDATE account SET total = total + 1"))
        case "killed":
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        case "no conflict":
            raise ValueError("wrong")
        case "one that was dealt with":
            with suppress(DBAPIError), session.begin_nested():
                session.execute(text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$"))
            raise ValueError("wrong")


CONFLICTS = (
    *("stale", "stale, another raised", "serialization", "serialization, another raised"),
    *("at the commit", "deadlock", "nowait", "lock_timeout", "killed"),
)

FAILURES = ("no conflict", "one that was dealt with")


@ARGS
def test_conflicts_are_no_failures(host: Engine, args: Callable[[str], Any]) -> None:
    """An attempt that conflicts with another transaction starts again with a new session and args.

    The conflict spends no attempt and leaves no error. Other failures count as usual.
    """
    seen: list[Any] = []

    def work(session: Session, how: str) -> None:
        if len(seen) == 1:
            conflict(host, session, how)
        session.add(Entry(name=how))

    client = Client(host, workers=both(work, seen), queues={"default": 1})
    events = client.subscribe(JobEvent)
    with client:
        for how in (*CONFLICTS, *FAILURES):
            seen.clear()
            job = client.insert(host, args(how), ONCE).job
            first = events.get(timeout=DEADLINE_S)
            row = client.get(host, job.id)
            if how in FAILURES:
                assert (how, type(first), row.state) == (how, JobFailed, "discarded")
                continue
            assert (how, type(first)) == (how, JobConflicted), first.error
            ended = events.get(timeout=DEADLINE_S)
            assert (how, type(ended)) == (how, JobCompleted), ended.error
            row = client.get(host, job.id)
            assert (row.attempt, row.errors, row.metadata["riverrun:conflicts"]) == (1, (), 1)
            (one, two) = seen
            assert one[0] == two[0]
            assert not any(each is other for each, other in zip(one[:3], two[:3], strict=True))
    assert names(host) == list(CONFLICTS)


def test_conflicts_come_to_an_end(host: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a number of conflicts, an attempt that meets another one has failed."""
    monkeypatch.setattr("riverrun.outcome.CONFLICTS_MAX", 2)
    seen: list[Any] = []

    def work(session: Session, how: str) -> None:
        conflict(host, session, how)

    client = Client(host, workers=both(work, seen), queues={"default": 1})
    events = client.subscribe(JobEvent)
    with client:
        client.insert(host, Pay("stale"), ONCE)
        sorts = [type(events.get(timeout=DEADLINE_S)) for _ in range(3)]
    assert sorts == [JobConflicted, JobConflicted, JobFailed]
    assert len(seen) == 3


def test_a_time_that_is_over_is_no_conflict(host: Engine) -> None:
    """An attempt that is interrupted by its timeout has failed, although its connection is lost."""
    workers = Workers()

    @workers.register(timeout=0.3)
    async def pay(args: PayAsync, session: AsyncSession) -> None:
        await session.execute(text("SELECT pg_sleep(20)"))

    client = Client(host, workers=workers, queues={"default": 1})
    events = client.subscribe(JobEvent)
    with client:
        client.insert(host, PayAsync("slow"), ONCE)
        failed = events.get(timeout=DEADLINE_S)
    assert (type(failed), failed.job.state) == (JobFailed, "discarded")
    assert "timed out" in str(failed.error)
