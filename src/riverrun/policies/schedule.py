"""Schedules of periodic jobs: intervals and cron expressions."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from typing import Protocol
from zoneinfo import ZoneInfo

import attrs

from riverrun.clock import Duration, seconds
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_timedelta


class Schedule(Protocol):
    """A policy for when a periodic job runs next."""

    def __call__(self, after: datetime) -> datetime:
        """Return the first run after `after`, both aware."""


def _every(value: object) -> Duration:
    return check_timedelta("every", value, 0.1)


@attrs.frozen
class Interval:
    """A schedule with the same time between runs.

    Attributes:
        every: The time between runs, seconds or a timedelta; at least 0.1 s.
    """

    every: Duration = attrs.field(converter=_every)

    def __call__(self, after: datetime) -> datetime:
        """Return `after` plus `every`."""
        return after + timedelta(seconds=seconds(self.every))

    def __str__(self) -> str:
        every_s = seconds(self.every)
        for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
            if every_s % unit_s == 0:
                return f"every {every_s / unit_s:g} {unit}"
        return f"every {every_s:g} s"


# Source of the syntax and its rules: github.com/robfig/cron v3, ParseStandard and
# SpecSchedule.Next, which River's users use.
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Sequence[tuple[str, int, int, Sequence[str]]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _WEEKDAYS),
)
_YEARS = 5
"""Years to search ahead for a time before the expression is refused."""

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # the micro sign and the Greek letter: Go accepts both
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_GO_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_UNITS_NS)})")
_NUMBER = re.compile(r"\+?[0-9]+")


@attrs.frozen
class Cron:
    """A schedule by a cron expression in a time zone; its times equal River's to the second.

    The syntax: five fields, names of months and weekdays, `?`, `@daily` and the like,
    `@every 1h30m`, and `CRON_TZ=Zone` in front. Sunday is 0. If both the day of the month and the
    weekday are restricted, either may match. When clocks are put forward, a job due in the skipped
    hour does not run that day; when they are put back, a job due in the repeated hour runs twice.
    Where that matters, choose another hour, or UTC.

    Attributes:
        expression: The cron expression, such as `"30 3 * * MON-FRI"`.
        tz: A time zone or its name. Default: UTC. A zone in the expression overrides it.

    Raises:
        InvalidOption: If the expression cannot be parsed, or has no time within five years.
    """

    expression: str
    tz: tzinfo | str = UTC
    _next: Schedule = attrs.field(init=False, repr=False, eq=False)
    _text: str = attrs.field(init=False, repr=False, eq=False)
    _zone: str | None = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise InvalidOption("expression", self.expression, 'text such as "30 3 * * *"')
        zone, text = self.tz, self.expression
        if match := re.match(r"(?:CRON_)?TZ=(\S+) ", text):
            zone, text = match[1], text[match.end() :].strip()
        place = _zone(zone)
        object.__setattr__(self, "_next", self._parsed(text, place))
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "_zone", None if text.startswith("@every ") else str(place))
        self(datetime.now(UTC))

    def __call__(self, after: datetime) -> datetime:
        """Return the first time after `after`, in UTC.

        Raises:
            InvalidOption: If there is none within five years.
        """
        return self._next(after)

    def __reduce__(self) -> tuple[type["Cron"], tuple[str, tzinfo | str]]:
        # Only the expression is pickled, and parsed again: a function made from it cannot be
        # pickled.
        return Cron, (self.expression, self.tz)

    def _parsed(self, text: str, zone: tzinfo) -> Schedule:
        if text.startswith("@every "):
            return _whole_seconds(self.expression, text.removeprefix("@every "))
        words = _NAMED.get(text, text).split()
        if len(words) != len(_FIELDS):
            expected = "five fields, or @hourly, @daily, @weekly, @monthly, @yearly, @every 1h"
            raise InvalidOption("expression", self.expression, expected)
        fields = []
        for word, (name, low, high, names) in zip(words, _FIELDS, strict=True):
            try:
                fields.append(_field(word, low, high, names))
            except ValueError as problem:
                expected = f"as {name} not {word!r}: {problem}"
                raise InvalidOption("expression", self.expression, expected) from None
        times = _Times(*fields)

        def following(after: datetime) -> datetime:
            at = times.after(after, zone)
            if at is None:
                raise InvalidOption("expression", self.expression, "a time that ever comes")
            return at

        return following


def described(schedule: Schedule) -> tuple[str, str | None]:
    """Return a schedule's text and its time zone, to show them; None without a time zone.

    The text of a schedule that is not of this module is the name of its function or class.
    """
    if isinstance(schedule, Cron):
        return schedule._text, schedule._zone
    if isinstance(schedule, Interval):
        return str(schedule), None
    named = schedule if hasattr(schedule, "__qualname__") else type(schedule)
    return str(getattr(named, "__qualname__", "?")), None


@attrs.frozen
class _Field:
    """The values that a field of an expression allows.

    Attributes:
        values: The allowed values.
        star: Whether the field is unrestricted, such as `*`.
    """

    values: frozenset[int]
    star: bool


def _field(word: str, low: int, high: int, names: Sequence[str]) -> _Field:
    """Parse a field of an expression: ranges, separated by commas."""
    values: set[int] = set()
    stars = False
    for term in filter(None, word.split(",")):
        span, *steps = term.split("/")
        first, *lasts = span.split("-")
        star = first in {"*", "?"}
        if len(steps) > 1 or (len(lasts) > 1 and not star):
            raise ValueError("too many of / or -")
        start = low if star else _value(first, low, names)
        end = start
        if star or (steps and not lasts):
            end = high
        elif lasts:
            end = _value(lasts[0], low, names)
        step = _number(steps[0]) if steps else 1
        if not low <= start <= end <= high or step == 0:
            raise ValueError(f"it goes from {low} to {high}, forwards")
        values.update(range(start, end + 1, step))
        stars |= star and step == 1
    return _Field(frozenset(values), stars)


def _value(text: str, low: int, names: Sequence[str]) -> int:
    return names.index(text.lower()) + low if text.lower() in names else _number(text)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


@attrs.frozen
class _Times:
    """The five fields of an expression."""

    minute: _Field
    hour: _Field
    day: _Field
    month: _Field
    weekday: _Field

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the first time after `moment`, in UTC; None if there is none in five years.

        From the month down, each field is advanced until it matches. When a field wraps around, the
        fields above it are checked again. Clock changes have the same effect on this search as on
        Go's.
        """
        at = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        last, moved = at.astimezone(zone).year + _YEARS, False
        while (local := at.astimezone(zone)).year <= last:
            if local.month not in self.month.values:
                year, month = divmod(local.year * 12 + local.month, 12)
                at, moved = _moment(zone, datetime(year, month + 1, 1)), True  # noqa: DTZ001
                continue
            if not self._on(local):
                at, moved = _next_day(at, zone, midnight=not moved), True
                continue
            if local.hour not in self.hour.values and not moved:
                at, moved = _moment(zone, local.replace(minute=0, second=0)), True
            at, wrapped, stepped = _step(at, zone, "hour", self.hour, timedelta(hours=1))
            moved |= stepped
            if wrapped:
                continue
            if at.astimezone(zone).minute not in self.minute.values and not moved:
                at = at.replace(second=0)
            at, wrapped, stepped = _step(at, zone, "minute", self.minute, timedelta(minutes=1))
            moved |= stepped
            if wrapped:
                continue
            if at.second == 0:
                return at
            at, moved = at.replace(second=0) + timedelta(minutes=1), True
        return None

    def _on(self, local: datetime) -> bool:
        day = local.day in self.day.values
        weekday = local.isoweekday() % 7 in self.weekday.values
        return (day and weekday) if self.day.star or self.weekday.star else (day or weekday)


