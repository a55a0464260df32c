"""Step 4 of 5, execute: runs attempts in threads, one for each slot."""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Collection
from itertools import count

from riverrun.execution.attempt import Attempt
from riverrun.execution.owner import Owner
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)


_LOOK_S = 0.01


NEW = 8
"""Jobs to claim at most beyond the threads there are, while slots have none yet. Threads are made
one after the other, in about 0.4 ms each, and a job that waits for one could run elsewhere."""


RETRY_S = 1.0
"""Seconds until the next try to make a thread, after the process could make none."""


class ThreadExecutor:
    """Runs attempts, `slots` at once. Further attempts wait in line.

    Attempts are many and may be short, so an attempt takes no lock: deques, dicts, and counters
    that one thread writes, are safe by themselves. A thread that begins an attempt wakes or makes
    one more thread if others wait, instead of all being woken at once. So if attempts are short,
    one thread takes one after the other; if they block, the next thread is there at once.
    """

    def __init__(self, slots: int, *, name: str, owner: Owner) -> None:
        self.slots = slots
        self._name = name
        self._owner = owner
        self._line: deque[Attempt] = deque()
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waking = False  # a token is on its way to a thread, or a new thread begins
        self._lock = threading.Lock()  # guards _threads, _idle and _handed_over
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._handed_over = 0  # how many attempts, minus those that were taken back
        self._tallies: list[_Tally] = []
        self._numbers = count()
        self._stopping = False
        self._retry_at: float | None = None  # set while the process could make no more threads
        # By thread, not by job: a rescued job may be claimed again beside its old attempt.
        self._running: dict[threading.Thread, Attempt] = {}

    def submit(self, attempts: Collection[Attempt]) -> None:
        """Hand `attempts` over; each begins when a slot is free."""
        with self._lock:
            self._handed_over += len(attempts)
        self._line.extend(attempts)
        self._call_one()

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        return list(self._running.values())

    def places(self) -> list[Attempt]:
        """Return the attempts that wait in line, and those that a living thread runs."""
        running = [each for thread, each in list(self._running.items()) if thread.is_alive()]
        return [*list(self._line), *running]

    def owns(self, thread: threading.Thread) -> bool:
        """Return whether `thread` is one of the executor's."""
        with self._lock:
            return thread in self._threads

    def unfinished(self) -> int:
        """Return how many attempts were handed over and are unfinished."""
        ended = sum(tally.ended for tally in list(self._tallies))
        with self._lock:
            return self._handed_over - ended

    def about_unfinished(self) -> int:
        """Return about the same as `unfinished`, but without its cost."""
        return len(self._line) + len(self._running)

    def missing(self) -> int:
        """Return how many slots get no thread for now. Once a second, one is tried again."""
        if self._retry_at is None:
            return 0
        retried = int(time.monotonic() >= self._retry_at)
        return max(0, self.slots - len(self._threads) - retried)

    def within_reach(self) -> int:
        """Return how many attempts have a thread, or get one soon."""
        return len(self._threads) + NEW

    def waiting_since(self) -> float:
        """Return when the first in line was claimed, by time.monotonic(); infinite if none."""
        try:
            return self._line[0].claimed_monotonic
        except IndexError:
            return math.inf

    def take_back(self) -> list[Attempt]:
        """Remove the attempts that have not begun, and return them."""
        attempts = []
        while True:
            try:
                attempts.append(self._line.popleft())
            except IndexError:
                break
        with self._lock:
            self._handed_over -= len(attempts)
        return attempts

    def abandon(self, attempt: Attempt) -> None:
        """Free the slot of an attempt whose thread has died."""
        dead = [thread for thread, each in list(self._running.items()) if each is attempt]
        with self._lock:
            self._handed_over -= 1
            self._threads = [thread for thread in self._threads if thread not in dead]
        for thread in dead:
            self._running.pop(thread, None)

    def wait_idle(self, deadline: float) -> bool:
        """Wait until all attempts are finished; return whether they were by `deadline`.

        Args:
            deadline: When to give up, by time.monotonic().
        """
        pause = threading.Event()
        while self.unfinished():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            pause.wait(min(left, _LOOK_S))
        return True

    def stop(self, deadline: float) -> bool:
        """Stop the threads; return whether all had stopped at `deadline`, by time.monotonic()."""
        self._stopping = True
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._tokens.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _call_one(self) -> None:
        """Wake one more thread to look at the line, or make one if there may be one more."""
        if self._waking:
            return
        with self._lock:
            if self._waking or self._stopping:
                return
            if self._idle:
                self._waking = True
                self._tokens.put(None)
            elif len(self._threads) < self.slots:
                self._make_one()

    def _make_one(self) -> None:
        if self._retry_at is not None and time.monotonic() < self._retry_at:
            return
        thread = None
        try:
            tally = _Tally()
            name = f"{self._name}-{next(self._numbers)}"
            thread = threading.Thread(target=self._run, args=(tally,), name=name)
            self._tallies.append(tally)
            self._threads.append(thread)
            self._waking = True
            thread.start()
        except (RuntimeError, MemoryError) as error:
            # A limit of the process or its container. The living threads go on. Attempts that they
            # do not get to wait in line until they are given back.
            self._waking = False
            if thread in self._threads:
                self._threads.remove(thread)
            if self._retry_at is None:
                logger.error(  # noqa: TRY400  the traceback would add nothing
                    "could not start a thread for a slot: %s; going on with %s of %s slots",
                    error,
                    len(self._threads),
                    self.slots,
                )
            self._retry_at = time.monotonic() + RETRY_S
        else:
            if self._retry_at is not None:
                logger.warning("started a thread for a slot again")
            self._retry_at = None

    def _run(self, tally: "_Tally") -> None:
        self._waking = False
        me = threading.current_thread()
        replaced = False
        self._owner.freed()
        while not replaced:
            try:
                attempt = self._line.popleft()
            except IndexError:
                if self._stopping:
                    return
                self._sleep()
                continue
            try:
                if self._line and not self._waking:
                    self._call_one()
                if self._owner.begins(attempt):
                    self._running[me] = attempt.prepare()
                    # The result is passed on before the attempt leaves `_running`: a stop flushes
                    # the results once nothing runs.
                    self._owner.done(attempt, attempt.execute())
            except BaseException as error:
                self._owner.broken(attempt, error)
            finally:
                self._running.pop(me, None)
                tally.ended += 1
                replaced = attempt.replaced
            self._owner.freed()
        with self._lock:
            # Another thread has taken this one's slot.
            self.slots -= 1
            self._threads.remove(me)

    def _sleep(self) -> None:
        with self._lock:
            self._idle += 1
        called = False
        try:
            # An attempt may have been handed over since the look at the line, when this thread was
            # not idle yet.
            if not self._line:
                self._tokens.get()
                called = True
        finally:
            with self._lock:
                self._idle -= 1
                if not called and self._waking and not self._idle:
                    # A token came nevertheless. If it stayed, no other thread would be woken until
                    # one sleeps again.
                    called = _took(self._tokens)
                if called:
                    self._waking = False


def _took(tokens: "queue.SimpleQueue[None]") -> bool:
    try:
        tokens.get_nowait()
    except queue.Empty:
        return False
    return True


class _Tally:
    """How many attempts a thread has finished. Only that thread writes it."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = 0
