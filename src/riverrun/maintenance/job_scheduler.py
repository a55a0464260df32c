"""Again: schedule. What is due becomes available. After: notify."""

import logging
import random

from sqlalchemy import Engine

from riverrun.maintenance.upkeep import Upkeep
from riverrun.outcome import SCHEDULER_INTERVAL_S
from riverrun.verbs.schedule import Scheduled, schedule

logger = logging.getLogger(__name__)

BATCH = 10_000


class JobScheduler(Upkeep):
    """Makes retryable and scheduled jobs available as they come due."""

    def __init__(self, engine: Engine, *, schema: str | None, rng: random.Random) -> None:
        super().__init__("job_scheduler", interval_s=SCHEDULER_INTERVAL_S, rng=rng)
        self._engine = engine
        self._schema = schema

    def turn(self) -> bool:
        """Schedule one batch; return whether there may be more."""
        done = self.run_once()
        return done.available + done.discarded == BATCH

    def run_once(self) -> Scheduled:
        """Schedule at most 10,000 jobs."""
        done = schedule(self._engine, limit=BATCH, schema=self._schema)
        if done.available or done.discarded:
            logger.debug("scheduled %s jobs, discarded %s", done.available, done.discarded)
        return done
