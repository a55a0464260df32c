"""When a periodic job recurs."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

import attrs
from cronsim import CronSim, CronSimError

from riverrun.clock import Duration, seconds
from riverrun.errors import InvalidOption
from riverrun.options import check_duration


class Schedule(Protocol):
    """Says when a periodic job runs next."""

    def __call__(self, after: datetime) -> datetime:
        """Return the first run after `after`, both aware."""


def _every(value: object) -> Duration:
    return timedelta(seconds=check_duration("every", value, 0.1))


@attrs.frozen
class Interval:
    """The same time between runs.

    Attributes:
        every: Seconds or a timedelta, at least 0.1 s.
    """

    every: Duration = attrs.field(converter=_every)

    def __call__(self, after: datetime) -> datetime:
        """Return `every` later than `after`."""
        return after + timedelta(seconds=seconds(self.every))


# Source: the documentation of github.com/robfig/cron, which River's users write theirs for.
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = 5
_DAY, _WEEKDAY = 2, 4
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


@attrs.frozen
class Cron:
    """Times by a cron expression, in a time zone.

    Five fields, names, `?`, `L`, `5#2`, and `@daily` and its like, `@every 1h30m`, `CRON_TZ=Zone`
    before it. If both days are restricted, either may match. When clocks are put forward, what was
    due in the hour that is not there runs right after it; when they are put back, a run at a fixed
    time happens once.

    Attributes:
        expression: Such as `"30 3 * * MON-FRI"`.
        tz: A time zone or its name; UTC unless said. One in the expression goes before it.

    Raises:
        InvalidOption: If the expression cannot be read, or has no time that ever comes.
    """

    expression: str
    tz: tzinfo | str = UTC
    _next: Schedule = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise InvalidOption("expression", self.expression, 'text such as "30 3 * * *"')
        zone, text = self.tz, self.expression.strip()
        if match := re.match(r"(?:CRON_)?TZ=(\S+)\s+", text):
            zone, text = match[1], text[match.end() :]
        object.__setattr__(self, "_next", self._parsed(text, _zone(zone)))
        self(datetime.now(UTC))

    def __call__(self, after: datetime) -> datetime:
        """Return the first time after `after`, in UTC."""
        return self._next(after)

    def _parsed(self, text: str, zone: tzinfo) -> Schedule:
        if text.startswith("@every"):
            return _whole_seconds(self.expression, text.removeprefix("@every").strip())
        fields = _NAMED.get(text, text).split()
        if len(fields) != _FIELDS:
            expected = "five fields, or @hourly, @daily, @weekly, @monthly, @yearly, @every 1h"
            raise InvalidOption("expression", self.expression, expected)
        fields = [_plain(field, place) for place, field in enumerate(fields)]
        if re.search(r"(?<![#/\d])7", fields[_WEEKDAY]):
            # cronsim's 7 is Sunday too; River's parser refuses it, and one line shall suit both.
            raise InvalidOption("expression", self.expression, "weekdays from 0, Sunday, to 6")
        plain = " ".join(fields)

        def following(after: datetime) -> datetime:
            local = after.astimezone(zone)
            try:
                times = CronSim(plain, local)
                # In the hour that comes twice cronsim may begin at its first.
                return next(at for at in times if at > after).astimezone(UTC)
            except (CronSimError, StopIteration) as error:
                problem = str(error) or "a time that ever comes"
                raise InvalidOption("expression", self.expression, problem) from None

        return following


def _whole_seconds(expression: str, text: str) -> Schedule:
    parts = _GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidOption("expression", expression, "@every with a duration such as 1h30m")
    try:
        every = timedelta(seconds=max(1, int(sum(float(n) * _UNITS_S[unit] for n, unit in parts))))
    except OverflowError:
        raise InvalidOption("expression", expression, "a shorter duration") from None
    return lambda after: after.replace(microsecond=0) + every


def _plain(field: str, place: int) -> str:
    """Return a field as cronsim reads it in the way that River's parser reads this one.

    There a field counts as restricted if it has a step, here unless it begins with a star.
    """
    terms = [re.sub(r"^\?", "*", term) for term in field.split(",")]
    if any(term in {"*", "*/1"} for term in terms):
        return "*"
    whole = {_DAY: "1-31", _WEEKDAY: "0-6"}.get(place)
    if whole is None:
        return ",".join(terms)
    return ",".join(re.sub(r"^\*", whole, term) for term in terms)


def _zone(zone: tzinfo | str) -> tzinfo:
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, TypeError, LookupError):
        expected = "a time zone such as Europe/Berlin; some systems need the package tzdata"
        raise InvalidOption("tz", zone, expected) from None
