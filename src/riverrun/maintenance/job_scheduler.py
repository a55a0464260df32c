"""Again: schedule. What is due becomes available. After: notify."""

import logging
import random

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from riverrun.errors import RiverrunError
from riverrun.outcome import SCHEDULER_INTERVAL_S
from riverrun.runtime.service import Service
from riverrun.verbs.schedule import Scheduled, schedule

logger = logging.getLogger(__name__)

BATCH = 10_000


class JobScheduler(Service):
    """Makes retryable and scheduled jobs available as they come due.

    Every client may run one: they skip what another has locked.
    """

    def __init__(self, engine: Engine, *, schema: str | None, rng: random.Random) -> None:
        super().__init__("job_scheduler")
        self._engine = engine
        self._schema = schema
        self._rng = rng

    def run(self) -> None:
        """Schedule every 5 s until stopped."""
        # Clients that started together must not come round together.
        wait_s = self._rng.random()
        while not self.stopping.wait(wait_s):
            wait_s = SCHEDULER_INTERVAL_S
            try:
                done = self.run_once()
                if done.available + done.discarded == BATCH:
                    wait_s = 0.05
            except (SQLAlchemyError, RiverrunError) as error:
                logger.warning("scheduling again in %.0f s: %s", wait_s, type(error).__name__)

    def run_once(self) -> Scheduled:
        """Schedule one batch of at most 10,000 jobs."""
        done = schedule(self._engine, limit=BATCH, schema=self._schema)
        if done.available or done.discarded:
            logger.debug("scheduled %s jobs, discarded %s", done.available, done.discarded)
        return done
