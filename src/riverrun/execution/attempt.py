"""Step 4 of 5, execute: an Attempt calls a job's worker, in its slot, and decides the outcome."""

import asyncio
import math
import os
from contextvars import ContextVar

from riverrun.db.conflicts import chain
from riverrun.errors import (
    AttemptInterrupted,
    AttemptLost,
    ClientStopping,
    JobCancel,
    JobCancelledRemotely,
    JobSnooze,
    JobTimedOut,
    NoConnection,
    ObjectBusy,
    ObjectGone,
    UnknownKind,
)
from riverrun.execution.attempt_log import log_completed, log_conflict, log_failed, log_gone
from riverrun.execution.attempts import Attempts, Plan
from riverrun.execution.context import JobContext
from riverrun.execution.handlers import ErrorHandlerResult
from riverrun.execution.plugins import around_work, around_work_async, in_processes
from riverrun.execution.result import AttemptResult
from riverrun.execution.signature import call, call_async
from riverrun.execution.thread_interrupt import Interruptible, Interruption
from riverrun.execution.workers import Executor, Worker
from riverrun.jobs.args import decode
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.outcome import IfGone, Outcome, completed, decide, may_begin_again
from riverrun.verbs.claim import ClaimedJob
from riverrun.verbs.unless_changed import UNCHANGED_KEY, check_unchanged

logger = logger_of(__name__)


_executed: ContextVar["Attempt | None"] = ContextVar("riverrun_executed", default=None)


def executed_here() -> "Attempt | None":
    """Return the attempt that the calling code is part of; None once it is over.

    It is also found in code that copies its worker's context, as `asyncio.to_thread` does.
    """
    attempt = _executed.get()
    return None if attempt is None or attempt.over else attempt


