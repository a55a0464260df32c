"""StuckJobs: finds cancelled attempts that go on, and restarts dead threads of the client."""

from collections import Counter

from riverrun.clock import Clock
from riverrun.execution.attempt import Attempt
from riverrun.execution.handlers import JobStuckHandler, JobStuckHandlerResult
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.runtime.health import Health
from riverrun.runtime.heartbeat import Heartbeat
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Service

logger = logger_of(__name__)


INTERVAL_S = 0.5


class StuckJobs(Service):
    """Reports attempts that are stuck, and restarts threads that have died.

    It throws an Interruption into the threads of workers that were registered with
    `interrupt=True`.
    """

    def __init__(
        self,
        *,
        heartbeat: Heartbeat,
        health: Health,
        producers: Producers,
        handler: JobStuckHandler | None,
        threshold_s: float,
        clock: Clock,
    ) -> None:
        super().__init__("stuck_jobs")
        self._heartbeat = heartbeat
        self._health = health
        self._producers = producers
        self._handler = handler
        self._threshold_s = threshold_s
        self._clock = clock
        self._since: dict[int, float] = {}
        self._reported: set[int] = set()

    def run(self) -> None:
        """Look until stopped."""
        while not self.stopping.wait(INTERVAL_S):
            try:
                self._heartbeat.check_silence()
                for service in self._health.services():
                    service.revive()
                self.run_once()
            except Exception as error:
                log_error(logger, error, "could not check for stuck jobs")

    def run_once(self) -> list[Attempt]:
        """Look at every attempt once; return those that have newly become stuck."""
        now = self._clock.monotonic()
        overdue = {
            id(attempt): attempt for attempt in self._producers.running() if attempt.ctx.cancelled
        }
        self._since = {key: self._since.get(key, now) for key in overdue}
        self._reported &= set(overdue)
        stuck = []
        for key, attempt in overdue.items():
            attempt.interrupt()
            late_s = now - self._since[key]
            if late_s >= self._threshold_s and key not in self._reported:
                self._reported.add(key)
                stuck.append(attempt)
                self._report(attempt, late_s)
        counts = Counter(overdue[key].claimed.queue for key in self._reported)
        for producer in self._producers:
            producer.stuck = counts[producer.queue]
        return stuck

    def _report(self, attempt: Attempt, late_s: float) -> None:
        job = attempt.job
        extra = {"job_id": job.id, "kind": job.kind, "queue": job.queue, "attempt": job.attempt}
        reason = attempt.ctx.reason
        message = "job %s (%s) is stuck, and still runs %.0f s after it should have ended: %s"
        logger.warning(message, job.id, job.kind, late_s, reason, extra=extra)
        if self._handler is None:
            return
        try:
            result = self._handler(job)
        except BaseException as error:  # the application's own, even SystemExit
            log_error(
                logger, error, "the job_stuck_handler failed for job %s, and is ignored", job.id
            )
            return
        if isinstance(result, JobStuckHandlerResult) and result.add_worker_slot:
            self._producers.replace(attempt)