def _step(
    at: datetime, zone: tzinfo, name: str, field: _Field, step: timedelta
) -> tuple[datetime, bool, bool]:
    """Advance `at` until `field` matches or wraps around to 0.

    Returns:
        The new time, whether the field wrapped around, and whether the time moved.
    """
    start = at
    while getattr(at.astimezone(zone), name) not in field.values:
        at += step
        if getattr(at.astimezone(zone), name) == 0:
            return at, True, True
    return at, False, at != start


def _next_day(at: datetime, zone: tzinfo, *, midnight: bool) -> datetime:
    local = at.astimezone(zone)
    if midnight:
        local = _moment(zone, local.replace(hour=0, minute=0, second=0)).astimezone(zone)
    at = _moment(zone, local + timedelta(days=1))
    # If clocks skip midnight, Go's date arithmetic lands an hour before or after it.
    if hour := at.astimezone(zone).hour:
        at += timedelta(hours=24 - hour if hour > 12 else -hour)
    return at


def _moment(zone: tzinfo, local: datetime) -> datetime:
    """Return a local time in UTC; if it is skipped or repeated, the time that Go chooses."""
    as_utc = local.replace(tzinfo=UTC)
    offset = as_utc.astimezone(zone).utcoffset() or timedelta(0)
    return as_utc - ((as_utc - offset).astimezone(zone).utcoffset() or timedelta(0))


def _whole_seconds(expression: str, text: str) -> Schedule:
    parts = _GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidOption("expression", expression, "@every with a duration such as 1h30m")
    try:
        every_s = int(sum(Fraction(number) * _UNITS_NS[unit] for number, unit in parts) // 10**9)
        every = timedelta(seconds=max(1, every_s))
    except OverflowError:
        raise InvalidOption("expression", expression, "a shorter duration") from None
    return lambda after: after.replace(microsecond=0) + every


def _zone(zone: tzinfo | str) -> tzinfo:
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, TypeError, LookupError):
        expected = "a time zone such as Europe/Berlin; some systems need the package tzdata"
        raise InvalidOption("tz", zone, expected) from None
