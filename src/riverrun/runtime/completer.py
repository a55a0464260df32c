"""Step 5 of 5: complete. Before: attempt. After: nothing. Ended attempts, written together."""

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence

import attrs
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from riverrun.attempt import Ended, event_state
from riverrun.clock import Clock
from riverrun.errors import AttemptLost, JobSnooze
from riverrun.events import (
    Hub,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobSnoozed,
)
from riverrun.job import JobRow
from riverrun.outcome import Outcome
from riverrun.runtime.service import Pause, Service, unexpected
from riverrun.sessions import joined
from riverrun.states import JobState
from riverrun.verbs.complete import record

logger = logging.getLogger(__name__)

BATCH_MAX = 1_000
"""Most outcomes in one statement; beyond it a statement takes longer and saves nothing."""

GATHER_S = 0.005
"""How long an ended attempt waits for others before it is written."""

GATHER_MAX_S = 0.02
"""The longest that it does while few end at a time: to write them takes a fifth of the time."""

FEW = 50
"""Outcomes in a statement that are few."""

BACKLOG_MAX = 1_000
"""Ended attempts not yet written at which nothing more is claimed, until half are written."""

_REFUSED = (DataError, IntegrityError, ProgrammingError, TypeError, ValueError, RecursionError)

_INSUFFICIENT_PRIVILEGE = "42501"


