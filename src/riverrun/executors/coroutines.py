"""Slots as coroutines: thousands of attempts on one event loop, in one thread."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from riverrun.attempt import Attempt, Ended

InLoop = Callable[[Callable[[], None]], None]
"""Calls a function in the event loop, soon; from any thread."""


class CoroutineExecutor:
    """Runs attempts as tasks, `slots` at once; what is handed over beyond that waits in line."""

    def __init__(
        self,
        slots: int,
        *,
        in_loop: Callable[[Callable[[], None]], None],
        done: Callable[[Attempt, Ended], None],
        freed: Callable[[], None],
    ):
        self.slots = slots
        self._in_loop = in_loop
        self._done = done
        self._freed = freed
        self._lock = threading.Lock()  # guards all below
        self._ended = threading.Condition(self._lock)
        self._line: deque[Attempt] = deque()
        self._running: dict[int, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop's thread alone touches it

    def submit(self, attempts: Collection[Attempt]) -> None:
        """Hand `attempts` over; each begins when a slot is free."""
        with self._lock:
            self._line.extend(attempts)
            ready = self._taken()
        if ready:
            self._in_loop(lambda: self._start(ready))

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        with self._lock:
            return list(self._running.values())

    def unfinished(self) -> int:
        """Return how many attempts were handed over and have not ended."""
        with self._lock:
            return len(self._line) + len(self._running)

    def about_unfinished(self) -> int:
        """Return about the same, but at no cost."""
        return len(self._line) + len(self._running)

    def take_back(self) -> list[Attempt]:
        """Return the attempts that have not begun; they will not."""
        with self._lock:
            attempts = list(self._line)
            self._line.clear()
            return attempts

    def wait_idle(self, deadline: float) -> bool:
        """Wait until all that was handed over has ended; return whether it had by `deadline`.

        Args:
            deadline: When to give up, by time.monotonic().
        """
        with self._lock:
            left = deadline - time.monotonic()
            return self._ended.wait_for(
                lambda: not self._running and not self._line, max(0.0, left)
            )

    def stop(self, deadline: float) -> bool:
        """Return whether all had ended at `deadline`, by time.monotonic()."""
        return self.wait_idle(deadline)

    def _taken(self) -> list[Attempt]:
        ready = []
        while self._line and len(self._running) < self.slots:
            attempt = self._line.popleft()
            self._running[id(attempt)] = attempt.prepare()
            ready.append(attempt)
        return ready

    def _start(self, attempts: Collection[Attempt]) -> None:
        loop = asyncio.get_running_loop()
        for attempt in attempts:
            # A task each: what one attempt sets in its context is not the next one's.
            task = loop.create_task(self._run(attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        ended = await attempt.execute_async()
        self._done(attempt, ended)
        with self._lock:
            del self._running[id(attempt)]
            if attempt.replaced:
                self.slots -= 1
            ready = self._taken()
            if not self._running:
                self._ended.notify_all()
        self._freed()
        if ready:
            self._start(ready)
