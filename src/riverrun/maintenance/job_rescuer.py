"""Rescue jobs that are still `running` although their client is gone."""

import random
from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Engine

from riverrun.execution.attempts import Attempts
from riverrun.jobs.states import JobState
from riverrun.logs.loggers import logger_of
from riverrun.maintenance.batch_service import BatchService
from riverrun.runtime.heartbeat import DEAD_S, Heartbeat
from riverrun.verbs.rescue import Rescued, rescue

logger = logger_of(__name__)

INTERVAL_S = 5.0
BATCH = 1_000

NAMED_MAX = 10
"""Largest number of jobs of one batch that the log names each by itself."""


class JobRescuer(BatchService):
    """Retries, discards or cancels the jobs of clients that are gone."""

    def __init__(
        self,
        engine: Engine,
        *,
        stuck_s: float | None,
        attempts: Attempts,
        schema: str | None,
        rng: random.Random,
        dead_s: float = DEAD_S,
    ) -> None:
        super().__init__("job_rescuer", engine, interval_s=INTERVAL_S, rng=rng)
        self._stuck_s = stuck_s
        self._dead_s = dead_s
        self._attempts = attempts
        self._schema = schema
        self._after_id = 0

    def turn(self) -> bool:
        """Rescue one batch; return whether there may be more."""
        return self.run_once().more

    def run_once(self) -> Rescued:
        """Rescue at most 1,000 jobs."""
        rescued = rescue(
            self.engine,
            dead_s=self._dead_s,
            stuck_s=self._stuck_s,
            backoff=self._attempts.backoff_of,
            timeouts_s=self._attempts.timeouts_s(),
            limit=BATCH,
            after_id=self._after_id,
            schema=self._schema,
        )
        # Jobs that could not be rescued must not fill every batch.
        self._after_id = rescued.last_id if rescued.more else 0
        _log(rescued.states)
        return rescued


def _log(states: Mapping[int, JobState]) -> None:
    # A client that dies may leave thousands of jobs. A line for each would bury the one that says
    # why it died.
    if len(states) <= NAMED_MAX:
        for job_id, state in states.items():
            logger.warning("rescued job %s, now %s", job_id, state, extra={"job_id": job_id})
        return
    counts = Counter(states.values())
    counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    message = "rescued %s jobs, now %s: jobs %s to %s"
    logger.warning(message, len(states), counted, min(states), max(states))


class StandIn(BatchService):
    """Rescues the jobs of dead riverrun clients while a client of River leads.

    River's leader does not see heartbeats: it would rescue the jobs only after an hour, and discard
    kinds that it does not know. Every client of riverrun does this; the statement skips jobs that
    another client has locked.
    """

    def __init__(self, rescuer: JobRescuer, *, heartbeat: Heartbeat, rng: random.Random) -> None:
        super().__init__("stand_in", rescuer.engine, interval_s=INTERVAL_S, rng=rng)
        self._rescuer = rescuer
        self._heartbeat = heartbeat

    def turn(self) -> bool:
        """Rescue one batch if River leads; return whether there may be more."""
        return self._heartbeat.river_leads and self._rescuer.turn()
