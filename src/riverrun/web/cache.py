"""Results that all requests of a process share for a short time."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import attrs

from riverrun.clock import Clock

R = TypeVar("R")

TTL_S = 2.0
"""Seconds for which a result is shared."""

WAIT_S = 2.0
"""Seconds that a request waits for another one to get a result that it needs, too."""

ENTRIES_MAX = 500
"""Maximum number of results that are kept."""


@attrs.define
class _Entry:
    lock: threading.Lock = attrs.field(factory=threading.Lock)  # held while a request gets it
    value: Any = None
    until: float = -1.0


class Cache:
    """Keeps results, so that their cost does not depend on how many people look at pages.

    Args:
        clock: The process's clock.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()  # guards the dict of entries
        self._entries: dict[Hashable, _Entry] = {}

    def get(self, key: Hashable, read: Callable[[], R], *, ttl_s: float = TTL_S) -> R:
        """Return the result for `key`, which `read` gets if it is not known or too old.

        Args:
            key: What the result depends on.
            read: Gets the result. What it raises is raised here, and not kept.
            ttl_s: Seconds for which the result is shared.
        """
        entry = self._entry(key)
        if self._clock.monotonic() < entry.until:
            value: R = entry.value
            return value
        # The wait has a bound. The request that holds the lock may need a connection of the pool,
        # and those that wait here may have them all.
        owns = entry.lock.acquire(timeout=WAIT_S)
        try:
            if self._clock.monotonic() >= entry.until:
                entry.value = read()
                entry.until = self._clock.monotonic() + ttl_s
            found: R = entry.value
            return found
        finally:
            if owns:
                entry.lock.release()

    def clear(self) -> None:
        """Forget all results, and those that requests are about to get."""
        with self._lock:
            self._entries = {}

    def _entry(self, key: Hashable) -> _Entry:
        with self._lock:
            if key not in self._entries and len(self._entries) >= ENTRIES_MAX:
                now = self._clock.monotonic()
                self._entries = {
                    k: entry for k, entry in self._entries.items() if now < entry.until
                }
                if len(self._entries) >= ENTRIES_MAX:
                    self._entries.clear()
            return self._entries.setdefault(key, _Entry())
