"""Claims, executes and completes jobs in a test's transaction, without threads."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session

from riverrun.client.client import Client
from riverrun.db.async_engine import AsyncEngineBeside
from riverrun.db.transactions import Tx, joined
from riverrun.errors import (
    ClientNotReady,
    InvalidOption,
    JobCancel,
    JobNotFound,
    JobSnooze,
    ObjectGone,
)
from riverrun.execution.attempt import Attempt
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.attempts import Attempts
from riverrun.execution.context import JobContext
from riverrun.execution.result import AttemptResult
from riverrun.execution.worker_session import SessionMakers
from riverrun.execution.worker_transaction import WorkerTransaction
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.checks import check_aware, check_int
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.loggers import logger_of
from riverrun.orm.added import AddedJob
from riverrun.queries.own_jobs import count_others_jobs, next_own_job, own_waiting_jobs
from riverrun.verbs.claim import ClaimedJob, claim, claim_job
from riverrun.verbs.insert import InsertResult
from riverrun.verbs.read import get
from riverrun.verbs.record import record
from riverrun.verbs.schedule import schedule

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

logger = logger_of(__name__)

_MOST = 10_000


@attrs.frozen(kw_only=True)
class Worked:
    """The result of an attempt at a job.

    Attributes:
        job: The job after the attempt.
        error: The exception that the worker raised; None if it returned.
    """

    job: JobRow
    error: BaseException | None = None

    @property
    def state(self) -> JobState:
        """The job's state."""
        return self.job.state


class Workbench:
    """Claims, executes and completes jobs on one Session, Connection or Engine."""

    def __init__(self, tx: Tx, client: Client, until: datetime | None = None) -> None:
        if not isinstance(client, Client):
            raise InvalidOption("client", client, "a Client, after the transaction")
        if client.workers is None:
            raise ClientNotReady("the client has no workers; pass workers= to the Client")
        self._tx = tx() if isinstance(tx, scoped_session) else tx
        self._client = client
        config = client.config
        self._clock = config.clock
        self._attempts = Attempts(
            workers=client.workers,
            backoff=config.backoff,
            job_timeout_s=config.job_timeout_s,
            plugins=config.plugins,
            error_handler=config.error_handler,
            hub=client.hub,
            parts=ContextParts(
                clock=config.clock,
                engine=config.engine,
                schema=config.schema,
                client=client,
                makers=SessionMakers(
                    sync=config.sessionmaker,
                    async_=config.async_sessionmaker,
                    async_engine=AsyncEngineBeside(config.engine, pooled=False),
                ),
            ),
            context_type=partial(SavepointContext, tx=self._tx),
        )
        self._until = None if until is None else check_aware("until", until)

    def claim_one(self, job: AnyArgs, opts: InsertOpts | None) -> Attempt:
        """Claim `job`: a JobRow, or args, which are inserted first."""
        if isinstance(job, int | InsertResult | AddedJob):
            raise InvalidOption("job", job, "args, or a JobRow, such as the result's job")
        if not isinstance(job, JobRow):
            job = self._client.insert(self._tx, job, opts).job
        elif opts is not None:
            raise InvalidOption("opts", opts, "none: the job is inserted already")
        self._flush()
        return self._attempt(
            claim_job(
                self._tx,
                job.id,
                client_id=self._client.id,
                schema=self._client.schema,
                now=self._now(),
            )
        )

    def claim_all(self, queue: str | None, limit: int) -> Iterator[Attempt]:
        """Claim jobs one by one, as long as there are any."""
        check_int("limit", limit, 1, _MOST)
        queues = [queue] if queue is not None else (list(self._client.queues) or ["default"])
        count = 0
        while job := self._next(queues):
            count += 1
            if count > limit:
                problem = f"{limit} attempts did not drain {', '.join(queues)}; next was"
                raise AssertionError(f"{problem} job {job.id} ({job.kind}). Pass a higher limit=")
            yield self._attempt(job)
        if not count:
            self._warn_of_others(queues)

    def work(self, attempt: Attempt, *, reraise: bool) -> Worked:
        """Execute an attempt and complete its job."""
        if not attempt.is_async:
            return self._end(attempt, attempt.execute(), reraise=reraise)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._end(attempt, asyncio.run(attempt.execute_async()), reraise=reraise)
        problem = "is an async def, and an event loop runs here: await work_one_async or"
        raise ClientNotReady(f"the worker of {attempt.job.kind!r} {problem} drain_async")

    async def work_async(
        self, tx: "AsyncSession | AsyncConnection", attempt: Attempt, *, reraise: bool
    ) -> Worked:
        """Execute an attempt and complete its job, from async code."""
        if not attempt.is_async:
            return await tx.run_sync(lambda _: self.work(attempt, reraise=reraise))
        assert isinstance(attempt.ctx, SavepointContext)  # noqa: S101  made by `_attempt`
        attempt.ctx.joined_async = tx
        result = await attempt.execute_async()
        return await tx.run_sync(lambda _: self._end(attempt, result, reraise=reraise))

    def _attempt(self, job: JobRow) -> Attempt:
        return Attempt(self._attempts, job, self._clock.monotonic()).prepare()

    def _next(self, queues: Sequence[str]) -> JobRow | None:
        self._flush()
        if not isinstance(self._tx, Engine):
            return self._next_own(queues)
        schema, now = self._client.schema, self._now()
        if now is not None:
            schedule(self._tx, schema=schema, now=now)
        for queue in queues:
            claimed = claim(self._tx, queue, client_id=self._client.id, schema=schema, now=now)
            if claimed:
                return claimed[0]
        return None

    def _next_own(self, queues: Sequence[str]) -> JobRow | None:
        """Claim a job that the test's transaction has written.

        Jobs that were in the database before do not belong to the test. Their changes would be
        undone with its transaction, but not the effects of their workers outside it.
        """
        client, schema, now = self._client, self._client.schema, self._now()
        with joined(self._tx, schema) as transaction:
            if now is not None:
                own = transaction.execute(own_waiting_jobs(), {}).scalars().all()
                schedule(self._tx, ids=own, schema=schema, now=now)
            for queue in queues:
                params = {"queue_name": queue, "now": now}
                job_id = transaction.execute(next_own_job(), params).scalar_one_or_none()
                if job_id is not None:
                    return claim_job(self._tx, job_id, client_id=client.id, schema=schema, now=now)
        return None

    def _warn_of_others(self, queues: Sequence[str]) -> None:
        if isinstance(self._tx, Engine):
            return
        params = {"names": list(queues), "now": self._now()}
        with joined(self._tx, self._client.schema) as transaction:
            count = transaction.execute(count_others_jobs(), params).scalar_one()
        if count:
            logger.warning(
                "left %s due jobs alone that the test's transaction has not written; to work jobs "
                "that are committed, pass an Engine",
                count,
            )

    def _now(self) -> datetime | None:
        return self._until or self._clock.database_now()

    def _flush(self) -> None:
        if isinstance(self._tx, Session):
            self._tx.flush()

    def _end(self, attempt: Attempt, result: AttemptResult, *, reraise: bool) -> Worked:
        schema = self._client.schema
        if result.outcome is not None or result.written is None:
            self._check_claim(attempt, result.error)
        # Otherwise the worker has committed its own outcome, and a snooze gave the attempt back.
        if result.outcome is not None:
            with joined(self._tx, schema) as transaction:
                record(transaction, [result.outcome], merge_anyway=True, now=self._now())
        if isinstance(self._tx, Session):
            self._tx.flush()
            self._tx.expire_all()
        cancelled = result.outcome is not None and result.outcome.state is JobState.cancelled
        wished = isinstance(result.error, JobCancel | JobSnooze) or (
            cancelled and isinstance(result.error, ObjectGone)
        )
        if reraise and result.error is not None and not wished:
            raise result.error
        return Worked(job=get(self._tx, attempt.claimed.id, schema=schema), error=result.error)

    def _check_claim(self, attempt: Attempt, error: BaseException | None) -> None:
        """Fail if the claim was rolled back, because the job would be worked again for ever."""
        claimed = attempt.claimed
        try:
            attempts = get(self._tx, claimed.id, schema=self._client.schema).attempt
        except JobNotFound:
            attempts = -1
        if attempts < claimed.attempt:
            problem = f"the attempt at job {claimed.id} ({claimed.kind}) is undone"
            cause = "its worker, or what ran around it, ended the transaction of the test's session"
            advice = "Let the worker have a session of its own; see riverrun_app in docs/testing.md"
            raise AssertionError(f"{problem}: {cause}. {advice}") from error