class Attempt:
    """One try at one job.

    Args:
        attempts: The settings that it shares with the client's other attempts.
        claimed: The job.
        claimed_monotonic: When it was claimed, by the process's monotonic clock.

    Attributes:
        begin_by: The latest time to begin, by that clock: later the row may be another client's.
    """

    __slots__ = (
        "_attempts",
        "_early",
        "_interruptible",
        "_plan",
        "begin_by",
        "claimed",
        "claimed_monotonic",
        "ctx",
        "over",
        "replaced",
        "superseded",
    )

    ctx: JobContext

    def __init__(
        self,
        attempts: Attempts,
        claimed: JobRow | ClaimedJob,
        claimed_monotonic: float,
        begin_by: float = math.inf,
    ) -> None:
        self._attempts = attempts
        self.claimed = claimed
        self.claimed_monotonic = claimed_monotonic
        self.begin_by = begin_by
        self.replaced = False  # another slot was opened in place of this one's
        self.over = False  # its slot is free again
        self.superseded = False  # its claim was undone by the server, and made again
        self._plan = attempts.plan(claimed.kind)
        self._interruptible: Interruptible | None = None
        self._early: AttemptInterrupted | None = None

    def prepare(self) -> "Attempt":
        """Make the context, in the slot, because a claim has no time; before others can use it."""
        plan, attempts = self._plan, self._attempts
        timeout_s = attempts.timeout_s(self.claimed.kind) if plan is None else plan.timeout_s
        self.ctx = ctx = attempts.context(self.claimed, self.claimed_monotonic, timeout_s)
        if self._early is not None:
            ctx.cancel(self._early)
        return self

    def cancel(self, reason: AttemptInterrupted) -> None:
        """Cancel the worker, or keep it from beginning."""
        # In this order: `prepare`, in another thread, makes the context first and then looks at
        # `_early`.
        self._early = reason
        if hasattr(self, "ctx"):
            self.ctx.cancel(reason)

    def is_of(self, attempts: Attempts, queue: str | None) -> bool:
        """Return whether the attempt is one of `attempts`, and of `queue` if that is not None."""
        return self._attempts is attempts and queue in {None, self.claimed.queue}

    @property
    def job(self) -> JobRow:
        """The job as claimed. It exists only after `prepare`."""
        return self.ctx.job

    @property
    def is_async(self) -> bool:
        """Whether `execute_async` runs it, and not `execute`."""
        return self._plan is not None and self._plan.is_async

    def interrupt(self) -> None:
        """Throw an Interruption into the worker's thread, if it was registered for that."""
        if self._interruptible is not None:
            self._interruptible.interrupt()

    def lose(self, reason: AttemptInterrupted) -> None:
        """Cancel the attempt for `reason`, without using its event loop, which is lost."""
        self.ctx.on_cancel(None)
        self.ctx.cancel(reason)

    def execute(self) -> AttemptResult:
        """Run the job's worker and return the result, with whatever it raises."""
        _executed.set(self)
        began = self._attempts.parts.clock.monotonic()
        error: BaseException | None = None
        try:
            plan = self._known()
            if plan.plugins:
                around_work(plan.plugins, self.ctx, lambda: self._work(plan))
            else:
                self._work(plan)
        except BaseException as raised:
            error = raised
        self._end_child(error)
        return self._result(began, error)

    async def execute_async(self) -> AttemptResult:
        """Run an `async def` worker, as `execute` does others. It needs a task of its own."""
        _executed.set(self)
        began = self._attempts.parts.clock.monotonic()
        error: BaseException | None = None
        try:
            plan = self._known()
            if plan.plugins:
                await around_work_async(
                    plan.plugins, self.ctx, lambda: self._work_async(plan.worker)
                )
            else:
                await self._work_async(plan.worker)
        except BaseException as raised:
            error = raised
        self._end_child(error)
        return self._result(began, error)

    def broken(self, error: BaseException) -> AttemptResult | None:
        """Return the result of an attempt that broke off by `error`; None if it has not begun."""
        return (
            self._result(self._attempts.parts.clock.monotonic(), error)
            if hasattr(self, "ctx")
            else None
        )

    def _end_child(self, error: BaseException | None) -> None:
        """Exit if this process is a child that the worker forked, and that returned from it.

        It is not a slot. It exits before it takes any lock: the thread that holds the lock may not
        exist in the child.
        """
        if os.getpid() != self._attempts.pid:
            os._exit(0 if error is None else 1)

    def _known(self) -> Plan:
        """Return how the job is worked.

        Raises:
            UnknownKind: If no worker is registered for it.
        """
        plan = self._plan or self._attempts.plan(self.claimed.kind)
        if plan is None:
            raise UnknownKind(self.claimed.kind, self._attempts.workers.kinds)
        return plan

    def _result(self, began: float, error: BaseException | None) -> AttemptResult:
        attempts, claimed = self._attempts, self.claimed
        ended = attempts.parts.clock.monotonic()
        if error is None and not self.ctx.completed:
            log_completed(claimed, ended - began)
            job = self.job if attempts.events_wanted else None
            done = completed(claimed.id, claimed.attempt, self.ctx.staged)
            return AttemptResult(job, claimed.queue, done, None, ended - began, ended)
        # GeneratorExit: the coroutine was closed because its event loop is lost.
        if isinstance(error, Interruption | GeneratorExit) and self.ctx.reason is not None:
            error = self.ctx.reason
        self._log(error, ended - began)
        outcome = self._decide(error)
        due = None
        next_ = outcome or self.ctx.written
        if next_ is not None and next_.state is JobState.available and next_.scheduled_at:
            wait_s = (next_.scheduled_at - self.ctx.now()).total_seconds()
            due = self._attempts.parts.clock.monotonic() + wait_s
        return AttemptResult(
            job=self.job if self._attempts.events_wanted else None,
            queue=self.claimed.queue,
            outcome=outcome,
            error=error,
            run_s=ended - began,
            ended_monotonic=ended,
            due_monotonic=due,
            written=self.ctx.written,
            conflict=error is not None and outcome is not None and self._is_conflict(error),
        )

    def _work(self, plan: Plan) -> None:
        worker = plan.worker
        args = self._begin(worker)
        if worker.session is None and self._needs_unchanged():
            self.ctx.worker_transaction.check_unchanged()
        if plan.processes is not None:
            plan.processes.work(worker, args, self.ctx, in_processes(plan.plugins))
        elif worker.interrupt:
            self._interruptible = Interruptible()
            with self._interruptible.block():
                self._call(worker, args)
        else:
            self._call(worker, args)
        self._check_steps()

    def _call(self, worker: Worker, args: object) -> None:
        parameter = worker.session
        if parameter is None:
            call(worker.function, args, self.ctx, worker.context)
            return
        with self.ctx.worker_transaction.session(parameter.wanted) as session:
            if worker.serialize_by is not None:
                self.ctx.worker_transaction.serialize(session, args, worker.serialize_by)
            if self._needs_unchanged():
                check_unchanged(session, self.job.metadata[UNCHANGED_KEY])
            taken = {parameter.name: session}
            call(worker.function, args, self.ctx, worker.context, **taken)
            self._check_steps()

    async def _call_async(self, worker: Worker, args: object) -> None:
        parameter = worker.session
        if parameter is None:
            await call_async(worker.function, args, self.ctx, worker.context)
            return
        async with self.ctx.worker_transaction.session_async(parameter.wanted) as session:
            if worker.serialize_by is not None:
                serialize = self.ctx.worker_transaction.serialize
                await session.run_sync(serialize, args, worker.serialize_by)
            if self._needs_unchanged():
                await session.run_sync(check_unchanged, self.job.metadata[UNCHANGED_KEY])
            taken = {parameter.name: session}
            await call_async(worker.function, args, self.ctx, worker.context, **taken)
            self._check_steps()

    async def _work_async(self, worker: Worker) -> None:
        args = self._begin(worker)
        loop, task, ctx = asyncio.get_running_loop(), asyncio.current_task(), self.ctx
        assert task is not None  # noqa: S101  a coroutine executor makes one for each attempt
        ctx.on_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
        timer = None
        if ctx.timeout_s is not None:
            timer = loop.call_later(ctx.timeout_s, ctx.cancel, JobTimedOut(ctx.timeout_s))
        try:
            if worker.session is None and self._needs_unchanged():
                await ctx.worker_transaction.check_unchanged_async()
            await self._call_async(worker, args)
        except asyncio.CancelledError:
            if ctx.reason is None:
                raise
            raise ctx.reason from None
        finally:
            ctx.on_cancel(None)
            if timer is not None:
                timer.cancel()
        self._check_steps()

    def _needs_unchanged(self) -> bool:
        """Return whether the job is worked only while an object has a certain version."""
        if self.ctx.is_bare:
            return False
        claimed = self.claimed
        may = not isinstance(claimed, ClaimedJob) or claimed.may_have(UNCHANGED_KEY)
        return may and UNCHANGED_KEY in self.job.metadata

    def _begin(self, worker: Worker) -> object:
        ctx = self.ctx
        args = decode(self.claimed.kind, self.claimed.args, worker.args_type)
        if not ctx.is_bare:
            ctx.check_steps()
        ctx.raise_if_cancelled()
        if worker.executor is not Executor.process:  # else its time starts when it gets a process
            ctx.begin()
        return args

    def _check_steps(self) -> None:
        if not self.ctx.completed and (missed := self.ctx.missed_step()):
            raise missed

    def _decide(self, error: BaseException | None) -> Outcome | None:
        if self.ctx.completed:
            return None
        assert error is not None  # noqa: S101  `_result` decides about other attempts
        if self._is_lost(error):
            return None
        reason, plan = self.ctx.reason, self._plan
        backoff = self._attempts.backoff if plan is None else plan.backoff
        if isinstance(reason, JobCancelledRemotely):
            # A cancelled worker may raise any error. The cause is the cancellation.
            error = reason
        now, stopping = self.ctx.now(), isinstance(reason, ClientStopping)
        conflict = self._is_conflict(error)
        cancelled = not conflict and self._handled(error, stopping=stopping)
        self.ctx.stage_progress()
        staged = self.ctx.staged
        try:
            return decide(
                self.job,
                error,
                now=now,
                backoff=backoff,
                metadata=staged,
                stopping=stopping,
                set_cancelled=cancelled,
                conflict=conflict,
                if_gone=self._if_gone,
            )
        except BaseException as broken:
            # However odd a row or an exception is, the job must not stay `running`.
            return decide(self.job, broken, now=now, backoff=backoff, metadata=staged)

    def _handled(self, error: BaseException, *, stopping: bool) -> bool:
        """Ask the error handler about a failure; return whether it cancels the job."""
        wished = isinstance(
            error, JobSnooze | JobCancel | JobCancelledRemotely | NoConnection | ObjectBusy
        )
        wished = wished or self._is_cancelled_as_gone(error)
        stopped = stopping and isinstance(error, ClientStopping)
        if self._attempts.error_handler is None or wished or stopped:
            return False
        result = None
        try:
            result = self._attempts.error_handler(self.job, error)
        except BaseException as broken:
            message = "the error_handler failed for job %s, and is ignored"
            log_error(logger, broken, message, self.job.id)
        return isinstance(result, ErrorHandlerResult) and result.set_cancelled

    @property
    def _if_gone(self) -> IfGone:
        return IfGone.cancel if self._plan is None else self._plan.worker.if_gone

    def _is_cancelled_as_gone(self, error: BaseException) -> bool:
        return isinstance(error, ObjectGone) and self._if_gone is IfGone.cancel

    def _is_conflict(self, error: BaseException) -> bool:
        """Return whether the attempt begins again because its transaction could not commit."""
        conflict = self.ctx.conflict
        if conflict is None or self.ctx.completed or not may_begin_again(self.job):
            return False
        return any(link is conflict for link in chain(error))

    def _log(self, error: BaseException | None, run_s: float) -> None:
        if error is None:  # completed in its own transaction
            log_completed(self.claimed, run_s)
            return
        if self._is_conflict(error):
            log_conflict(self.job)
            return
        if self._is_cancelled_as_gone(error) and not self.ctx.completed:
            log_gone(self.job, error)
            return
        log_failed(self.job, error, after_completion=self.ctx.completed)

    def _is_lost(self, error: BaseException | None) -> bool:
        # A worker may also complete other jobs. The loss of one of those is a failure of this one.
        own = (self.claimed.id, self.claimed.attempt)
        return isinstance(error, AttemptLost) and error.args == own
