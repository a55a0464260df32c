"""Clean what is old: final jobs past their retention."""

import logging
import random

from sqlalchemy import Engine

from riverrun.maintenance.upkeep import Upkeep
from riverrun.verbs.clean import clean

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
BATCH = 10_000


class JobCleaner(Upkeep):
    """Deletes final jobs past their retention, in seconds; None keeps them for ever."""

    def __init__(
        self,
        engine: Engine,
        *,
        cancelled_s: float | None,
        completed_s: float | None,
        discarded_s: float | None,
        schema: str | None,
        rng: random.Random,
    ) -> None:
        super().__init__("job_cleaner", interval_s=INTERVAL_S, rng=rng)
        self._engine = engine
        self._cancelled_s = cancelled_s
        self._completed_s = completed_s
        self._discarded_s = discarded_s
        self._schema = schema

    def turn(self) -> bool:
        """Clean one batch; return whether there may be more."""
        return self.run_once() == BATCH

    def run_once(self) -> int:
        """Delete at most 10,000 jobs; return how many."""
        deleted = clean(
            self._engine,
            cancelled_s=self._cancelled_s,
            completed_s=self._completed_s,
            discarded_s=self._discarded_s,
            limit=BATCH,
            schema=self._schema,
        )
        if deleted:
            logger.info("cleaned %s jobs", deleted)
        return deleted
