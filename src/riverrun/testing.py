"""For users' tests: what was inserted, and jobs worked inside the test's own transaction.

    with Session(engine) as session:                     # rolled back at the end
        sign_up(session, "alice@example.com")            # the code under test
        require_inserted(session, SendEmail(to="alice@example.com"), queue="mail")
        drain(session, client, "mail")                   # its jobs, and those that they insert

Each function takes the test's Session or Connection first, so that `run_sync` hands over that of an
AsyncSession. None commits: SQLAlchemy's recipe for a test suite, a session joined to a transaction
that is rolled back, needs nothing more.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session

from riverrun.attempt import Attempt, Ended
from riverrun.client import Client
from riverrun.clock import Clock, Duration, seconds
from riverrun.context import JobContext
from riverrun.errors import ClientNotReady, InvalidOption, JobCancel, JobSnooze
from riverrun.job import JobRow, encode, kind_of
from riverrun.job_list import JobListParams
from riverrun.options import InsertOpts, check_aware, check_int
from riverrun.plugins import Plugin
from riverrun.sessions import Where, joined
from riverrun.states import JobState
from riverrun.verbs.claim import claim, claim_job
from riverrun.verbs.complete import record
from riverrun.verbs.insert import JobDraft
from riverrun.verbs.read import get, list_jobs
from riverrun.verbs.schedule import schedule

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

_MOST = 10_000


class FrozenClock(Clock):
    """A clock that stands still until it is told to advance, for rows too.

        clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
        client = Client(engine, clock=clock)
        clock.advance(timedelta(hours=1))

    Args:
        at: What time it is, aware; the process's unless said.
    """

    def __init__(self, at: datetime | None = None) -> None:
        self._now = datetime.now(UTC) if at is None else check_aware("at", at)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the time at which it stands."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds by which it was advanced."""
        return self._monotonic

    def database_now(self) -> datetime:
        """Return the time at which it stands: rows live by it."""
        return self._now

    def advance(self, duration: Duration) -> datetime:
        """Go forward by `duration`, seconds or a timedelta, and return the time it is then."""
        passed_s = seconds(duration)
        if passed_s < 0:
            raise InvalidOption("duration", duration, "no negative one: jobs do not go back")
        self._now += timedelta(seconds=passed_s)
        self._monotonic += passed_s
        return self._now


@attrs.frozen(kw_only=True)
class Worked:
    """What an attempt at a job came to.

    Attributes:
        job: The job as it is now.
        error: What the worker raised; None if it returned.
    """

    job: JobRow
    error: BaseException | None = None

    @property
    def state(self) -> JobState:
        """The job's state."""
        return self.job.state


def require_inserted(
    where: Where, expected: object, *, schema: str | None = None, **conditions: object
) -> JobRow:
    """Return the one job that is as expected; fail if there is none, or more than one.

    Args:
        where: The test's Session or Connection; an Engine sees what was committed.
        expected: A class of args, for any job of its kind; args, which must then be equal; or a
            kind's name.
        schema: The schema of River's tables; the search path's unless said.
        **conditions: What else must be so, by the attributes of a JobRow, such as `queue="mail"`;
            `metadata` and `args` need only contain what is given.

    Raises:
        AssertionError: If there is not exactly one; it lists the jobs there are.
    """
    found, others = _search(where, expected, conditions, schema)
    if len(found) != 1:
        raise AssertionError(_said("exactly one", len(found), expected, conditions, others))
    return found[0]


def require_many_inserted(
    where: Where, expected: Sequence[object], *, schema: str | None = None
) -> list[JobRow]:
    """Return the jobs of all the kinds in `expected`; fail if they are not these, in this order.

    Args:
        where: The test's Session or Connection.
        expected: Classes of args, args or kinds' names, in the order of their inserts.
        schema: The schema of River's tables; the search path's unless said.

    Raises:
        AssertionError: If they are others, or come in another order; it lists them.
    """
    kinds = sorted({_kind(each) for each in expected})
    jobs = _jobs(where, JobListParams(kinds=kinds, limit=_MOST), schema)
    same = len(jobs) == len(expected) and all(
        _fits(job, each, {}) for job, each in zip(jobs, expected, strict=True)
    )
    if not same:
        wanted = "\n".join(f"  {_named(each)}" for each in expected)
        raise AssertionError(f"expected these jobs:\n{wanted}\nbut there are:\n{_listed(jobs)}")
    return jobs


def require_not_inserted(
    where: Where, expected: object, *, schema: str | None = None, **conditions: object
) -> None:
    """Fail if a job is as described.

    Args:
        where: The test's Session or Connection; an Engine sees what was committed.
        expected: A class of args, args or a kind's name, as for `require_inserted`.
        schema: The schema of River's tables; the search path's unless said.
        **conditions: What else must be so, by the attributes of a JobRow.

    Raises:
        AssertionError: If there is one; it lists them.
    """
    found, _ = _search(where, expected, conditions, schema)
    if found:
        raise AssertionError(_said("no", len(found), expected, conditions, found))


