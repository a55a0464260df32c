"""A clock for tests, which only moves when a test advances it."""

from datetime import UTC, datetime, timedelta

from riverrun.clock import Clock, Duration, seconds
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware


class FrozenClock(Clock):
    """A clock that stands still until `advance` is called, also for the times in rows.

        clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
        client = Client(engine, clock=clock)
        clock.advance(timedelta(hours=1))

    Args:
        at: The time to begin at, aware. Default: now, by the process's clock.
    """

    def __init__(self, at: datetime | None = None) -> None:
        self._now = datetime.now(UTC) if at is None else check_aware("at", at)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the clock's time."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds by which the clock was advanced in all."""
        return self._monotonic

    def database_now(self) -> datetime:
        """Return the clock's time, which rows then get in place of the database's."""
        return self._now

    def advance(self, duration: Duration) -> datetime:
        """Advance the clock by `duration`, seconds or a timedelta; return its new time."""
        passed_s = seconds(duration)
        if passed_s < 0:
            raise InvalidOption("duration", duration, "no negative one: jobs do not go back")
        self._now += timedelta(seconds=passed_s)
        self._monotonic += passed_s
        return self._now
