"""Schedules of periodic jobs."""

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens import CRON, CRON_IN_ZONES, CRON_INVALID
from riverrun import Cron, Interval
from riverrun.errors import InvalidOption
from riverrun.policies.schedule import described

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)  # a Sunday


def utc(text: str) -> datetime:
    """Return the time of `text`, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Often:
    """A schedule of an application's own."""

    def __call__(self, after: datetime) -> datetime:
        """Return the next run."""
        return after + timedelta(seconds=1)


@pytest.mark.parametrize("every", [10, timedelta(seconds=10)])
def test_an_interval_is_added(every: float | timedelta) -> None:
    """Each run is one interval after the previous one."""
    assert Interval(every)(T0) == T0 + timedelta(seconds=10)


@pytest.mark.parametrize("every", [0, -1, float("nan"), "10", None])
def test_an_interval_that_leads_nowhere_is_refused(every: object) -> None:
    """An interval is a positive time."""
    with pytest.raises(InvalidOption):
        Interval(every)  # type: ignore[arg-type]


# By the rules of robfig's parser, which River's users use.
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", "2026-03-01T12:01:00"),
        ("30 3 * * *", "2026-03-02T03:30:00"),
        ("@hourly", "2026-03-01T13:00:00"),
        ("@daily", "2026-03-02T00:00:00"),
        ("@midnight", "2026-03-02T00:00:00"),
        ("@weekly", "2026-03-08T00:00:00"),
        ("@monthly", "2026-04-01T00:00:00"),
        ("@yearly", "2027-01-01T00:00:00"),
        ("@annually", "2027-01-01T00:00:00"),
        ("@every 1h30m", "2026-03-01T13:30:00"),
        ("@every 1.5s", "2026-03-01T12:00:01"),
        ("@every 10ms", "2026-03-01T12:00:01"),
        ("0 9 * * mon-fri", "2026-03-02T09:00:00"),
        ("0 9 ? JAN,dec ?", "2026-12-01T09:00:00"),
        ("0 0 13 * 5", "2026-03-06T00:00:00"),  # both days restricted: either
        ("0 0 */2 * 1", "2026-03-02T00:00:00"),  # a step restricts: the 2nd is a Monday
        ("0 0 */1 * 1", "2026-03-02T00:00:00"),
        ("0 0 13 * */2", "2026-03-03T00:00:00"),  # Tuesday, by the weekday
        ("0 0 13 * *", "2026-03-13T00:00:00"),
        ("0 0 13 * */7", "2026-03-08T00:00:00"),  # Sunday
        ("0 0 5,* * 1", "2026-03-02T00:00:00"),  # a star among others is a star
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", "2026-03-02T00:00:00"),
        ("TZ=America/New_York 0 9 * * *", "2026-03-01T14:00:00"),
    ],
)
def test_an_expression_has_its_next_time(expression: str, expected: str) -> None:
    """Cron expressions mean the same as for River."""
    assert Cron(expression)(T0) == utc(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "* * * * 5-7",
        "5-1 * * * *",
        "*/0 * * * *",
        "x * * * *",
        "@never",
        "@every",
        "@every 1x",
        "@every " + "9" * 400 + "h",
        "0 0 30 2 *",
        "0 0 L * *",
        "0 0 * * 1#2",
        " CRON_TZ=UTC 0 0 * * *",
        ", * * * *",
        "CRON_TZ=Nowhere/Land * * * * *",
        "* * * * *\x00",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    """An expression that cannot be parsed, or is never due, is refused when it is made."""
    with pytest.raises(InvalidOption):
        Cron(expression)


@pytest.mark.parametrize("zone", ["Nowhere/Land", "", "../etc/passwd", 3])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    """A zone is one that the system knows."""
    with pytest.raises(InvalidOption):
        Cron("* * * * *", tz=zone)


@pytest.mark.parametrize("name", [*CRON, *CRON_IN_ZONES])
def test_times_are_those_of_the_golden_data(name: str) -> None:
    """Each of River's golden expressions has its times, also where clocks are changed."""
    expression, reference, expected = {**CRON, **CRON_IN_ZONES}[name]
    after = datetime.fromisoformat(reference)
    if not expected:
        with pytest.raises(InvalidOption, match="a time that ever comes"):
            Cron(expression, tz=after.tzinfo)
        return
    cron, times = Cron(expression, tz=after.tzinfo), []
    for _ in expected:
        after = cron(after)
        times.append(after)
    assert times == [datetime.fromisoformat(text) for text in expected]


@pytest.mark.parametrize("expression", CRON_INVALID)
def test_what_the_golden_data_refuses_is_refused(expression: str) -> None:
    """Expressions that River's parser refuses are refused."""
    with pytest.raises(InvalidOption):
        Cron(expression)


@given(
    at=st.datetimes(
        min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC)
    ),
    minute=st.sampled_from(["*", "0", "30", "*/7", "5-10"]),
    hour=st.sampled_from(["*", "2", "*/2", "1-3"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_time_goes_on(at: datetime, minute: str, hour: str, zone: str) -> None:
    """The next run is always later than the last one, also when clocks change."""
    cron = Cron(f"{minute} {hour} * * *", tz=zone)
    for _ in range(5):
        following = cron(at)
        assert following > at
        at = following


def test_schedules_compare_by_what_they_say() -> None:
    """Two schedules with the same text are equal."""
    assert Cron("@daily") == Cron("@daily") != Cron("@hourly")
    assert pickle.loads(pickle.dumps(Interval(3))) == Interval(3)


@pytest.mark.parametrize(
    ("schedule", "text", "zone"),
    [
        (Interval(0.5), "every 0.5 s", None),
        (Interval(90), "every 90 s", None),
        (Interval(300), "every 5 min", None),
        (Interval(timedelta(hours=36)), "every 36 h", None),
        (Interval(timedelta(days=7)), "every 7 d", None),
        (Cron("30 3 * * MON"), "30 3 * * MON", "UTC"),
        (Cron("@daily", tz="Europe/Berlin"), "@daily", "Europe/Berlin"),
        (Cron("CRON_TZ=Asia/Tokyo 0 9 * * *", tz="Europe/Berlin"), "0 9 * * *", "Asia/Tokyo"),
        (Cron("@every 1h30m"), "@every 1h30m", None),
        (Cron("0 0 * * *", tz=timezone(timedelta(hours=2))), "0 0 * * *", "UTC+02:00"),
        (utc, "utc", None),
        (Often(), "Often", None),
    ],
)
def test_a_schedule_as_text(schedule: Any, text: str, zone: str | None) -> None:
    """A schedule can be shown with its time zone; one of the application's by its name."""
    assert described(schedule) == (text, zone)


@pytest.mark.parametrize(
    "schedule",
    [Cron("30 3 * * *", tz="Europe/Berlin"), Cron("CRON_TZ=UTC @every 1h30m"), Interval(60)],
    ids=str,
)
def test_a_copy_runs_at_the_same_times(schedule: Any) -> None:
    """A schedule can be pickled and copied, and the copy equals it."""
    after = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    for copied in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert copied == schedule
        assert copied(after) == schedule(after)
