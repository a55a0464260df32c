"""The process's clocks, which measure waits. Times in rows come from the database's clock."""

import time
from datetime import UTC, datetime, timedelta

Duration = float | timedelta
"""Seconds, or a timedelta."""


def seconds(duration: Duration) -> float:
    """Return `duration` in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


class Clock:
    """The process's clocks, as an object that tests can replace."""

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)
    """Return seconds on a clock that never goes backwards."""

    def database_now(self) -> datetime | None:
        """Return the time that statements use as the database's; None for the database's own."""
        return None


def span_text(span_s: float) -> str:
    """Return a length of time as text for people, such as `3 min`."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(span_s) >= 2 * length_s:
            return f"{abs(span_s) / length_s:.0f} {unit}"
    return f"{abs(span_s):.0f} s"
