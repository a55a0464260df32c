"""Step 4 of 5, execute: a queue's slots, which run each attempt in its worker's executor."""

import math
import threading
import time
from collections.abc import Collection

from riverrun.execution.attempt import Attempt
from riverrun.execution.coroutines import CoroutineExecutor, InLoop
from riverrun.execution.owner import Owner
from riverrun.execution.threads import ThreadExecutor


class Slots:
    """A queue's slots: threads and coroutines side by side."""

    def __init__(self, slots: int, *, name: str, in_loop: InLoop, owner: Owner) -> None:
        """Make the executors of both sorts.

        Args:
            slots: How many attempts run at once, of each sort.
            name: The threads' name.
            in_loop: Calls a function in the event loop.
            owner: The object that hands the attempts over.
        """
        self._threads = ThreadExecutor(slots, name=name, owner=owner)
        self._coroutines = CoroutineExecutor(slots, in_loop=in_loop, owner=owner)
        self._submitted = {False: False, True: False}

    @property
    def mixed(self) -> bool:
        """Whether attempts of both sorts were handed over.

        Then nothing may be claimed ahead: each sort would fill all slots by itself.
        """
        return all(self._submitted.values())

    def submit(self, attempts: Collection[Attempt]) -> None:
        """Hand `attempts` over; each begins when a slot is free."""
        coroutines = [attempt for attempt in attempts if attempt.is_async]
        threads = attempts
        if coroutines:
            self._submitted[True] = True
            self._coroutines.submit(coroutines)
            threads = [attempt for attempt in attempts if not attempt.is_async]
        if threads:
            self._submitted[False] = True
            self._threads.submit(threads)

    def add(self, attempt: Attempt) -> None:
        """Open a slot in place of the one that `attempt` occupies, until that finishes."""
        (self._coroutines if attempt.is_async else self._threads).slots += 1

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        return [*self._threads.running(), *self._coroutines.running()]

    def places(self) -> list[Attempt]:
        """Return the attempts that wait, and those that run in a living thread or loop."""
        return [*self._threads.places(), *self._coroutines.places()]

    def abandon(self, attempt: Attempt) -> None:
        """Free the slot of an attempt whose thread or loop is gone."""
        (self._coroutines if attempt.is_async else self._threads).abandon(attempt)

    def missing(self) -> int:
        """Return how many slots do not exist for now, since the process gets no more threads."""
        return self._threads.missing()

    def within_reach(self) -> float:
        """Return how many attempts can begin soon: not all threads may have been made yet."""
        return math.inf if self._submitted[True] else self._threads.within_reach()

    def waiting_since(self) -> float:
        """Return when the first that waits was claimed, by time.monotonic(); infinite if none."""
        return min(self._threads.waiting_since(), self._coroutines.waiting_since())

    def lose_loop(self) -> None:
        """End the attempts of the event loop, which is lost. It is called in the loop's thread."""
        self._coroutines.lose()

    def owns(self, thread: threading.Thread) -> bool:
        """Return whether `thread` belongs to one of the slots."""
        return self._threads.owns(thread)

    def unfinished(self) -> int:
        """Return how many attempts were handed over and are unfinished."""
        return self._threads.unfinished() + self._coroutines.unfinished()

    def about_unfinished(self) -> int:
        """Return about the same as `unfinished`, but without its cost."""
        return self._threads.about_unfinished() + self._coroutines.about_unfinished()

    def take_back(self) -> list[Attempt]:
        """Remove the attempts that have not begun, and return them."""
        return [*self._threads.take_back(), *self._coroutines.take_back()]

    def wait_idle(self, deadline: float) -> bool:
        """Wait until all attempts are finished; return whether they were by `deadline`."""
        return self._threads.wait_idle(deadline) and self._coroutines.wait_idle(deadline)

    def stop(self, deadline: float | None = None) -> bool:
        """Stop the threads; return whether all had stopped at `deadline`, by time.monotonic()."""
        end = time.monotonic() if deadline is None else deadline
        idle = self._coroutines.stop(end)
        return self._threads.stop(end) and idle
