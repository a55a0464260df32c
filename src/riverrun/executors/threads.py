"""Slots as threads: one attempt a thread, threads made when they are first needed."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from itertools import count

from riverrun.attempt import Attempt, Ended

logger = logging.getLogger(__name__)

_LOOK_S = 0.01


class ThreadExecutor:
    """Runs attempts, `slots` at once; what is handed over beyond that waits in line.

    Attempts are many and may be short, so an attempt takes no lock: deques, dicts and counters that
    one thread writes are safe by themselves. And a thread that begins an attempt wakes or makes one
    more if others wait, instead of all being woken at once: where attempts are short one thread
    takes one after the other, and where they wait the next thread is there as soon as they do.
    """

    def __init__(
        self,
        slots: int,
        *,
        name: str,
        done: Callable[[Attempt, Ended], None],
        freed: Callable[[], None],
    ) -> None:
        self.slots = slots
        self._name = name
        self._done = done
        self._freed = freed
        self._line: deque[Attempt] = deque()
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waking = False  # a token is on its way to a thread
        self._lock = threading.Lock()  # guards _threads, _idle and _handed_over
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._handed_over = 0  # less what was taken back
        self._tallies: list[_Tally] = []
        self._numbers = count()
        self._stopping = False
        # By attempt, not by job: a rescued job may be claimed again beside its old attempt.
        self._running: dict[int, Attempt] = {}

    def submit(self, attempts: Collection[Attempt]) -> None:
        """Hand `attempts` over; each begins when a slot is free."""
        with self._lock:
            self._handed_over += len(attempts)
        self._line.extend(attempts)
        self._call_one()

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        return list(self._running.values())

    def owns(self, thread: threading.Thread) -> bool:
        """Return whether `thread` is one of the executor's."""
        with self._lock:
            return thread in self._threads

    def unfinished(self) -> int:
        """Return how many attempts were handed over and have not ended."""
        ended = sum(tally.ended for tally in list(self._tallies))
        with self._lock:
            return self._handed_over - ended

    def about_unfinished(self) -> int:
        """Return about the same, but at no cost."""
        return len(self._line) + len(self._running)

    def take_back(self) -> list[Attempt]:
        """Return the attempts that have not begun; they will not."""
        attempts = []
        while True:
            try:
                attempts.append(self._line.popleft())
            except IndexError:
                break
        with self._lock:
            self._handed_over -= len(attempts)
        return attempts

    def wait_idle(self, deadline: float) -> bool:
        """Wait until all that was handed over has ended; return whether it had by `deadline`.

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
        """End the threads; return whether all had ended at `deadline`, by time.monotonic()."""
        self._stopping = True
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._tokens.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _call_one(self) -> None:
        """Have one more thread look at the line, if there is one or may be one."""
        if self._waking:
            return
        with self._lock:
            if self._waking or self._stopping:
                return
            if self._idle:
                self._waking = True
                self._tokens.put(None)
            elif len(self._threads) < self.slots:
                self._waking = True
                tally = _Tally()
                self._tallies.append(tally)
                name = f"{self._name}-{next(self._numbers)}"
                thread = threading.Thread(target=self._run, args=(tally,), name=name)
                self._threads.append(thread)
                thread.start()

    def _run(self, tally: "_Tally") -> None:
        self._waking = False
        replaced = False
        while not replaced:
            try:
                attempt = self._line.popleft()
            except IndexError:
                if self._stopping:
                    return
                self._sleep()
                continue
            self._running[id(attempt)] = attempt.prepare()
            if self._line and not self._waking:
                self._call_one()
            try:
                # Done before it is no longer running: a stop flushes once nothing runs.
                self._done(attempt, attempt.execute())
            finally:
                del self._running[id(attempt)]
                tally.ended += 1
                replaced = attempt.replaced
            self._freed()
        with self._lock:
            # Another thread has its slot.
            self.slots -= 1
            self._threads.remove(threading.current_thread())

    def _sleep(self) -> None:
        with self._lock:
            self._idle += 1
        # Handed over between the look at the line and now: whoever did so saw nobody idle.
        if self._line:
            with self._lock:
                self._idle -= 1
            return
        self._tokens.get()
        with self._lock:
            self._idle -= 1
            self._waking = False


class _Tally:
    """How many attempts a thread has ended; it alone writes it."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = 0
