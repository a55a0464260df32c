"""Poller: finds jobs without a notification, in all queues of a client by one statement."""

import math
import random
import threading

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.logs.loggers import logger_of
from riverrun.runtime.outage import log_failure
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.claim import queues_waiting

logger = logger_of(__name__)

EARLY = 0.1
"""Fraction of the poll interval by which a queue may be looked at before its time."""

DEFAULT_S = 1.0
"""Seconds between looks while the client has no queue."""


class Poller(Service):
    """Wakes the producers whose queues have waiting jobs, each at least every poll interval.

    The queues of producers that have just looked themselves, or have no room, are left out.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        producers: Producers,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("poller")
        self._engine = engine
        self._producers = producers
        self._schema = schema
        self._clock = clock
        self._rng = rng
        self._pause = Pause(rng.random)
        self._woken = threading.Event()

    def wake(self) -> None:
        """Look at every queue now: some job's notification may have been lost."""
        self._woken.set()

    def interrupt(self) -> None:
        """End the wait."""
        self._woken.set()

    def run(self) -> None:
        """Look until stopped."""
        while not self.stopping.is_set():
            try:
                self.run_once()
                self._pause.reset()
                wait_s = self._wait_s()
            except Exception as error:
                wait_s = self._pause.next_s()
                self._woken.set()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not poll for jobs; trying again in %.1f s",
                    wait_s,
                )
                self.stopping.wait(wait_s)
                continue
            self._woken.wait(wait_s)

    def run_once(self) -> frozenset[str]:
        """Wake the producers that are due and whose queues have jobs; return those queues."""
        now = self._clock.monotonic()
        # Cleared before the look: a wake from here on may be for a job that the look does not see.
        everywhere = self._woken.is_set()
        self._woken.clear()
        # Queues that are almost due are looked at together: that saves a statement.
        due = {
            producer.queue: producer
            for producer in self._producers
            if producer.poll_at - now
            <= (math.inf if everywhere else producer.poll_interval_s * EARLY)
        }
        if not due:
            return frozenset()
        found = queues_waiting(self._engine, due, schema=self._schema)
        for name, producer in due.items():
            producer.looked(now)
            if name in found:
                producer.waits()
        return found

    def _wait_s(self) -> float:
        now = self._clock.monotonic()
        # At most the interval of each: a producer may get room meanwhile, or may be new.
        left_s = (
            max(0.0, min(producer.poll_at - now, producer.poll_interval_s))
            for producer in self._producers
        )
        # Clients started together must not poll together.
        return min(left_s, default=DEFAULT_S) * (1 - EARLY * self._rng.random())
