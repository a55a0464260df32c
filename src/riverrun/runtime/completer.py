"""Step 5 of 5, complete: gathers finished attempts and writes their outcomes in batches.

An outcome that cannot be written with the rest, because its row is locked or the database refuses
it, goes to the isolator, which writes it by itself. `on_due` reports when a job may be claimed
again.
"""

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence

import attrs
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.db.refusals import Fault, fault_of
from riverrun.db.statement_timeout import with_timeout
from riverrun.errors import AttemptLost, JobSnooze, ObjectBusy
from riverrun.events import (
    Hub,
    JobCancelled,
    JobCompleted,
    JobConflicted,
    JobDeferred,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobSnoozed,
)
from riverrun.execution.result import AttemptResult, event_state
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.runtime.isolator import Isolator
from riverrun.runtime.outage import log_failure
from riverrun.runtime.service import Pause, Service
from riverrun.runtime.writer import TooLarge, Writer
from riverrun.verbs.record import BATCH_MAX

logger = logger_of(__name__)

GATHER_S = 0.005
"""Seconds that a finished attempt waits for others before it is written."""

ENOUGH = 100
"""How many finished attempts are written without that wait: more would gain little."""

BATCH_MIN = 50
"""The smallest batch of outcomes that a statement writes while the database is slow."""

BACKLOG_MAX = 1_000
"""How many unwritten finished attempts stop the claiming, until half of them are written. More if
more attempts than that are claimed at once: they may all finish at once."""

HELD_MAX = 10_000
"""How many outcomes in the isolator, locked or refused, stop the claiming, too."""

LARGE_BYTES = 4 * 1024 * 1024
"""Bytes of JSON beyond which an outcome is written apart from others: it takes longer."""

ANSWER_S = 3.0
"""Seconds that a statement may take here. Then the isolator gets the batch, and others go on."""


