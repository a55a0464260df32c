"""Queue keeper: says which queues are worked here, and reads which of them are paused."""

import logging
import random
import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.runtime.service import Pause, Service, unexpected
from riverrun.verbs.cancel import read_cancelled
from riverrun.verbs.give_back import Claim
from riverrun.verbs.queues import QueueRow, read_queues, upsert_queues

logger = logging.getLogger(__name__)

SAY_S = 600.0
"""Seconds between two times that queues are said to be worked. Source: River 0.51, producer.go."""

POLL_S = 2.0
"""Seconds between two looks at the queues by a client that hears nothing. Source: the same."""


class QueueKeeper(Service):
    """Keeps the rows of a client's queues young, and the client told of what they say."""

    def __init__(
        self,
        engine: Engine,
        *,
        names: Callable[[], Sequence[str]],
        on_read: Callable[[Sequence[QueueRow], float], None],
        claimed: Callable[[], Sequence[Claim]],
        on_cancelled: Callable[[int], None],
        poll_only: bool,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("queue_keeper")
        self._engine = engine
        self._names = names
        self._on_read = on_read
        self._claimed = claimed
        self._on_cancelled = on_cancelled
        self._wait_s = POLL_S if poll_only else SAY_S
        self._schema = schema
        self._clock = clock
        self._pause = Pause(rng.random)
        self._woken = threading.Event()
        self._say_at = 0.0

    def wake(self) -> None:
        """Read the queues now: something may have been said that nobody heard."""
        self._woken.set()

    def interrupt(self) -> None:
        """End the wait."""
        self._woken.set()

    def run(self) -> None:
        """Say and read until stopped."""
        wait_s = self._wait_s
        while not self.stopping.is_set():
            self._woken.wait(wait_s)
            self._woken.clear()
            if self.stopping.is_set():
                return
            try:
                self.run_once()
                self._pause.reset()
                wait_s = self._wait_s
            except Exception as error:
                wait_s = self._pause.next_s()
                logger.warning(
                    "no word on the queues, again in %.1f s: %s",
                    wait_s,
                    type(error).__name__,
                    exc_info=unexpected(error),
                )
                self.stopping.wait(wait_s)

    def run_once(self) -> list[QueueRow]:
        """Read how the queues stand and who is to be cancelled; now and then say what is worked."""
        if jobs := self._claimed():
            ids = [job.id for job in jobs]
            for job_id in read_cancelled(self._engine, ids, schema=self._schema):
                self._on_cancelled(job_id)
        now = self._clock.monotonic()
        if now >= self._say_at:
            return self.say(self._names())
        rows = read_queues(self._engine, self._names(), schema=self._schema)
        self._on_read(rows, now)
        return rows

    def say(self, names: Sequence[str]) -> list[QueueRow]:
        """Say that the queues `names` are worked, and read how they stand."""
        now = self._clock.monotonic()
        rows = upsert_queues(self._engine, names, schema=self._schema)
        self._say_at = now + SAY_S
        self._on_read(rows, now)
        return rows
