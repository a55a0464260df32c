"""What periodic jobs and their collection promise, without a database."""

from datetime import UTC, datetime, timedelta

import pytest

from riverrun import Interval, Missed, PeriodicJob
from riverrun.errors import InvalidOption
from riverrun.periodic_jobs import EACH_MAX, PeriodicJobs

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTES = timedelta(minutes=1)


def nothing() -> None:
    """Construct nothing."""


def job(**changes: object) -> PeriodicJob:
    """Return a job of every ten minutes."""
    return PeriodicJob(Interval(600), nothing, **{"id": "report", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("missed", list(Missed))
def test_a_run_in_time_happens_once(missed: Missed) -> None:
    """A run that is a little late is no missed one."""
    assert job(missed=missed).due(T0, T0 + MINUTES) == ([T0], T0 + 10 * MINUTES)


@pytest.mark.parametrize("missed", list(Missed))
def test_before_its_time_nothing_happens(missed: Missed) -> None:
    """A run to come stays as it is planned."""
    assert job(missed=missed).due(T0 + MINUTES, T0) == ([], T0 + MINUTES)


def test_missed_runs_are_left_out_or_made_up_for() -> None:
    """After 25 minutes without a leader: nothing, one run, or three."""
    now = T0 + 25 * MINUTES
    assert job().due(T0, now) == ([], now + 10 * MINUTES)
    assert job(missed="once").due(T0, now) == ([T0], now + 10 * MINUTES)
    runs = [T0, T0 + 10 * MINUTES, T0 + 20 * MINUTES]
    assert job(missed="each").due(T0, now) == (runs, T0 + 30 * MINUTES)


def test_a_long_time_is_made_up_for_in_parts() -> None:
    """However much was missed, one transaction inserts a bounded number of jobs."""
    each = PeriodicJob(Interval(1), nothing, id="report", missed=Missed.each)
    runs, following = each.due(T0, T0 + timedelta(days=30))
    assert len(runs) == EACH_MAX
    assert following == T0 + timedelta(seconds=EACH_MAX)


def test_short_intervals_do_not_pile_up() -> None:
    """What recurs each second runs once after 30 s without a leader, unless each was asked for."""
    short = PeriodicJob(Interval(1), nothing, id="tick")
    now = T0 + timedelta(seconds=30)
    assert short.due(T0, now) == ([T0], now + timedelta(seconds=1))


@pytest.mark.parametrize(
    "changes",
    [{"id": ""}, {"id": "a b"}, {"id": "x" * 128}, {"id": None, "missed": "each"}],
)
def test_what_cannot_be_kept_is_refused(changes: dict[str, object]) -> None:
    """An id follows the rules for kinds; without one nothing can be caught up."""
    with pytest.raises(InvalidOption):
        job(**changes)


@pytest.mark.parametrize("returned", [None, T0, T0.replace(tzinfo=None), "soon"])
def test_a_schedule_must_go_on(returned: object) -> None:
    """A schedule that returns no later, aware time is refused with that reason."""
    standing = PeriodicJob(lambda _: returned, nothing)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidOption, match="schedule"):
        standing.after(T0)


def test_jobs_come_and_go_by_handle_and_id() -> None:
    """Jobs are added all or none, and removed by handle or id."""
    jobs = PeriodicJobs([job()])
    jobs.changed.clear()
    handle = jobs.add(PeriodicJob(Interval(1), nothing))
    assert jobs.changed.is_set()
    with pytest.raises(InvalidOption, match="report"):
        jobs.add_many([PeriodicJob(Interval(1), nothing), job()])
    assert len(jobs) == 2
    jobs.remove(handle)
    jobs.remove(handle)
    assert [each.id for each in jobs] == ["report"]
    assert jobs.remove_by_id("report")
    assert not jobs.remove_by_id("report")
    jobs.add(job())
    jobs.clear()
    assert len(jobs) == 0
    with pytest.raises(InvalidOption, match="PeriodicJob"):
        jobs.add("report")  # type: ignore[arg-type]
