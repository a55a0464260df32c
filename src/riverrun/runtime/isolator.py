"""Step 5 of 5, complete: writes the outcomes that could not be written with the rest.

The isolator has a thread of its own, which starts when it is first needed. While it waits for a
lock or for the database, the completer goes on writing.
"""

import heapq
import math
import random
import threading
from collections.abc import Sequence
from itertools import count

import attrs

from riverrun.clock import Clock
from riverrun.db.refusals import Fault, fault_of
from riverrun.db.statement_timeout import waiting
from riverrun.execution.result import AttemptResult
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.outcome import Outcome
from riverrun.runtime.service import Pause, Service
from riverrun.runtime.writer import Writer, Written, job_id
from riverrun.verbs.reduction import barest, reductions

logger = logger_of(__name__)

LOCKED_S = 1.0
"""Maximum seconds between two looks whether locked rows are free."""

REFUSED_S = 8.0
"""Maximum seconds between two tries at an outcome that was refused alone."""

TRIES = {Fault.value: 1, Fault.row: 4, Fault.moment: 8}
"""Tries at a whole outcome before parts of it are given up, if the database accepts others."""

LOG_S = 10.0
"""Seconds between two log lines about rows that are locked."""

GIVEN_UP_S = 300.0
"""Seconds between two tries at the smallest form of an outcome that was given up."""

FRUITLESS = 24
"""Refusals in a row, with nothing written, after which the database counts as failing as a whole.

The rows are not at fault then.
"""

FRUITLESS_S = 10.0
"""Seconds of refusals, with nothing written, after which the database counts as failing, too."""

_HURRY_S = 0.1
"""Seconds between two tries while the client stops."""


@attrs.define(kw_only=True, eq=False)
class _Alone:
    """An outcome that was refused alone."""

    result: AttemptResult
    pause: Pause
    tried_at: float
    tries: int = 0
    given_up: bool = False