class Completer(Service):
    """Writes finished attempts. While the database fails, it holds them and tries again.

    Args:
        on_due: Called with a queue, and with the time by the process's monotonic clock at which one
            of its jobs may be claimed again. There is no notification of that.
        deletes: Whether completed jobs are deleted at once.
        owner: The id of the client that has claimed the jobs. Default: None, any client.

    Attributes:
        backlog_max: How many unwritten finished attempts stop the claiming.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        on_due: Callable[[str, float], object],
        schema: str | None,
        hub: Hub,
        clock: Clock,
        rng: random.Random,
        deletes: bool = False,
        owner: str | None = None,
    ) -> None:
        super().__init__("completer")
        self._on_due = on_due
        self._hub = hub
        self._engine = engine
        self._clock = clock
        self._pause = Pause(rng.random)
        self._line: queue.SimpleQueue[AttemptResult | threading.Event | None] = queue.SimpleQueue()
        self._held: list[AttemptResult] = []  # changed by this thread alone
        self._failing = False
        self._room = threading.Event()  # set while the backlog is small enough to claim more
        self._room.set()
        self.backlog_max = BACKLOG_MAX
        self.gave_up = threading.Event()
        self._most = BATCH_MAX  # outcomes written at once; fewer while the database is slow
        self._writer = Writer(
            with_timeout(engine, ANSWER_S),
            schema=schema,
            settled=self._settled,
            clock=clock,
            largest=LARGE_BYTES,
            deletes=deletes,
            owner=owner,
        )
        # This one keeps completed jobs for the cleaner: a foreign key may forbid to delete them.
        apart = Writer(engine, schema=schema, settled=self._settled, clock=clock, owner=owner)
        self._isolator = Isolator(apart, clock=clock, rng=rng)

    def put(self, result: AttemptResult) -> None:
        """Take a finished attempt; from any thread."""
        self._line.put(result)
        if self._line.qsize() >= self.backlog_max:
            self._room.clear()

    def unwritten(self, timeout: float) -> frozenset[int] | None:
        """Return `held_ids`, including the attempts that were put before the call.

        Args:
            timeout: Seconds to wait for the thread, which may be writing.

        Returns:
            The ids; None if the thread did not take all attempts in time.
        """
        mark = threading.Event()
        self._line.put(mark)
        # Once the thread takes the mark, it holds all that was put before.
        if not mark.wait(timeout) and self.alive:
            return None
        return self.held_ids

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for room; return whether there is some."""
        if not self._room.is_set():
            self._make_room()
        return self._room.wait(timeout)

    @property
    def held(self) -> int:
        """How many outcomes wait because they were refused or their rows are locked."""
        return len(self._isolator.held) + (len(self._held) if self._failing else 0)

    @property
    def held_s(self) -> float:
        """Seconds since the oldest of the held attempts finished; 0.0 if none is held."""
        held = [*self._isolator.held, *list(self._held)]
        since = min((result.ended_monotonic for result in held), default=None)
        return 0.0 if since is None else max(0.0, self._clock.monotonic() - since)

    @property
    def refused(self) -> frozenset[int]:
        """Ids of jobs whose outcome was given up. Their rows stay `running`; nothing runs them."""
        refused = self._isolator.refused
        return frozenset(result.outcome.job_id for result in refused if result.outcome)

    @property
    def held_ids(self) -> frozenset[int]:
        """Ids of the jobs of finished attempts whose rows are still `running`."""
        return frozenset(job_id for job_id, _ in self.held_attempts)

    @property
    def held_attempts(self) -> frozenset[tuple[int, int]]:
        """Finished attempts whose rows are still `running`, each with its job's id.

        Attempts that wait in line for the thread are missing. That takes seconds at most while the
        database can be reached.
        """
        # Read in the order in which an outcome passes through these, so that none is missed.
        held = [*list(self._held), *self._isolator.held, *self._isolator.refused]
        return frozenset(
            (result.outcome.job_id, result.outcome.attempt) for result in held if result.outcome
        )

    def interrupt(self) -> None:
        """Wake the thread for its last flush."""
        self._line.put(None)

    def run(self) -> None:
        """Gather and write until stopped and nothing is left."""
        while not (self.stopping.is_set() and not self._held and self._line.empty()):
            self._gather()
            try:
                self.flush_once()
                self._pause.reset()
                self._failing = False
            except Exception as error:
                self._failing = True
                pause_s = self._pause.next_s()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not write the outcomes of %s jobs; trying again in %.1f s",
                    len(self._held),
                    pause_s,
                )
                if self.gave_up.wait(pause_s):
                    break
        self._finish()

    def flush_once(self) -> int:
        """Write the held outcomes, or hand them to the isolator; return how many were written.

        Raises:
            sqlalchemy.exc.DBAPIError: If there is no connection to the database.
        """
        count = 0
        while self._held:
            batch = self._held[: self._most]
            count += self._write(batch)
        if not self._room.is_set():
            self._make_room()
        return count

    def _finish(self) -> None:
        """Wait until the isolator has written all that it can, or the rest is given up."""
        self._isolator.stopping.set()
        self._isolator.interrupt()
        while not (self._isolator.idle.wait(0.1) or self.gave_up.is_set()):
            pass
        self._isolator.abandon()
        self._isolator.stop()
        self._take(self.backlog_max * 10, wait=False)
        if left := [*self._held, *self._isolator.held]:
            ids = sorted(result.outcome.job_id for result in left if result.outcome)
            logger.error(
                "could not write the outcomes of %s jobs before the client stopped; the jobs "
                "will be rescued: %s",
                len(ids),
                ids,
            )
        if refused := sorted(self.refused):
            logger.error(
                "the database refused the outcomes of these jobs, whose rows stay running until "
                "they are rescued: %s",
                refused,
            )

    def _make_room(self) -> None:
        backlog = self._line.qsize() + self._isolator.unsorted
        if backlog <= self.backlog_max // 2 and len(self._isolator.held) < HELD_MAX:
            self._room.set()

    def _gather(self) -> None:
        if not self._held:
            self._take(1, wait=True)
        if len(self._held) + self._line.qsize() < ENOUGH and not self.stopping.is_set():
            self.stopping.wait(GATHER_S)
        self._take(BATCH_MAX, wait=False)

    def _take(self, limit: int, *, wait: bool) -> None:
        while len(self._held) < limit:
            try:
                result = self._line.get(block=wait)
            except queue.Empty:
                return
            if not isinstance(result, AttemptResult):
                if result is not None:
                    result.set()
                return
            self._held.append(result)

    def _write(self, batch: Sequence[AttemptResult]) -> int:
        """Write `batch` and release it, except for outcomes that failed without a connection."""
        members = [result for result in batch if result.outcome is not None]
        written = self._writer.write(members)
        if len(members) < len(batch):
            self._settled([result for result in batch if result.outcome is None], {})
        self._most = min(2 * self._most, BATCH_MAX)
        if written.count:
            self._isolator.wrote_at = self._clock.monotonic()
        if written.locked:
            logger.debug(
                "could not write the outcomes of %s jobs yet: other transactions have locked their "
                "rows",
                len(written.locked),
            )
            self._isolator.take(locked=written.locked)
        kept: list[AttemptResult] = []
        broken: Exception | None = None
        for refused, error in written.refused:
            fault = fault_of(error)
            if fault is Fault.connection:
                kept += refused
                broken = error
                continue
            if fault is Fault.moment:
                self._most = max(BATCH_MIN, len(refused) // 4)
            logger.log(
                logging.DEBUG if isinstance(error, TooLarge) else logging.WARNING,
                "could not write the outcomes of %s jobs together; trying smaller batches: %s",
                len(refused),
                reason(error),
            )
            self._isolator.take(refused=refused)
        self._held[: len(batch)] = kept
        if self._isolator.unsorted >= BACKLOG_MAX or len(self._isolator.held) >= HELD_MAX:
            self._room.clear()
        if broken is not None:
            raise broken
        return written.count

    def _settled(self, batch: Sequence[AttemptResult], states: dict[int, JobState]) -> None:
        """Publish the events of written attempts; the isolator's thread calls this, too."""
        for result in batch:
            if result.due_monotonic is not None:
                self._on_due(result.queue, result.due_monotonic)
        if self._hub.has_subscribers:
            for result in batch:
                lost = result.outcome is None and isinstance(result.error, AttemptLost)
                if result.job is not None and not lost:
                    self._hub.publish(self._event(result, result.job, states))

    def _event(self, result: AttemptResult, job: JobRow, states: dict[int, JobState]) -> JobEvent:
        state = event_state(result, states, job)
        waited = (job.attempted_at or job.scheduled_at) - job.scheduled_at
        return _event_type(state, result)(
            job=attrs.evolve(job, state=state),
            error=result.error,
            queue_wait_s=max(0.0, waited.total_seconds()),
            run_s=result.run_s,
            complete_s=self._clock.monotonic() - result.ended_monotonic,
        )


def _event_type(state: JobState, result: AttemptResult) -> type[JobEvent]:
    if state is JobState.completed:
        return JobCompleted
    if state is JobState.cancelled:
        return JobCancelled
    if isinstance(result.error, JobSnooze):
        return JobSnoozed
    if isinstance(result.error, ObjectBusy):
        return JobDeferred
    if result.conflict:
        return JobConflicted
    if result.outcome is not None and result.outcome.give_back:
        return JobInterrupted
    return JobFailed
