"""The base class of services that work through the database in bounded batches."""

import random

from sqlalchemy import Engine

from riverrun.logs.loggers import logger_of
from riverrun.runtime.outage import log_failure
from riverrun.runtime.service import Service

logger = logger_of(__name__)


class BatchService(Service):
    """A service that calls `turn` every `interval_s` seconds, and sooner while there is more.

    Attributes:
        first_s: Maximum seconds until the first turn.
    """

    first_s = 1.0

    def __init__(self, name: str, engine: Engine, *, interval_s: float, rng: random.Random) -> None:
        super().__init__(name)
        self.engine = engine
        self._interval_s = interval_s
        self._rng = rng

    def run(self) -> None:
        """Work until stopped."""
        # Clients that started at the same time must not all work at the same time.
        wait_s = min(self.first_s, self._interval_s) * self._rng.random()
        while not self.stopping.wait(wait_s):
            wait_s = self._interval_s
            try:
                if self.turn():
                    # Leave the database to the workers for a moment.
                    wait_s = 0.05 + 0.95 * self._rng.random() ** 4
            except Exception as error:
                log_failure(
                    logger,
                    self.engine,
                    error,
                    "the service %s failed; trying again in %.0f s",
                    self.name,
                    wait_s,
                )

    def turn(self) -> bool:
        """Process one batch, and return whether there may be more."""
        raise NotImplementedError
