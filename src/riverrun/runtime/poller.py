"""Poller: looks for jobs that nobody told of, in all queues of a client with one statement."""

import logging
import math
import random
import threading

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.runtime.outage import log_failure
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.claim import queues_waiting

logger = logging.getLogger(__name__)

EARLY = 0.1
"""Part of a poll interval by which a queue may be looked at before its time."""

DEFAULT_S = 1.0
"""Seconds between looks of a client that has no queue at the moment."""


class Poller(Service):
    """Wakes the producers whose queues have waiting jobs, each at least every poll interval.

    A producer that has just looked for itself is not asked for; nor is one without room.
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
        """Look at every queue now: word of some job may have been lost."""
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
                log_failure(logger, self._engine, error, "polling again in %.1f s", wait_s)
                self.stopping.wait(wait_s)
                continue
            self._woken.wait(wait_s)

    def run_once(self) -> frozenset[str]:
        """Wake those whose turn it is and who have jobs; return their queues."""
        now = self._clock.monotonic()
        # Cleared before the look: who wakes from here on may know more than that will see.
        everywhere = self._woken.is_set()
        self._woken.clear()
        # A little early is no later than together, and one statement less.
        due = {
            each.queue: each
            for each in self._producers
            if each.poll_at - now <= (math.inf if everywhere else each.poll_interval_s * EARLY)
        }
        if not due:
            return frozenset()
        found = queues_waiting(self._engine, due, schema=self._schema)
        for name, producer in due.items():
            producer.looked(now)
            if name in found:
                producer.wake()
        return found

    def _wait_s(self) -> float:
        now = self._clock.monotonic()
        # Not longer than any interval: a producer may come to have room, or be a new one.
        left_s = (
            max(0.0, min(each.poll_at - now, each.poll_interval_s)) for each in self._producers
        )
        # Clients started together must not poll together.
        return min(left_s, default=DEFAULT_S) * (1 - EARLY * self._rng.random())
