"""A clock that stands still."""

from datetime import UTC, datetime, timedelta

from riverrun.clock import Clock, Duration, seconds
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware


class FrozenClock(Clock):
    """A clock that stands still until it is told to advance, for rows too.

        clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
        client = Client(engine, clock=clock)
        clock.advance(timedelta(hours=1))

    Args:
        at: What time it is, aware; the process's unless said.
    """

    def __init__(self, at: datetime | None = None) -> None:
        self._now = datetime.now(UTC) if at is None else check_aware("at", at)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the time at which it stands."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds by which it was advanced."""
        return self._monotonic

    def database_now(self) -> datetime:
        """Return the time at which it stands: rows live by it."""
        return self._now

    def advance(self, duration: Duration) -> datetime:
        """Go forward by `duration`, seconds or a timedelta, and return the time it is then."""
        passed_s = seconds(duration)
        if passed_s < 0:
            raise InvalidOption("duration", duration, "no negative one: jobs do not go back")
        self._now += timedelta(seconds=passed_s)
        self._monotonic += passed_s
        return self._now
