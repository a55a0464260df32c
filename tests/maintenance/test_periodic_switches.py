"""Periodic jobs are paused, resumed and run by request, turn by turn, by the tests' clock."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from maintenance.test_periodic_job_inserter import MINUTE, T0, Leaders, Report
from riverrun import Cron, InsertOpts, Interval, Missed, PeriodicJob
from riverrun.errors import PeriodicJobNotFound, SchemaMissing
from riverrun.migrations import migrate
from riverrun.verbs.periodic import (
    PeriodicRow,
    list_periodic,
    pause_periodic,
    resume_periodic,
    run_periodic_now,
)

SECOND = timedelta(seconds=1)
SWITCHES = [pause_periodic, resume_periodic, run_periodic_now]


@pytest.fixture
def leaders(engine: Engine, schema: str) -> Leaders:
    """Leaders of the test's schema."""
    return Leaders(engine, schema)


def row(leaders: Leaders, now: Any = None) -> PeriodicRow:
    """Return the only periodic job's row."""
    [found] = list_periodic(leaders.engine, schema=leaders.schema, now=now)
    return found


def switch(leaders: Leaders, verb: Any, now: Any) -> PeriodicRow:
    """Switch the periodic job `report`."""
    switched: PeriodicRow = verb(leaders.engine, "report", schema=leaders.schema, now=now)
    return switched


@pytest.mark.parametrize("missed", list(Missed))
def test_a_paused_job_is_skipped_and_goes_on(leaders: Leaders, missed: Missed) -> None:
    """While paused nothing runs, and a resume makes up for nothing, whatever `missed` says."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report", missed=missed)
    inserter = leaders.inserter(job)
    inserter.run_once(T0)
    assert switch(leaders, pause_periodic, T0 + MINUTE).paused_at == T0 + MINUTE
    assert switch(leaders, pause_periodic, T0 + 2 * MINUTE).paused_at == T0 + MINUTE
    assert inserter.run_once(T0 + 10 * MINUTE).jobs == 0
    assert row(leaders).next_run_at == T0 + 20 * MINUTE
    # Then nobody leads for an hour, in which it is resumed.
    resumed = switch(leaders, resume_periodic, T0 + 65 * MINUTE)
    assert resumed.paused_at is None
    assert leaders.inserter(job).run_once(T0 + 66 * MINUTE).jobs == 0
    at = row(leaders).next_run_at
    assert leaders.inserter(job).run_once(at).jobs == 1


def test_runs_missed_after_a_resume_are_made_up_for(leaders: Leaders) -> None:
    """What came due after the resume counts as ever."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report", missed=Missed.each)
    leaders.inserter(job).run_once(T0)
    switch(leaders, pause_periodic, T0)
    switch(leaders, resume_periodic, T0 + 15 * MINUTE)
    assert leaders.inserter(job).run_once(T0 + 41 * MINUTE).jobs == 3  # 20, 30 and 40
    assert [each.scheduled_at for each in leaders.rows()] == [
        T0 + minutes * MINUTE for minutes in (20, 30, 40)
    ]


def test_a_job_that_is_not_paused_is_not_resumed(leaders: Leaders) -> None:
    """A resume of a job that runs anyway loses no run that is due."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report")
    inserter = leaders.inserter(job)
    inserter.run_once(T0)
    switch(leaders, resume_periodic, T0 + 10 * MINUTE + SECOND)
    assert inserter.run_once(T0 + 10 * MINUTE + 2 * SECOND).jobs == 1


def test_a_paused_job_does_not_run_on_start(leaders: Leaders) -> None:
    """A new leader inserts no run on start of a paused job, and those of others."""
    jobs = [
        PeriodicJob(Interval(3600), Report, id=job_id, run_on_start=True)
        for job_id in ("report", "other", None)
    ]
    assert leaders.inserter(*jobs).run_once(T0).jobs == 3
    switch(leaders, pause_periodic, T0)
    assert leaders.inserter(*jobs).run_once(T0 + MINUTE).jobs == 2


@pytest.mark.parametrize("paused", [False, True])
def test_a_run_by_request(leaders: Leaders, paused: bool) -> None:
    """It is inserted once, at the leader's next look, paused or not, and no run moves."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report")
    inserter = leaders.inserter(job)
    inserter.run_once(T0)
    if paused:
        switch(leaders, pause_periodic, T0)
    asked = switch(leaders, run_periodic_now, T0 + MINUTE)
    assert (asked.run_now_at, asked.next_run_at) == (T0 + MINUTE, T0 + 10 * MINUTE)
    # A second request before the look is the same one.
    assert switch(leaders, run_periodic_now, T0 + 2 * MINUTE).run_now_at == T0 + MINUTE
    now = T0 + 3 * MINUTE
    assert inserter.run_once(now).jobs == 1
    assert inserter.run_once(now + SECOND).jobs == 0
    after = row(leaders)
    assert (after.run_now_at, after.next_run_at, after.last_run_at) == (None, T0 + 10 * MINUTE, now)
    [made] = leaders.rows()
    assert made.scheduled_at == now
    assert made.metadata_ == {"periodic": True, "river:periodic_job_id": "report"}
    assert inserter.run_once(T0 + 10 * MINUTE).jobs == (0 if paused else 1)


def test_a_request_beside_a_due_run(leaders: Leaders) -> None:
    """A run that is due and one by request are two, and the schedule goes on."""
    inserter = leaders.inserter(PeriodicJob(Interval(10 * MINUTE), Report, id="report"))
    inserter.run_once(T0)
    switch(leaders, run_periodic_now, T0 + 9 * MINUTE)
    assert inserter.run_once(T0 + 10 * MINUTE).jobs == 2
    assert row(leaders).next_run_at == T0 + 20 * MINUTE


