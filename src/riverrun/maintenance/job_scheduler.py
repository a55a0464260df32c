"""Make due retryable and scheduled jobs available. Step 2 of 5, notify, follows."""

import random

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.logs.loggers import logger_of
from riverrun.maintenance.batch_service import BatchService
from riverrun.outcome import SCHEDULER_INTERVAL_S
from riverrun.verbs.schedule import Scheduled, schedule

logger = logger_of(__name__)

BATCH = 10_000

AGAIN_S = 60.0
"""Seconds after which a job that could not be scheduled is tried again."""

REFUSED_MAX = 1_000
"""Maximum number of refused jobs of one batch that are left out of the next batches."""


class JobScheduler(BatchService):
    """Makes retryable and scheduled jobs available when they are due."""

    def __init__(
        self, engine: Engine, *, schema: str | None, clock: Clock, rng: random.Random
    ) -> None:
        super().__init__("job_scheduler", engine, interval_s=SCHEDULER_INTERVAL_S, rng=rng)
        self._schema = schema
        self._clock = clock
        self._refused: dict[int, float] = {}  # until when a refused job is left out, by id

    def turn(self) -> bool:
        """Schedule one batch; return whether there may be more."""
        return self.run_once().more

    def run_once(self) -> Scheduled:
        """Schedule at most 10,000 jobs."""
        now = self._clock.monotonic()
        self._refused = {job_id: at for job_id, at in self._refused.items() if at > now}
        done = schedule(self.engine, limit=BATCH, skip=self._refused, schema=self._schema)
        for job_id in done.refused[:REFUSED_MAX]:
            self._refused[job_id] = now + AGAIN_S
        if done.available or done.discarded:
            message = "made %s due jobs available, and discarded %s"
            logger.debug(message, done.available, done.discarded)
        return done
