"""Delete the rows of queues that no client works any more."""

import random

from sqlalchemy import Engine

from riverrun.logs.loggers import logger_of
from riverrun.maintenance.batch_service import BatchService
from riverrun.verbs.clean import clean_queues

logger = logger_of(__name__)

INTERVAL_S = 3600.0
IDLE_S = 86_400.0
BATCH = 1_000


class QueueCleaner(BatchService):
    """Deletes the rows of queues that no client has worked for a day."""

    def __init__(self, engine: Engine, *, schema: str | None, rng: random.Random) -> None:
        super().__init__("queue_cleaner", engine, interval_s=INTERVAL_S, rng=rng)
        self._schema = schema

    def turn(self) -> bool:
        """Clean one batch; return whether there may be more."""
        return self.run_once() == BATCH

    def run_once(self) -> int:
        """Delete at most 1,000 queues; return how many."""
        deleted = clean_queues(self.engine, idle_s=IDLE_S, limit=BATCH, schema=self._schema)
        if deleted:
            logger.info("deleted %s queues that no client has worked for a day", deleted)
        return deleted