def test_a_request_waits_for_a_leader_that_has_the_job(leaders: Leaders) -> None:
    """Another leader's look leaves the request, and two that believe to lead insert one job."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report")
    leaders.inserter(job).run_once(T0)
    switch(leaders, run_periodic_now, T0)
    other = PeriodicJob(Interval(10 * MINUTE), Report, id="other")
    assert leaders.inserter(other).run_once(T0 + MINUTE).jobs == 0
    late = [leaders.inserter(job).run_once(T0 + 2 * MINUTE).jobs for _ in range(2)]
    assert late == [1, 0]


def test_a_row_says_what_its_job_is(leaders: Leaders) -> None:
    """Schedule, zone, kind and queue are in the row; of a function they follow its first run."""

    def make() -> tuple[Report, InsertOpts]:
        return Report(), InsertOpts(queue="reports")

    jobs = [
        PeriodicJob(Cron("30 3 * * *", tz="Europe/Berlin"), Report(), id="constant"),
        PeriodicJob(Interval(10 * MINUTE), make, id="made"),
        PeriodicJob(lambda after: after + 10 * MINUTE, Report, id="lambda"),
    ]
    inserter = leaders.inserter(*jobs)
    inserter.run_once(T0)

    def found() -> list[tuple[Any, ...]]:
        rows = list_periodic(leaders.engine, schema=leaders.schema)
        return [(each.id, each.schedule, each.zone, each.kind, each.queue) for each in rows]

    constant = ("constant", "30 3 * * *", "Europe/Berlin", "report", "default")
    name = "test_a_row_says_what_its_job_is.<locals>.<lambda>"
    assert found() == [
        constant,
        ("lambda", name, None, None, None),
        ("made", "every 10 min", None, None, None),
    ]
    inserter.run_once(T0 + 10 * MINUTE)
    made = ("made", "every 10 min", None, "report", "reports")
    assert found() == [constant, ("lambda", name, None, "report", "default"), made]
    # A new release changes a schedule. What the next leader does not know yet stays.
    leaders.inserter(PeriodicJob(Interval(3600), make, id="made")).run_once(T0 + 11 * MINUTE)
    assert found()[2] == ("made", "every 1 h", None, "report", "reports")


def test_overdue(leaders: Leaders) -> None:
    """A job that should have run over 60 s ago is overdue, unless it is paused."""
    leaders.inserter(PeriodicJob(Interval(10 * MINUTE), Report, id="report")).run_once(T0)
    assert not row(leaders, T0 + 11 * MINUTE).overdue
    assert row(leaders, T0 + 11 * MINUTE + SECOND).overdue
    switch(leaders, pause_periodic, T0)
    assert not row(leaders, T0 + 11 * MINUTE + SECOND).overdue


@pytest.mark.parametrize("verb", SWITCHES)
@pytest.mark.parametrize("periodic_id", ["nowhere", "a\x00b", 7])
def test_a_job_that_is_not_there(leaders: Leaders, verb: Any, periodic_id: Any) -> None:
    """An unknown id is an error that names it."""
    with pytest.raises(PeriodicJobNotFound, match="periodic job"):
        verb(leaders.engine, periodic_id, schema=leaders.schema)


def test_at_version_2_runs_go_on_and_switches_say_what_to_do(leaders: Leaders) -> None:
    """Without version 3 jobs are listed and run; a switch names the command that adds it."""
    migrate(leaders.engine, line="riverrun", to=2, schema=leaders.schema)
    inserter = leaders.inserter(PeriodicJob(Interval(10 * MINUTE), Report(), id="report"))
    inserter.run_once(T0)
    assert inserter.run_once(T0 + 10 * MINUTE).jobs == 1
    assert row(leaders, T0) == PeriodicRow(
        id="report", next_run_at=T0 + 20 * MINUTE, last_run_at=T0 + 10 * MINUTE
    )
    for verb in SWITCHES:
        with pytest.raises(SchemaMissing, match="riverrun migrate up"):
            switch(leaders, verb, T0)


def test_a_version_that_goes_away_is_noticed(leaders: Leaders) -> None:
    """A leader whose version 3 is taken down fails once, and then goes on without it."""
    inserter = leaders.inserter(PeriodicJob(Interval(10 * MINUTE), Report(), id="report"))
    inserter.run_once(T0)
    migrate(leaders.engine, line="riverrun", to=2, schema=leaders.schema)
    with pytest.raises(SchemaMissing):
        inserter.run_once(T0 + 10 * MINUTE)
    inserter.failed()
    assert inserter.run_once(T0 + 10 * MINUTE).jobs == 1


def test_a_turn_costs_as_many_statements_as_before(engine: Engine, schema: str) -> None:
    """Once the rows say what their jobs are, a turn has no statement for the switches."""
    counts = {}
    for version in (3, 2):
        migrate(engine, line="riverrun", to=version, schema=schema)
        own = create_engine(engine.url)
        statements: list[str] = []
        event.listen(own, "before_cursor_execute", lambda *args, of=statements: of.append(args[2]))
        inserter = Leaders(own, schema).inserter(
            PeriodicJob(Interval(10 * MINUTE), Report(), id="report")
        )
        inserter.run_once(T0)
        statements.clear()
        inserter.run_once(T0 + MINUTE)
        counts[version] = len(statements)
        own.dispose()
    assert counts[3] == counts[2] == 2
