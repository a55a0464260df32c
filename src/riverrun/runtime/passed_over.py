"""Step 3 of 5, claim: passes over the jobs that the database does not let a client claim.

A producer passes over them for a minute, so that they do not keep the other jobs of their queue
from being claimed. Then it tries again: the application may have mended the row or the trigger.
"""

from collections.abc import Sequence

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.db.refusals import Fault, fault_of
from riverrun.logs.loggers import logger_of
from riverrun.verbs.claim import Bounds, ClaimedJob, claim_jobs
from riverrun.verbs.claim_apart import claim_apart, claim_jobs_but
from riverrun.verbs.halves import log_refused

logger = logger_of(__name__)

PASS_S = 60.0
"""Seconds for which a job is passed over."""

PASSED_MAX = 10_000
"""Maximum number of jobs that are passed over, because each claim sends their ids."""

_MOMENTS = (Fault.moment, Fault.disk)


class PassedOver:
    """Claims the jobs of a queue, without those that cannot be claimed.

    Args:
        engine: The engine.
        queue: The queue.
        client_id: The id of the claiming client.
        schema: The schema of River's tables.
        clock: The process's clock.
    """

    def __init__(
        self, engine: Engine, queue: str, *, client_id: str, schema: str | None, clock: Clock
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._client_id = client_id
        self._schema = schema
        self._clock = clock
        self._until: dict[int, float] = {}  # by job id; the one that was found first comes first
        self._failed = False  # the last claim failed, and maybe not because of one job
        self._apart = False  # the next claim is to find the jobs that cannot be claimed
        self._unlogged: list[tuple[int, Exception]] = []

    def look(self) -> None:
        """Find the jobs that cannot be claimed with the next claim: one got less than there is."""
        self._apart = len(self._until) < PASSED_MAX

    @property
    def looks(self) -> bool:
        """Whether the next claim is to find the jobs that cannot be claimed."""
        return self._apart

    def claim(self, limit: int, beyond: Bounds | None) -> Sequence[ClaimedJob]:
        """Claim up to `limit` jobs.

        Args:
            limit: Maximum number of jobs to claim.
            beyond: As for `claim_jobs`. It is ignored while jobs are passed over.
        """
        if self._until:
            self._drop_old()
        if self._apart:
            return self._claim_apart(limit)
        try:
            jobs = self._claim(limit, beyond)
        except Exception as error:
            fault = fault_of(error)
            # An error of the moment, such as a locked table, usually concerns every job.
            unsure = fault in _MOMENTS and not self._failed
            self._failed = True
            if fault is Fault.connection or unsure or len(self._until) >= PASSED_MAX:
                raise
            return self._claim_apart(limit)
        self._failed = False
        return jobs

    def _claim(self, limit: int, beyond: Bounds | None) -> Sequence[ClaimedJob]:
        if self._until:
            return claim_jobs_but(
                self._engine,
                self._queue,
                self._until,
                limit=limit,
                client_id=self._client_id,
                schema=self._schema,
            )
        return claim_jobs(
            self._engine,
            self._queue,
            limit=limit,
            client_id=self._client_id,
            beyond=beyond,
            schema=self._schema,
        )

    def _claim_apart(self, limit: int) -> Sequence[ClaimedJob]:
        self._apart = False
        found = claim_apart(
            self._engine,
            self._queue,
            self._until,
            limit=limit,
            client_id=self._client_id,
            schema=self._schema,
        )
        self._failed = False
        if found.refused:
            self._unlogged += found.refused
            until = self._clock.monotonic() + PASS_S
            self._until |= dict.fromkeys([job_id for job_id, _ in found.refused], until)
            self.look()  # behind these there may be more
        if not self._apart and self._unlogged:
            log_refused(
                f"jobs of queue {self._queue} not claimed, and passed over for {PASS_S:g} s",
                self._unlogged,
            )
            self._unlogged = []
        return found.jobs

    def _drop_old(self) -> None:
        now = self._clock.monotonic()
        self._until = {job_id: until for job_id, until in self._until.items() if until > now}