def work_one(
    where: Where,
    client: Client,
    job: object,
    opts: InsertOpts | None = None,
    *,
    reraise: bool = True,
) -> Worked:
    """Work one job here and now, in the test's transaction, as the client would.

    The worker's `ctx.transaction()` is a savepoint in it. What the Session has not flushed is
    flushed before, and what it has loaded is expired after: the worker has a Session of its own.

    Args:
        where: The test's Session or Connection; an Engine for jobs that were committed.
        client: The client whose workers, plugins and policies count; it needs not run.
        job: A JobRow that waits, whenever it is due, or args, which are inserted first.
        opts: How they are inserted.
        reraise: Whether what the worker raises is raised here too, once it is recorded; JobCancel
            and JobSnooze are not: they are outcomes.

    Raises:
        ClientNotReady: If the client has no workers, or an `async def` worker is called from a
            running event loop, where `work_one_async` is to be used.
        JobNotWaiting: If the job runs or is final.
    """
    bench = _Bench(where, client)
    return bench.work(bench.claim_one(job, opts), reraise=reraise)


def drain(
    where: Where,
    client: Client,
    queue: str | None = None,
    *,
    until: datetime | None = None,
    limit: int = 1_000,
    reraise: bool = True,
) -> list[Worked]:
    """Work every job that is due, and those that they insert, in the test's transaction.

    Args:
        where: The test's Session or Connection; an Engine for jobs that were committed.
        client: The client whose workers, plugins and policies count; it needs not run.
        queue: Which queue; all that the client works unless said, or "default" if it works none.
        until: The time to take for now, aware: what is scheduled or to be retried by then is worked
            too. The client's clock, if it is frozen, or the database's, unless said.
        limit: Most attempts, so that a job that inserts itself ends.
        reraise: Whether what a worker raises is raised here too, once it is recorded, the jobs
            after it left waiting.

    Returns:
        The attempts, in their order.

    Raises:
        ClientNotReady: As for `work_one`.
        AssertionError: If `limit` attempts were not enough.
    """
    bench = _Bench(where, client, until)
    return [bench.work(each, reraise=reraise) for each in bench.claim_all(queue, limit)]


async def work_one_async(
    where: "AsyncSession | AsyncConnection",
    client: Client,
    job: object,
    opts: InsertOpts | None = None,
    *,
    reraise: bool = True,
) -> Worked:
    """As `work_one`, with an AsyncSession, for workers of either sort."""

    def claimed(session: Any) -> tuple["_Bench", Attempt]:
        bench = _Bench(session, client)
        return bench, bench.claim_one(job, opts)

    bench, attempt = await where.run_sync(claimed)
    return await bench.work_async(where, attempt, reraise=reraise)


async def drain_async(
    where: "AsyncSession | AsyncConnection",
    client: Client,
    queue: str | None = None,
    *,
    until: datetime | None = None,
    limit: int = 1_000,
    reraise: bool = True,
) -> list[Worked]:
    """As `drain`, with an AsyncSession, for workers of either sort."""
    worked: list[Worked] = []
    attempts: Iterator[Attempt] | None = None
    bench: _Bench | None = None

    def claimed(session: Any) -> Attempt | None:
        nonlocal attempts, bench
        if attempts is None:
            bench = _Bench(session, client, until)
            attempts = bench.claim_all(queue, limit)
        return next(attempts, None)

    while (attempt := await where.run_sync(claimed)) is not None:
        assert bench is not None  # noqa: S101  made with the first attempt
        worked.append(await bench.work_async(where, attempt, reraise=reraise))
    return worked


@contextmanager
def without_uniqueness(client: Client) -> Iterator[Client]:
    """Insert jobs of `client` without their unique keys for a while: none is a duplicate."""
    plugins = client._plugins
    client._plugins = (*plugins, _NoMark())
    try:
        yield client
    finally:
        client._plugins = plugins


@contextmanager
def rolled_back(engine: Engine, **session_options: Any) -> Iterator[Session]:
    """Yield a Session whose every commit is undone at the end.

    Source: SQLAlchemy 2.1, "Joining a Session into an External Transaction".

    Args:
        engine: The database.
        **session_options: Passed to the Session.
    """
    with engine.connect() as connection:
        transaction = connection.begin()
        options = {"join_transaction_mode": "create_savepoint", **session_options}
        try:
            with Session(connection, **options) as session:
                yield session
        finally:
            transaction.rollback()


