"""Delete final jobs past their retention."""

import math
import random

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.logs.loggers import logger_of
from riverrun.maintenance.batch_service import BatchService
from riverrun.verbs.clean import clean_after

logger = logger_of(__name__)

INTERVAL_S = 30.0
BATCH = 10_000

AGAIN_S = 600.0
"""Seconds after which jobs that could not be deleted are tried again; doubled up to a day."""


class JobCleaner(BatchService):
    """Deletes final jobs past their retention in seconds. A retention of None keeps them."""

    def __init__(
        self,
        engine: Engine,
        *,
        cancelled_s: float | None,
        completed_s: float | None,
        discarded_s: float | None,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("job_cleaner", engine, interval_s=INTERVAL_S, rng=rng)
        self._retention_s = {
            "cancelled": cancelled_s,
            "completed": completed_s,
            "discarded": discarded_s,
        }
        self._schema = schema
        self._clock = clock
        self._after_id = 0  # all old jobs up to this id were deleted or refused
        self._again_s = AGAIN_S
        self._again_at = math.inf
        self._more = False

    def turn(self) -> bool:
        """Clean one batch; return whether there may be more."""
        self.run_once()
        return self._more

    def run_once(self) -> int:
        """Delete at most 10,000 jobs; return how many."""
        now = self._clock.monotonic()
        if now >= self._again_at:
            self._after_id, self._again_at = 0, math.inf
        done = clean_after(
            self.engine,
            self._after_id,
            retention_s=self._retention_s,
            limit=BATCH,
            schema=self._schema,
        )
        if done.refused and self._again_at == math.inf:
            self._again_at = now + self._again_s
            self._again_s = min(2 * self._again_s, 86_400.0)
        elif not done.more and not self._after_id:
            self._again_s = AGAIN_S
        # Jobs that could not be deleted must not fill every batch.
        self._after_id = done.last_id if self._again_at < math.inf else 0
        self._more = done.more
        if done.deleted:
            logger.info("deleted %s final jobs past their retention", done.deleted)
        return done.deleted