class Isolator(Service):
    """Holds outcomes that found their rows locked or were refused, until they are written.

    Attributes:
        idle: Set while nothing is held except outcomes that were given up.
        wrote_at: When an outcome was last written, here or by the completer, by the process's
            clock.
    """

    def __init__(self, writer: Writer, *, clock: Clock, rng: random.Random) -> None:
        super().__init__("isolator")
        self._writer = writer
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()  # guards the held outcomes; other threads add and count them
        self._parts: list[
            Sequence[AttemptResult]
        ] = []  # a stack of refused batches; which member is at fault is not known
        self._part: Sequence[AttemptResult] = ()  # the batch that is being written
        self._locked: dict[int, AttemptResult] = {}
        self._alone: dict[int, _Alone] = {}
        self._due: list[tuple[float, int, _Alone]] = []  # a heap; this thread's own
        self._order = count()
        self._parts_at = self._locked_at = self._log_at = -math.inf
        self._parts_pause = Pause(rng.random)
        self._locked_pause = Pause(rng.random, longest_s=LOCKED_S)
        self._woken = threading.Event()
        self._abandoned = False
        self.idle = threading.Event()
        self.idle.set()
        self.wrote_at = -math.inf

    def take(
        self, *, locked: Sequence[AttemptResult] = (), refused: Sequence[AttemptResult] = ()
    ) -> None:
        """Hold outcomes with `locked` rows, and a batch `refused` because of any of its members."""
        with self._lock:
            if locked and not self._locked:
                self._locked_pause.reset()
                self._locked_at = self._clock.monotonic() + self._locked_pause.next_s()
            if refused and not self._parts:
                self._parts_pause.reset()
                self._parts_at = -math.inf
            self._locked.update((job_id(result), result) for result in locked)
            if refused:
                self._parts.append(refused)
            self.idle.clear()
        self._woken.set()
        self.start()

    @property
    def unsorted(self) -> int:
        """How many outcomes are in refused batches of which the faulty members are not known."""
        with self._lock:
            return sum(map(len, self._parts)) + len(self._part)

    @property
    def held(self) -> list[AttemptResult]:
        """All held outcomes, except those that were given up."""
        with self._lock:
            return [
                *(result for part in self._parts for result in part),
                *self._part,
                *self._locked.values(),
                *(entry.result for entry in self._alone.values() if not entry.given_up),
            ]

    @property
    def refused(self) -> list[AttemptResult]:
        """The attempts whose outcome the database refuses in every form."""
        with self._lock:
            return [entry.result for entry in self._alone.values() if entry.given_up]

    def interrupt(self) -> None:
        """Wake the thread, for its last tries."""
        self._woken.set()

    def abandon(self) -> None:
        """Stop without writing the held outcomes; cancel a statement that is being executed."""
        self._abandoned = True
        self._woken.set()
        for wait in list(waiting):
            if self._thread is not None and wait.thread == self._thread.ident:
                wait.until = -math.inf

    def run(self) -> None:
        """Write what is due until stopped and nothing is left that can be written."""
        while not self._abandoned and not (self.stopping.is_set() and self.idle.is_set()):
            self._woken.wait(min(self._wait_s(), threading.TIMEOUT_MAX))
            self._woken.clear()
            try:
                self.run_once()
            except Exception as error:
                log_error(
                    logger,
                    error,
                    "could not go on with outcomes that the database refused; trying again in 1 s",
                )
                with self._lock:
                    self._parts += [self._part] if self._part else []
                    self._part = ()
                self.stopping.wait(1.0)

    def run_once(self) -> None:
        """Write what is due: refused batches by halves, locked rows together, the rest alone."""
        hurried, now = self.stopping.is_set(), self._clock.monotonic()
        if self._parts and (hurried or now >= self._parts_at):
            self._sort()
        if self._locked and (hurried or now >= self._locked_at):
            self._look_at_locked()
        for entry in self._take_due():
            if self._abandoned:
                break
            self._try(entry)
            if self._locked and self._clock.monotonic() >= self._locked_at:
                self._look_at_locked()
        with self._lock:
            if not (self._parts or self._locked or self._waiting_alone()):
                self.idle.set()

    def _waiting_alone(self) -> bool:
        return any(not entry.given_up for entry in self._alone.values())

    def _wait_s(self) -> float:
        if self.stopping.is_set():
            return 0.0 if self.idle.is_set() else _HURRY_S
        ends = [at for at, _, _ in self._due[:1]]
        with self._lock:
            ends += [self._parts_at] if self._parts else []
            ends += [self._locked_at] if self._locked else []
        return max(0.0, min(ends, default=math.inf) - self._clock.monotonic())

    def _take_due(self) -> list[_Alone]:
        now = self._clock.monotonic()
        due = []
        if self.stopping.is_set():
            due = [entry for entry in self._due if not entry[-1].given_up]
            self._due = []  # outcomes that were given up are not tried again
        else:
            while self._due and self._due[0][0] <= now:
                due.append(heapq.heappop(self._due))
        return [entry for _, _, entry in due]

    def _sort(self) -> None:
        """Write refused batches, halving each that is refused again, until all are sorted."""
        fruitless, fruitful_at = 0, self._clock.monotonic()
        while self._parts and not self._abandoned:
            with self._lock:
                self._part = self._parts.pop()
            written = self._write(self._part)
            if written.count:
                fruitless, fruitful_at = 0, self._clock.monotonic()
                self._parts_pause.reset()
            alone: list[tuple[_Alone, Exception]] = []
            with self._lock:
                self._part = ()
                self._locked.update((job_id(result), result) for result in written.locked)
                for members, error in written.refused:
                    if fault_of(error) is Fault.connection:
                        self._parts.append(members)
                    elif len(members) > 1:
                        half = len(members) // 2
                        self._parts += [members[half:], members[:half]]
                    else:
                        alone.append((self._add(members[0]), error))
            for entry, error in alone:
                self._judge(entry, error)
            for _, error in written.refused:
                fault = fault_of(error)
                fruitless += fault in (Fault.moment, Fault.disk)
                late = self._clock.monotonic() - fruitful_at >= FRUITLESS_S
                if fault is Fault.connection or fruitless >= FRUITLESS or (fruitless and late):
                    self._rest(error)
                    return

    def _rest(self, error: Exception) -> None:
        pause_s = self._parts_pause.next_s()
        self._parts_at = self._clock.monotonic() + pause_s
        if held := self.unsorted:
            logger.warning(
                "could not write the outcomes of %s jobs; trying again in %.1f s: %s",
                held,
                pause_s,
                reason(error),
            )

    def _look_at_locked(self) -> None:
        with self._lock:
            looked = list(self._locked.values())
        written = self._write(looked)
        still = {job_id(result) for result in written.locked}
        with self._lock:
            for result in looked:
                if job_id(result) not in still and self._locked.get(job_id(result)) is result:
                    del self._locked[job_id(result)]
            self._parts += [members for members, _ in written.refused]
            now = self._clock.monotonic()
            self._locked_at = now + self._locked_pause.next_s()
        if still and now >= self._log_at:
            self._log_at = now + LOG_S
            logger.warning(
                "could not write the outcomes of %s jobs: other transactions have locked their "
                "rows; trying again until those end",
                len(still),
            )
        if written.refused:
            self._woken.set()

    def _add(self, result: AttemptResult) -> _Alone:
        pause = Pause(self._rng.random, longest_s=REFUSED_S)
        entry = _Alone(result=result, pause=pause, tried_at=self._clock.monotonic())
        self._alone[job_id(result)] = entry
        return entry

    def _try(self, entry: _Alone) -> None:
        """Try once more to write an outcome that was refused alone."""
        before, entry.tried_at = entry.tried_at, self._clock.monotonic()
        outcome = entry.result.outcome
        assert outcome is not None  # noqa: S101  else it would not be held
        written = self._attempt(entry, barest(outcome) if entry.given_up else outcome)
        if not written.count:
            self._judge(entry, _error(written), since=before)

    def _judge(self, entry: _Alone, error: Exception | None, since: float = math.inf) -> None:
        """Let a refused outcome wait, or give up parts of it if the database will not accept it.

        Args:
            entry: The outcome.
            error: Why it was refused; None if its row is locked.
            since: When it was tried before.
        """
        if entry.given_up:
            self._wait(entry, GIVEN_UP_S)
            return
        fault = None if error is None else fault_of(error)
        counts = fault in TRIES
        if fault is Fault.moment and self.wrote_at <= since:
            # Nothing was written meanwhile. The outcome is at fault only if the database would
            # accept others.
            counts = self._writer.takes_writes()
        entry.tries += counts
        enough = fault in TRIES and (entry.tries >= TRIES[fault] or self.stopping.is_set())
        if error is not None and counts and enough:
            self._reduce(entry, error)
            return
        pause_s = entry.pause.next_s() * 2
        if error is not None:
            logger.warning(
                "could not write the outcome of job %s; trying again in %.1f s: %s",
                job_id(entry.result),
                pause_s,
                reason(error),
                extra={"job_id": job_id(entry.result)},
            )
        self._wait(entry, pause_s)

    def _reduce(self, entry: _Alone, error: Exception) -> None:
        """Write the outcome without its dispensable parts, less each time, until it is accepted."""
        assert entry.result.outcome is not None  # noqa: S101  else it would not be held
        number, why = job_id(entry.result), reason(error)
        for lost, outcome in reductions(entry.result.outcome, why):
            written = self._attempt(entry, outcome)
            if written.count:
                logger.error(
                    "recorded the outcome of job %s without %s, because the database refused all "
                    "of it: %s",
                    number,
                    lost,
                    why,
                    extra={"job_id": number},
                )
                return
            last = _error(written)
            if last is None or fault_of(last) is Fault.connection or self._abandoned:
                # The row is locked by now, or there is no connection: start over later.
                self._wait(entry, entry.pause.next_s())
                return
        logger.error(
            "the database refused every form of the outcome of job %s, whose row stays running; "
            "trying again in %.0f s: %s",
            number,
            GIVEN_UP_S,
            why,
            extra={"job_id": number},
        )
        with self._lock:
            entry.given_up = True
        self._wait(entry, GIVEN_UP_S)

    def _attempt(self, entry: _Alone, outcome: Outcome) -> Written:
        written = self._write([attrs.evolve(entry.result, outcome=outcome)])
        if written.count:
            with self._lock:
                if self._alone.get(outcome.job_id) is entry:
                    del self._alone[outcome.job_id]
        return written

    def _write(self, members: Sequence[AttemptResult]) -> Written:
        written = self._writer.write(members)
        if written.count:
            self.wrote_at = self._clock.monotonic()
        return written

    def _wait(self, entry: _Alone, pause_s: float) -> None:
        at = self._clock.monotonic() + pause_s
        heapq.heappush(self._due, (at, next(self._order), entry))


def _error(written: Written) -> Exception | None:
    """Return why one outcome was refused; None if its row is locked."""
    return written.refused[0][1] if written.refused else None
