"""Slots as threads: one attempt a thread, threads made when they are first needed."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection
from itertools import count

from riverrun.attempt import Attempt, Ended

logger = logging.getLogger(__name__)


class ThreadExecutor:
    """Runs attempts, `slots` at once; what is handed over beyond that waits in line."""

    def __init__(self, slots: int, *, name: str, done: Callable[[Attempt, Ended], None]) -> None:
        self.slots = slots
        self._name = name
        self._done = done
        self._line: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards _threads, _idle, _unfinished and _running
        self._ended = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._numbers = count()
        self._idle = 0
        self._unfinished = 0  # handed over, and neither ended nor taken back
        # By attempt, not by job: a rescued job may be claimed again beside its old attempt.
        self._running: dict[int, Attempt] = {}

    def submit(self, attempts: Collection[Attempt]) -> None:
        """Hand `attempts` over; each begins when a slot is free."""
        with self._lock:
            self._unfinished += len(attempts)
        for attempt in attempts:
            self._line.put(attempt)
        with self._lock:
            wanted = min(len(attempts) - self._idle, self.slots - len(self._threads))
            for _ in range(wanted):
                number = next(self._numbers)
                thread = threading.Thread(target=self._run, name=f"{self._name}-{number}")
                self._threads.append(thread)
                thread.start()

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        with self._lock:
            return list(self._running.values())

    def take_back(self) -> list[Attempt]:
        """Return the attempts that have not begun; they will not."""
        attempts: list[Attempt] = []
        while True:
            try:
                attempt = self._line.get_nowait()
            except queue.Empty:
                with self._lock:
                    self._unfinished -= len(attempts)
                return attempts
            if attempt is not None:
                attempts.append(attempt)

    def wait_idle(self, deadline: float) -> bool:
        """Wait until all that was handed over has ended; return whether it had by `deadline`.

        Args:
            deadline: When to give up, by time.monotonic().
        """
        with self._lock:
            left = deadline - time.monotonic()
            return self._ended.wait_for(lambda: not self._unfinished, max(0.0, left))

    def stop(self, deadline: float) -> bool:
        """End the threads; return whether all had ended at `deadline`, by time.monotonic()."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._line.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self) -> None:
        replaced = False
        while not replaced:
            with self._lock:
                self._idle += 1
            attempt = self._line.get()
            with self._lock:
                self._idle -= 1
                if attempt is not None:
                    self._running[id(attempt)] = attempt
            if attempt is None:
                return
            try:
                # Done before it is no longer running: a stop flushes once nothing runs.
                self._done(attempt, attempt.execute())
            finally:
                with self._lock:
                    del self._running[id(attempt)]
                    self._unfinished -= 1
                    if not self._unfinished:
                        self._ended.notify_all()
                    replaced = attempt.replaced
                    if replaced:
                        # Another thread has its slot.
                        self.slots -= 1
                        self._threads.remove(threading.current_thread())