class Completer(Service):
    """Holds ended attempts and writes them; while the database fails it holds and tries again."""

    def __init__(
        self,
        engine: Engine,
        *,
        on_due: Callable[[str, float], object],
        schema: str | None,
        hub: Hub,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("completer")
        self._engine = engine
        self._on_due = on_due
        self._schema = schema
        self._hub = hub
        self._clock = clock
        self._pause = Pause(rng.random)
        self._line: queue.SimpleQueue[Ended | threading.Event | None] = queue.SimpleQueue()
        self._marks: list[threading.Event] = []  # set once all that was put before is written
        self._held: list[Ended] = []
        self._gather_s = GATHER_S
        self._room = threading.Event()  # set while the backlog is small enough to claim more
        self._room.set()
        self.gave_up = threading.Event()
        self._refused: set[int] = set()

    def put(self, ended: Ended) -> None:
        """Take an ended attempt; from any thread."""
        self._line.put(ended)
        if self._line.qsize() >= BACKLOG_MAX:
            self._room.clear()

    def wait_until_written(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all that was put is written; return whether it is."""
        mark = threading.Event()
        self._line.put(mark)
        return mark.wait(timeout)

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for room; return whether there is some."""
        return self._room.wait(timeout)

    @property
    def held(self) -> int:
        """How many outcomes were refused or found their rows locked, and wait to be written."""
        return len(self._held)

    @property
    def held_s(self) -> float:
        """Seconds for which the oldest of them has been held; 0.0 if none is."""
        since = min((ended.ended_monotonic for ended in list(self._held)), default=None)
        return 0.0 if since is None else self._clock.monotonic() - since

    @property
    def refused(self) -> frozenset[int]:
        """Ids of jobs whose outcome was given up: their rows say running, and nobody runs them."""
        return frozenset(self._refused)

    def interrupt(self) -> None:
        """Wake the thread for its last flush."""
        self._line.put(None)

    def run(self) -> None:
        """Gather and write until stopped, and then until nothing is left."""
        while not (self.stopping.is_set() and not self._held and self._line.empty()):
            self._gather()
            try:
                self.flush_once()
                self._pause.reset()
            except Exception as error:
                pause_s = self._pause.next_s()
                logger.warning(
                    "holding %s outcomes, trying again in %.1f s: %s",
                    len(self._held),
                    pause_s,
                    type(error).__name__,
                    exc_info=unexpected(error),
                )
                if self.gave_up.wait(pause_s):
                    break
        if self._held or not self._line.empty():
            self._take(BACKLOG_MAX * 10, wait=False)
            ids = sorted(ended.outcome.job_id for ended in self._held if ended.outcome)
            logger.error("gave up on %s outcomes; their jobs will be rescued: %s", len(ids), ids)

    def flush_once(self) -> int:
        """Write what is held, in statements of at most 1,000; return how many outcomes."""
        written = 0
        while self._held:
            batch = self._held[:BATCH_MAX]
            began = self._clock.monotonic()
            self._write(batch)
            took_s = self._clock.monotonic() - began
            few = len(batch) < FEW
            self._gather_s = min(max(GATHER_S, 4 * took_s), GATHER_MAX_S) if few else GATHER_S
            del self._held[: len(batch)]
            written += len(batch)
        while self._marks:
            self._marks.pop().set()
        if not self._room.is_set() and self._line.qsize() <= BACKLOG_MAX // 2:
            self._room.set()
        return written

    def _gather(self) -> None:
        if not self._held:
            self._take(1, wait=True)
        if len(self._held) < BATCH_MAX and not self.stopping.is_set():
            self.stopping.wait(self._gather_s)
        self._take(BATCH_MAX, wait=False)

    def _take(self, limit: int, *, wait: bool) -> None:
        while len(self._held) < limit:
            try:
                ended = self._line.get(block=wait)
            except queue.Empty:
                return
            if not isinstance(ended, Ended):
                if ended is not None:
                    self._marks.append(ended)
                return
            self._held.append(ended)

    def _write(self, batch: Sequence[Ended]) -> None:
        outcomes = [ended.outcome for ended in batch if ended.outcome is not None]
        states: dict[int, JobState] = {}
        try:
            if outcomes:
                with joined(self._engine, self._schema) as transaction:
                    states = record(transaction, outcomes, merge_anyway=True)
        except _REFUSED as error:
            if _is_not_its_fault(error):
                raise
            if len(outcomes) > 1:
                # One row must not hold up the others: find it by halves.
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._write(half)
                return
            states = self._write_bare(outcomes[0])
        for ended in batch:
            if ended.due_monotonic is not None:
                self._on_due(ended.queue, ended.due_monotonic)
        if self._hub.has_subscribers:
            for ended in batch:
                lost = ended.outcome is None and isinstance(ended.error, AttemptLost)
                if ended.job is not None and not lost:
                    self._hub.publish(self._event(ended, ended.job, states))

    def _write_bare(self, outcome: Outcome) -> dict[int, JobState]:
        logger.error("dropping what the database refuses of job %s", outcome.job_id)
        error = outcome.error and attrs.evolve(outcome.error, error="(refused)", trace="")
        bare = attrs.evolve(outcome, metadata=None, error=error)
        try:
            with joined(self._engine, self._schema) as transaction:
                return record(transaction, [bare], merge_anyway=False)
        except _REFUSED as error:
            if _is_not_its_fault(error):
                raise
            # What is odd is the row itself. To try for ever would hold up all other jobs.
            logger.exception("gave up on the outcome of job %s; its row says running", bare.job_id)
            self._refused.add(bare.job_id)
            return {}

    def _event(self, ended: Ended, job: JobRow, states: dict[int, JobState]) -> JobEvent:
        state = event_state(ended.outcome, states, job)
        waited = (job.attempted_at or job.scheduled_at) - job.scheduled_at
        return _event_type(state, ended)(
            job=attrs.evolve(job, state=state),
            error=ended.error,
            queue_wait_s=max(0.0, waited.total_seconds()),
            run_s=ended.run_s,
            complete_s=self._clock.monotonic() - ended.ended_monotonic,
        )


def _is_not_its_fault(error: Exception) -> bool:
    """Return whether `error` would meet any outcome: this client may not write, for now."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _INSUFFICIENT_PRIVILEGE


def _event_type(state: JobState, ended: Ended) -> type[JobEvent]:
    if state is JobState.completed:
        return JobCompleted
    if state is JobState.cancelled:
        return JobCancelled
    if isinstance(ended.error, JobSnooze):
        return JobSnoozed
    if ended.outcome is not None and ended.outcome.give_back:
        return JobInterrupted
    return JobFailed