class Jobs:
    """The functions of this module, on one session and client: what the pytest plugin hands out.

    Attributes:
        session: The test's Session.
        client: The client.
    """

    def __init__(self, session: Where, client: Client) -> None:
        self.session = session
        self.client = client

    def require_inserted(self, expected: object, **conditions: object) -> JobRow:
        """See the function `require_inserted`."""
        return require_inserted(self.session, expected, schema=self.client.schema, **conditions)

    def require_many_inserted(self, expected: Sequence[object]) -> list[JobRow]:
        """See the function `require_many_inserted`."""
        return require_many_inserted(self.session, expected, schema=self.client.schema)

    def require_not_inserted(self, expected: object, **conditions: object) -> None:
        """See the function `require_not_inserted`."""
        require_not_inserted(self.session, expected, schema=self.client.schema, **conditions)

    def work_one(
        self, job: object, opts: InsertOpts | None = None, *, reraise: bool = True
    ) -> Worked:
        """See the function `work_one`."""
        return work_one(self.session, self.client, job, opts, reraise=reraise)

    def drain(
        self,
        queue: str | None = None,
        *,
        until: datetime | None = None,
        limit: int = 1_000,
        reraise: bool = True,
    ) -> list[Worked]:
        """See the function `drain`."""
        return drain(self.session, self.client, queue, until=until, limit=limit, reraise=reraise)


class _NoMark(Plugin):
    def insert_begin(self, draft: JobDraft) -> JobDraft:
        return attrs.evolve(draft, mark=None)


class _Bench:
    """Claims, works and completes in one Session's, Connection's or Engine's transaction."""

    def __init__(self, where: Where, client: Client, until: datetime | None = None) -> None:
        if client.workers is None:
            raise ClientNotReady("the client has no workers; pass workers= to the Client")
        self._where = where() if isinstance(where, scoped_session) else where
        self._client = client
        self._settings = client._settings()
        self._terms = self._settings.terms()
        self._until = None if until is None else check_aware("until", until)

    def claim_one(self, job: object, opts: InsertOpts | None) -> Attempt:
        """Claim `job`, which is a JobRow, or args to insert first."""
        if not isinstance(job, JobRow):
            job = self._client.insert(self._where, job, opts).job
        elif opts is not None:
            raise InvalidOption("opts", opts, "none: the job is inserted already")
        self._flush()
        return self._attempt(
            claim_job(
                self._where,
                job.id,
                client_id=self._client.id,
                schema=self._client.schema,
                now=self._now(),
            )
        )

    def claim_all(self, queue: str | None, limit: int) -> Iterator[Attempt]:
        """Claim jobs as long as there are any, one by one."""
        check_int("limit", limit, 1, _MOST)
        queues = [queue] if queue is not None else (list(self._client.queues) or ["default"])
        count = 0
        while job := self._next(queues):
            count += 1
            if count > limit:
                problem = f"{limit} attempts did not drain {', '.join(queues)}; next was"
                raise AssertionError(f"{problem} job {job.id} ({job.kind}). Pass a higher limit=")
            yield self._attempt(job)

    def work(self, attempt: Attempt, *, reraise: bool) -> Worked:
        """Execute and complete."""
        if not attempt.is_async:
            return self._end(attempt.execute(), reraise=reraise)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._end(asyncio.run(attempt.execute_async()), reraise=reraise)
        problem = "is an async def, and an event loop runs here: await work_one_async or"
        raise ClientNotReady(f"the worker of {attempt.job.kind!r} {problem} drain_async")

    async def work_async(
        self, where: "AsyncSession | AsyncConnection", attempt: Attempt, *, reraise: bool
    ) -> Worked:
        """Execute and complete, from async code."""
        if not attempt.is_async:
            return await where.run_sync(lambda _: self.work(attempt, reraise=reraise))
        assert isinstance(attempt.ctx, _Context)  # noqa: S101  `_attempt` has made it
        attempt.ctx.joined_async = where
        ended = await attempt.execute_async()
        return await where.run_sync(lambda _: self._end(ended, reraise=reraise))

    def _attempt(self, job: JobRow) -> Attempt:
        settings = self._settings

        def context() -> JobContext:
            return _Context(
                job,
                clock=settings.clock,
                claimed_monotonic=settings.clock.monotonic(),
                timeout_s=settings.timeout_s(job.kind),
                engine=settings.engine,
                schema=settings.schema,
                client=self._client,
                where=self._where,
            )

        return Attempt(self._terms, job.kind, context).prepare()

    def _next(self, queues: Sequence[str]) -> JobRow | None:
        self._flush()
        schema, now = self._client.schema, self._now()
        if now is not None:
            schedule(self._where, schema=schema, now=now)
        for queue in queues:
            claimed = claim(self._where, queue, client_id=self._client.id, schema=schema, now=now)
            if claimed:
                return claimed[0]
        return None

    def _now(self) -> datetime | None:
        return self._until or self._client._clock.database_now()

    def _flush(self) -> None:
        if isinstance(self._where, Session):
            self._where.flush()

    def _end(self, ended: Ended, *, reraise: bool) -> Worked:
        job, schema = ended.job, self._client.schema
        if ended.outcome is not None:
            with joined(self._where, schema) as transaction:
                record(transaction, [ended.outcome], merge_anyway=True, now=self._now())
        if isinstance(self._where, Session):
            self._where.flush()
            self._where.expire_all()
        wished = isinstance(ended.error, JobCancel | JobSnooze)
        if reraise and ended.error is not None and not wished:
            raise ended.error
        return Worked(job=get(self._where, job.id, schema=schema), error=ended.error)


