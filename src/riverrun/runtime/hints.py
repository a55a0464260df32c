"""How far a producer trusts notifications, which any role may send although there is no job."""

import threading

from riverrun.clock import Clock

HINTS = 20.0
"""Looks per second that notifications may cause although they find nothing."""


class Hints:
    """Spaces out looks at a queue once many have found nothing. Any thread may use it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards all below
        self._left: float = HINTS  # fruitless looks that notifications may still cause
        self._counted_at = clock.monotonic()
        self._next_at = 0.0  # when the next look is, if notifications caused too many

    def look_at(self) -> float | None:
        """Return when to look because of a notification, by the process's monotonic clock.

        Returns:
            A time, which has passed if the look is due now; None if a later look is due already.
        """
        now = self._clock.monotonic()
        with self._lock:
            self._left = min(HINTS, self._left + (now - self._counted_at) * HINTS)
            self._counted_at = now
            if self._left >= 1:
                return now
            if now < self._next_at:
                return None
            self._next_at = now + 1 / HINTS
            return self._next_at

    def found_nothing(self) -> None:
        """Count a look that a notification caused and that found no job."""
        with self._lock:
            self._left -= 1