class SavepointContext(JobContext):
    """A context whose transactions are savepoints in the test's own."""

    in_test = True

    def __init__(self, job: JobRow | ClaimedJob, *options: Any, tx: Tx) -> None:
        super().__init__(job, *options)
        self._tx = tx
        self.joined_async: AsyncSession | AsyncConnection | None = None

    @property
    def test_connection(self) -> Connection | None:
        """The test's connection; None if the test uses an Engine, or the worker is a coroutine."""
        if isinstance(self._tx, Engine) or self.joined_async is not None:
            return None
        with joined(self._tx) as test:
            return test.connection

    def _make_transaction(self) -> WorkerTransaction:
        return SavepointTransaction(
            self,
            tx=self._tx,
            engine=self._parts.engine,
            schema=self._parts.schema,
            makers=self._parts.makers,
        )


class SavepointTransaction(WorkerTransaction):
    """A worker's transaction as a savepoint in the test's own."""

    def __init__(self, ctx: SavepointContext, *, tx: Tx, **options: Any) -> None:
        super().__init__(ctx, **options)
        self._test = ctx
        self._tx = tx

    @contextmanager
    def connected(self) -> Iterator[tuple[Connection, Any]]:
        """Yield the test's connection; if the test uses an Engine, one of the Engine's."""
        if isinstance(self._tx, Engine):
            with super().connected() as connected:
                yield connected
            return
        with joined(self._tx) as test, self._noting_conflict(test.connection):
            yield test.connection, "create_savepoint"

    @asynccontextmanager
    async def connected_async(
        self, engine: "AsyncEngine | None"
    ) -> "AsyncIterator[tuple[AsyncConnection, Any]]":
        """As `connected`, for a test with an AsyncSession or AsyncConnection."""
        from sqlalchemy.ext.asyncio import AsyncConnection

        test = self._test.joined_async
        if test is None:
            async with super().connected_async(engine) as connected:
                yield connected
            return
        connection = test if isinstance(test, AsyncConnection) else await test.connection()
        assert connection.sync_connection is not None  # noqa: S101  it is open
        with self._noting_conflict(connection.sync_connection):
            yield connection, "create_savepoint"

    def _async_engine(self) -> "AsyncEngine":
        if not isinstance(self._tx, Engine):
            problem = "takes an AsyncSession, and the test's transaction is a sync one: await"
            raise ClientNotReady(
                f"the worker of {self._test.job.kind!r} {problem} work_one_async or drain_async "
                "with an AsyncSession"
            )
        return super()._async_engine()
