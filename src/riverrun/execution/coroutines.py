"""Step 4 of 5, execute: runs attempts as coroutines, thousands on one event loop in one thread.

`in_loop` calls a function in that loop, which is the client's and outlives the queue.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

from riverrun.errors import EventLoopLost
from riverrun.execution.attempt import Attempt
from riverrun.execution.owner import Owner
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)


InLoop = Callable[[Callable[[], None]], None]
"""Calls a function in the event loop, soon; from any thread."""


class CoroutineExecutor:
    """Runs attempts as asyncio tasks, `slots` at once. Further attempts wait in line."""

    def __init__(self, slots: int, *, in_loop: InLoop, owner: Owner) -> None:
        self.slots = slots
        self._in_loop = in_loop
        self._owner = owner
        self._lock = threading.Lock()  # guards all below except the tasks
        self._idle = threading.Condition(self._lock)
        self._line: deque[Attempt] = deque()
        # Attempts on their way into the loop, which may be busy, or gone.
        self._starting: dict[int, Attempt] = {}
        self._running: dict[int, tuple[Attempt, asyncio.AbstractEventLoop]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop's thread alone touches it

    def submit(self, attempts: Collection[Attempt]) -> None:
        """Hand `attempts` over; each begins when a slot is free."""
        with self._lock:
            self._line.extend(attempts)
            ready = self._taken()
        if not ready:
            return
        try:
            self._in_loop(lambda: self._start(ready))
        except (RuntimeError, MemoryError) as error:
            # The attempts stay in `_starting` until they are taken back.
            logger.warning("could not start %s attempts in the event loop: %s", len(ready), error)

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        with self._lock:
            return [attempt for attempt, _ in self._running.values()]

    def places(self) -> list[Attempt]:
        """Return the attempts that wait, and those that run in an open loop."""
        with self._lock:
            running = [each for each, loop in self._running.values() if not loop.is_closed()]
            return [*self._line, *self._starting.values(), *running]

    def unfinished(self) -> int:
        """Return how many attempts were handed over and are unfinished."""
        with self._lock:
            return self.about_unfinished()

    def about_unfinished(self) -> int:
        """Return about the same as `unfinished`, but without a lock."""
        return len(self._line) + len(self._starting) + len(self._running)

    def waiting_since(self) -> float:
        """Return when the first that waits was claimed, by time.monotonic(); infinite if none."""
        with self._lock:
            first = next(iter(self._starting.values()), None) or next(iter(self._line), None)
        return math.inf if first is None else first.claimed_monotonic

    def take_back(self) -> list[Attempt]:
        """Remove the attempts that have not begun, and return them."""
        with self._lock:
            attempts = [*self._starting.values(), *self._line]
            self._starting.clear()
            self._line.clear()
            self._idle.notify_all()
            return attempts

    def abandon(self, attempt: Attempt) -> None:
        """Free the slot of an attempt whose loop is gone."""
        self._free(attempt)

    def wait_idle(self, deadline: float) -> bool:
        """Wait until all attempts are finished; return whether they were by `deadline`.

        Args:
            deadline: When to give up, by time.monotonic().
        """
        with self._lock:
            left = deadline - time.monotonic()
            return self._idle.wait_for(lambda: not self.about_unfinished(), max(0.0, left))

    def stop(self, deadline: float) -> bool:
        """Return whether all attempts were finished at `deadline`. The loop is stopped elsewhere.

        Args:
            deadline: When to give up waiting, by time.monotonic().
        """
        return self.wait_idle(deadline)

    def lose(self) -> None:
        """End the running attempts, whose loop is lost. It is called in the loop's thread.

        Attempts that have not begun will begin in the loop that replaces it.
        """
        with self._lock:
            lost = [attempt for attempt, _ in self._running.values()]
            tasks, self._tasks = self._tasks, set()
        for attempt in lost:
            attempt.lose(EventLoopLost())
        for task in tasks:
            # The worker's `finally` blocks run, unless they await something, and the attempt
            # produces its result itself.
            with suppress(BaseException):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # as gather() does
                coroutine = task.get_coro()
                if coroutine is not None:
                    coroutine.close()
        for attempt in lost:
            if id(attempt) in self._running:
                self._owner.broken(attempt, EventLoopLost())
                self._free(attempt)
        self._owner.freed()
        with self._lock:
            ready = list(self._starting.values())
        if ready:
            self._in_loop(lambda: self._start(ready))

    def _taken(self) -> list[Attempt]:
        ready = []
        while self._line and len(self._starting) + len(self._running) < self.slots:
            attempt = self._line.popleft()
            self._starting[id(attempt)] = attempt
            ready.append(attempt)
        return ready

    def _start(self, attempts: Collection[Attempt]) -> None:
        loop = asyncio.get_running_loop()
        for attempt in attempts:
            # One task for each: variables that an attempt sets in its context do not reach others.
            task = loop.create_task(self._run(attempt, loop))
            self._tasks.add(task)
            task.add_done_callback(partial(self._over, attempt))

    async def _run(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        if id(attempt) not in self._starting:
            return  # taken back, or begun already, after the loop that should begin it was lost
        attempt.prepare()
        with self._lock:
            if self._starting.pop(id(attempt), None) is None:
                return  # taken back meanwhile
            self._running[id(attempt)] = attempt, loop
        try:
            if self._owner.begins(attempt):
                result = await attempt.execute_async()
                self._owner.done(attempt, result)
        except BaseException as error:
            self._owner.broken(attempt, error)
        self._next(attempt)

    def _over(self, attempt: Attempt, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        with self._lock:
            left = id(attempt) in self._starting or id(attempt) in self._running
        if left:
            # The task was cancelled before its first step, or failed at its last.
            error = None if task.cancelled() else task.exception()
            self._owner.broken(attempt, error or asyncio.CancelledError())
            self._next(attempt)

    def _next(self, attempt: Attempt) -> None:
        ready = self._free(attempt)
        self._owner.freed()
        if ready:
            self._start(ready)

    def _free(self, attempt: Attempt) -> list[Attempt]:
        with self._lock:
            self._starting.pop(id(attempt), None)
            self._running.pop(id(attempt), None)
            if attempt.replaced:
                self.slots -= 1
            ready = self._taken()
            if not self._running:
                self._idle.notify_all()
            return ready
