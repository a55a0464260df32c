"""Step 4 of 5: execute. Before: claim. After: complete.

One try at one job, in its slot's thread.
"""

import logging

import attrs

from riverrun.clock import Clock
from riverrun.context import JobContext
from riverrun.errors import AttemptLost, ClientStopping, JobCancel, JobCancelledRemotely, JobSnooze
from riverrun.job import JobRow, decode
from riverrun.outcome import Outcome, decide
from riverrun.policies.backoff import Backoff
from riverrun.states import JobState
from riverrun.workers import Workers

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Ended:
    """An attempt that ended, on its way to the database.

    Attributes:
        job: The job as claimed.
        outcome: What shall be written; None if the worker's own transaction has written it.
        error: What the worker raised, if it did.
        run_s: Seconds its worker took.
        ended_monotonic: When it ended, by the process's monotonic clock.
    """

    job: JobRow
    outcome: Outcome | None
    error: BaseException | None
    run_s: float
    ended_monotonic: float


class Attempt:
    """One try at one job."""

    def __init__(
        self, ctx: JobContext, *, workers: Workers, backoff: Backoff, clock: Clock
    ) -> None:
        self.ctx = ctx
        self.job = ctx.job
        self._workers = workers
        self._backoff = backoff
        self._clock = clock

    def execute(self) -> Ended:
        """Run the job's worker and return how it ended; whatever it raises is part of that."""
        began = self._clock.monotonic()
        error: BaseException | None = None
        backoff = self._backoff
        try:
            worker = self._workers.get(self.job.kind)
            args = decode(self.job.kind, self.job.args, worker.args_type)
            backoff = worker.backoff or backoff
            self.ctx.begin()
            self.ctx.raise_if_cancelled()
            worker.work(args, self.ctx)
        except BaseException as raised:
            error = raised
        ended = self._clock.monotonic()
        self._log(error)
        return Ended(
            job=self.job,
            outcome=self._decide(error, backoff),
            error=error,
            run_s=ended - began,
            ended_monotonic=ended,
        )

    def _decide(self, error: BaseException | None, backoff: Backoff) -> Outcome | None:
        if self.ctx.completed or self._is_lost(error):
            return None
        reason = self.ctx.reason
        if isinstance(reason, JobCancelledRemotely) and error is not None:
            # A worker ends in its own way when its context is cancelled; the cause is the cancel.
            error = reason
        now, stopping = self.ctx.now(), isinstance(reason, ClientStopping)
        staged = self.ctx.staged
        try:
            return decide(
                self.job, error, now=now, backoff=backoff, metadata=staged, stopping=stopping
            )
        except Exception as broken:
            # Whatever is odd about a row or an exception, its job must not stay running.
            return decide(self.job, broken, now=now, backoff=backoff, metadata=staged)

    def _is_lost(self, error: BaseException | None) -> bool:
        # A worker may work on other jobs too; the loss of one of those is a failure of this one.
        own = (self.job.id, self.job.attempt)
        return isinstance(error, AttemptLost) and error.args == own

    def _log(self, error: BaseException | None) -> None:
        job = self.job
        extra = {"job_id": job.id, "kind": job.kind, "queue": job.queue, "attempt": job.attempt}
        if error is None:
            logger.debug("completed job %s (%s)", job.id, job.kind, extra=extra)
        elif isinstance(error, JobSnooze | JobCancel | ClientStopping | JobCancelledRemotely):
            logger.info("ended job %s (%s): %s", job.id, job.kind, error, extra=extra)
        elif isinstance(error, AttemptLost):
            logger.warning("lost job %s (%s): %s", job.id, job.kind, error, extra=extra)
        elif self.ctx.completed:
            logger.error(
                "raised after completing job %s (%s)", job.id, job.kind, exc_info=error, extra=extra
            )
        else:
            # Type only: an exception's text may hold args, which belong in the row, not in a log.
            last = job.attempt >= job.max_attempts
            logger.log(
                logging.ERROR if last else logging.WARNING,
                "failed attempt %s of %s at job %s (%s): %s",
                job.attempt,
                job.max_attempts,
                job.id,
                job.kind,
                type(error).__name__,
                extra=extra,
            )


def event_state(outcome: Outcome | None, states: dict[int, JobState], job: JobRow) -> JobState:
    """Return the state a job has after its outcome was written, as far as is known."""
    if outcome is None:
        return JobState.completed
    return states.get(job.id, outcome.state)
