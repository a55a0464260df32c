"""The process's clocks. Rows live by the database's clock; these measure waits and stamp plans."""

import time
from datetime import UTC, datetime, timedelta

Duration = float | timedelta
"""Seconds, or a timedelta."""


def seconds(duration: Duration) -> float:
    """Return `duration` in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


class Clock:
    """Tells the time; tests pass another one."""

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)
    """Seconds on a clock that never goes back."""

    def database_now(self) -> datetime | None:
        """Return what statements take for the database's time; None for its own."""
        return None
