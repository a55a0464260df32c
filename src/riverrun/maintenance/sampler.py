"""Sample how many jobs are finalized, for charts. The leader does this."""

import math
import random
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from riverrun.clock import Clock
from riverrun.db.refusals import sqlstate
from riverrun.db.transactions import joined
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.maintenance.batch_service import BatchService
from riverrun.verbs.samples import Sampled, sample
from riverrun.verbs.version_3 import Version3

logger = logger_of(__name__)

INTERVAL_S = 10.0
BATCH = 10_000

AGAIN_S = 600.0
"""Seconds after which a role that may not write samples tries again."""

_INSUFFICIENT_PRIVILEGE = "42501"


class Sampler(BatchService):
    """Samples the jobs that were finalized, and deletes old samples."""

    # Its first turn compiles long statements, which takes time from the jobs at a client's start.
    first_s = INTERVAL_S

    def __init__(
        self, engine: Engine, *, schema: str | None, clock: Clock, rng: random.Random
    ) -> None:
        super().__init__("sampler", engine, interval_s=INTERVAL_S, rng=rng)
        self._schema = schema
        self._clock = clock
        self._version_3 = Version3(schema, clock)
        self._again_at = -math.inf
        self._until: datetime | None = None  # until when everything is sampled in this term
        self._refused = False  # whether the role may not write samples; this is logged once

    def run(self) -> None:
        """Sample until stopped."""
        self._until = None
        super().run()

    def turn(self) -> bool:
        """Sample once; return whether there is more to do now."""
        if self._clock.monotonic() < self._again_at:
            return False
        try:
            done = self.run_once()
        except DBAPIError as error:
            self._version_3.forget()
            if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
                raise
            self._again_at = self._clock.monotonic() + AGAIN_S
            if not self._refused:
                self._refused = True
                message = (
                    "no samples are taken for charts, because this role may not write them: %s"
                )
                logger.warning(message, reason(error))
            return False
        except Exception:
            self._version_3.forget()
            raise
        self._refused = False
        return done is not None and done.more

    def run_once(self, now: datetime | None = None) -> Sampled | None:
        """Sample what is due; None if the database has no table for it.

        Args:
            now: For tests: used as the database's time, aware.
        """
        with joined(self.engine, self._schema) as transaction:
            if not self._version_3.is_there(transaction):
                return None
            done = sample(transaction, after=self._until, limit=BATCH, now=now)
        self._until = done.until
        return done