class _Context(JobContext):
    """A context whose transactions are savepoints in the test's own."""

    def __init__(self, job: JobRow, *, where: Where, **options: Any) -> None:
        super().__init__(job, **options)
        self._where = where
        self.joined_async: AsyncSession | AsyncConnection | None = None

    @contextmanager
    def transaction(self, **session_options: Any) -> Iterator[Session]:
        if isinstance(self._where, Engine):
            with super().transaction(**session_options) as session:
                yield session
            return
        with joined(self._where) as test:
            options = {**session_options, "join_transaction_mode": "create_savepoint"}
            with self._once(), Session(test.connection, **options) as session, session.begin():
                yield session
                self._complete(session)

    @asynccontextmanager
    async def async_transaction(
        self, engine: "AsyncEngine", **session_options: Any
    ) -> "AsyncIterator[AsyncSession]":
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

        if self.joined_async is None:
            async with super().async_transaction(engine, **session_options) as session:
                yield session
            return
        test = self.joined_async
        connection = test if isinstance(test, AsyncConnection) else await test.connection()
        options = {**session_options, "join_transaction_mode": "create_savepoint"}
        with self._once():
            async with AsyncSession(connection, **options) as session, session.begin():
                yield session
                await session.run_sync(self._complete)


def _search(
    where: Where, expected: object, conditions: Mapping[str, object], schema: str | None
) -> tuple[list[JobRow], list[JobRow]]:
    """Return the jobs that are as expected, and all of the kind."""
    known = {each.name for each in attrs.fields(JobRow)}
    if unknown := sorted(set(conditions) - known):
        raise InvalidOption("condition", unknown[0], f"an attribute of a JobRow: {sorted(known)}")
    jobs = _jobs(where, JobListParams(kinds=[_kind(expected)], limit=_MOST), schema)
    return [job for job in jobs if _fits(job, expected, conditions)], jobs


def _jobs(where: Where, params: JobListParams, schema: str | None) -> list[JobRow]:
    if isinstance(where, scoped_session):
        where = where()
    if isinstance(where, Session):
        where.flush()
    return list(list_jobs(where, params, schema=schema).jobs)


def _kind(expected: object) -> str:
    return expected if isinstance(expected, str) else kind_of(expected)


def _fits(job: JobRow, expected: object, conditions: Mapping[str, object]) -> bool:
    if job.kind != _kind(expected):
        return False
    if not isinstance(expected, str | type) and dict(job.args) != dict(encode(expected)):
        return False
    return all(_is(getattr(job, name), value) for name, value in conditions.items())


def _is(found: object, wanted: object) -> bool:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return all(key in found and found[key] == value for key, value in wanted.items())
    if isinstance(found, tuple) and isinstance(wanted, list | tuple):
        return found == tuple(wanted)
    return found == wanted


def _named(expected: object) -> str:
    if isinstance(expected, str | type):
        return f"{_kind(expected)!r}"
    return f"{_kind(expected)!r} with args {dict(encode(expected))}"


def _said(
    wanted: str,
    found: int,
    expected: object,
    conditions: Mapping[str, object],
    jobs: Sequence[JobRow],
) -> str:
    which = "".join(f", {name}={value!r}" for name, value in conditions.items())
    listed = f"; of the kind there are:\n{_listed(jobs)}" if jobs else "; there is none of the kind"
    return f"expected {wanted} job {_named(expected)}{which}; found {found}{listed}"


def _listed(jobs: Sequence[JobRow]) -> str:
    lines = [
        f"  job {job.id} {job.kind!r} {job.state} in {job.queue!r}, args {dict(job.args)},"
        f" priority {job.priority}, attempt {job.attempt} of {job.max_attempts},"
        f" scheduled_at {job.scheduled_at.isoformat()}, tags {list(job.tags)}"
        for job in jobs[:20]
    ]
    if len(jobs) > 20:
        lines.append(f"  and {len(jobs) - 20} more")
    return "\n".join(lines) or "  none"
