"""QueueReporter: reports which queues are worked here, and reads what operators did to them.

A notification is only a hint; the row decides. That a queue is paused or a job is to be cancelled
is read here, soon after a notification and at regular intervals, before the client acts on it.
"""

import random
import threading
from collections.abc import Sequence

from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.logs.loggers import logger_of
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.runtime.outage import log_failure
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.cancel import read_cancelled
from riverrun.verbs.queues import QueueRow, read_queues, upsert_queues
from riverrun.verbs.status import unworked_queues

logger = logger_of(__name__)


REPORT_S = 600.0
"""Seconds between two reports that queues are worked. Source: River 0.51, producer.go."""


POLL_S = 2.0
"""Seconds between two looks at the rows by a client that does not listen. Source: as REPORT_S."""


LOOK_S = 5.0
"""Seconds between two looks by a client that listens, because a notification may be lost."""


UNWORKED_S = 15.0
"""Seconds between two looks for queues that no client works."""


GAP_S = 0.05
"""Minimum seconds between two looks, so that notifications cause at most 20 looks a second."""


SUSPECTS_MAX = 1_000
"""Maximum number of jobs that notifications make one look check.

If there are more, the look checks all claimed jobs.
"""


def unworked_problem(queue: str) -> str:
    """Return the problem of a queue with due jobs that no client works, as a sentence."""
    # Shown as a repr: a queue may have any name.
    return f"jobs of queue {queue!r} are due, it is not paused, and no living client works it"


class QueueReporter(Service):
    """Refreshes the rows of a client's queues; pauses, resumes and cancels what rows ask for.

    Attributes:
        unworked: Queues that had due jobs at the last look, although no living client works them.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        producers: Producers,
        poll_only: bool,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("queue_reporter")
        self._engine = engine
        self._producers = producers
        self._wait_s = POLL_S if poll_only else LOOK_S
        self._schema = schema
        self._clock = clock
        self._pause = Pause(rng.random)
        self._woken = threading.Event()
        self._report_at = 0.0
        self._unworked_at = 0.0
        self.unworked: list[str] = []
        self._lock = threading.Lock()  # guards the next two
        self._suspects: set[int] = set()
        self._look_at = 0.0  # when to read everything, even without a notification

    def wake(self) -> None:
        """Read everything now: a queue may have changed, or a notification may have been lost."""
        with self._lock:
            self._look_at = 0.0
        self._woken.set()

    def check(self, job_id: int) -> None:
        """Read soon whether the job `job_id`, which may run here, is to be cancelled."""
        with self._lock:
            if len(self._suspects) >= SUSPECTS_MAX:
                self._look_at = 0.0
            else:
                self._suspects.add(job_id)
        self._woken.set()

    def interrupt(self) -> None:
        """End the wait."""
        self._woken.set()

    def run(self) -> None:
        """Report and read until stopped."""
        wait_s = self._wait_s
        while not self.stopping.is_set():
            self._woken.wait(wait_s)
            self._woken.clear()
            if self.stopping.is_set():
                return
            try:
                self._look()
                self._pause.reset()
                wait_s = max(0.0, self._look_at - self._clock.monotonic())
            except Exception as error:
                wait_s = self._pause.next_s()
                self.wake()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not read which queues are paused; trying again in %.1f s",
                    wait_s,
                )
                self.stopping.wait(wait_s)
            self.stopping.wait(GAP_S)

    def run_once(self) -> list[QueueRow]:
        """Read which queues are paused and which jobs to cancel; report every 10 minutes."""
        now = self._clock.monotonic()
        with self._lock:
            self._look_at = now + self._wait_s
        self._cancel([job.id for job in self._producers.claimed()])
        if now >= self._unworked_at:
            self._unworked_at = now + UNWORKED_S
            own = set(self._producers.names)
            found = unworked_queues(self._engine, dead_s=DEAD_S, schema=self._schema)
            self.unworked = [name for name in found if name not in own]
        if now >= self._report_at:
            return self.report(self._producers.names)
        rows = read_queues(self._engine, self._producers.names, schema=self._schema)
        self._producers.follow(rows, now)
        return rows

    def _look(self) -> None:
        with self._lock:
            suspects, self._suspects = self._suspects, set()
            everything = self._clock.monotonic() >= self._look_at
        # Checked even if all claimed jobs are checked next: one may be in a claim under way.
        self._cancel(sorted(suspects))
        if everything:
            self.run_once()

    def _cancel(self, job_ids: Sequence[int]) -> None:
        if job_ids:
            for job_id in read_cancelled(self._engine, job_ids, schema=self._schema):
                self._producers.cancel(job_id)

    def report(self, names: Sequence[str]) -> list[QueueRow]:
        """Report that the queues `names` are worked; return their rows."""
        now = self._clock.monotonic()
        rows = upsert_queues(self._engine, names, schema=self._schema)
        self._report_at = now + REPORT_S
        self._producers.follow(rows, now)
        return rows
