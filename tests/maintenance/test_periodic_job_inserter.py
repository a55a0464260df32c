"""The leader inserts periodic jobs, turn by turn, by a clock that the tests move."""

import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from riverrun import InsertOpts, Interval, JobArgs, Missed, PeriodicJob, UniqueOpts
from riverrun.clock import Clock
from riverrun.jobs.states import JobState
from riverrun.maintenance.periodic_job_inserter import PeriodicJobInserter
from riverrun.models import Job
from riverrun.periodic_jobs import PeriodicJobs
from riverrun.verbs.periodic import list_periodic

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@attrs.frozen
class Report(JobArgs, kind="report"):
    name: str = "daily"


class Leaders:
    """Makes inserters as the leaders of one database, and reads what they inserted."""

    def __init__(self, engine: Engine, schema: str) -> None:
        self.engine = engine
        self.schema = schema

    def inserter(self, *jobs: PeriodicJob, leads: Any = lambda: True) -> PeriodicJobInserter:
        return PeriodicJobInserter(
            self.engine,
            jobs=PeriodicJobs(jobs),
            leadership=SimpleNamespace(leads=leads),
            plugins=(),
            max_attempts=7,
            schema=self.schema,
            clock=Clock(),
            rng=random.Random(1),
        )

    def rows(self) -> Sequence[Job]:
        options = {"schema_translate_map": {None: self.schema}}
        with Session(self.engine) as session:
            return session.scalars(select(Job).order_by(Job.id), execution_options=options).all()


@pytest.fixture
def leaders(engine: Engine, schema: str) -> Leaders:
    """Leaders of the test's schema."""
    return Leaders(engine, schema)


@pytest.mark.parametrize("job_id", [None, "report"])
def test_a_job_recurs(leaders: Leaders, job_id: str | None) -> None:
    """A run is inserted when it is due, available, with its planned time and River's marks."""
    inserter = leaders.inserter(PeriodicJob(Interval(MINUTE), Report, id=job_id))
    first = inserter.run_once(T0)
    assert (first.jobs, first.wait_s) == (0, 60.0)
    assert inserter.run_once(T0 + MINUTE / 2).wait_s == 30.0
    assert inserter.run_once(T0 + MINUTE + timedelta(seconds=2)).jobs == 1
    assert inserter.run_once(T0 + MINUTE + timedelta(seconds=3)).jobs == 0
    assert inserter.run_once(T0 + 2 * MINUTE).jobs == 1
    rows = leaders.rows()
    assert [row.scheduled_at for row in rows] == [T0 + MINUTE, T0 + 2 * MINUTE]
    marks = {"periodic": True} | ({"river:periodic_job_id": job_id} if job_id else {})
    for row in rows:
        assert (row.state, row.kind, row.max_attempts) == (JobState.available, "report", 7)
        assert row.metadata_ == marks


def test_the_next_leader_goes_on_where_the_last_one_ended(leaders: Leaders) -> None:
    """A run that was due while leaders changed happens once, and no earlier run is repeated."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report")
    leaders.inserter(job).run_once(T0)
    leaders.inserter(job).run_once(T0 + 9 * MINUTE)
    late = T0 + 10 * MINUTE + timedelta(seconds=20)
    assert leaders.inserter(job).run_once(late).jobs == 1
    assert leaders.inserter(job).run_once(late).jobs == 0
    [row] = list_periodic(leaders.engine, schema=leaders.schema)
    assert (row.id, row.next_run_at, row.last_run_at) == ("report", T0 + 20 * MINUTE, late)


@pytest.mark.parametrize(("missed", "count"), [("skip", 0), ("once", 1), ("each", 6)])
def test_runs_missed_by_all_are_treated_as_asked(leaders: Leaders, missed: str, count: int) -> None:
    """An hour without any leader."""
    job = PeriodicJob(Interval(10 * MINUTE), Report, id="report", missed=Missed(missed))
    leaders.inserter(job).run_once(T0)
    assert leaders.inserter(job).run_once(T0 + 61 * MINUTE).jobs == count


def test_a_schedule_that_became_more_frequent_counts_at_once(leaders: Leaders) -> None:
    """A release that shortens an interval does not wait for the old one to end."""
    leaders.inserter(PeriodicJob(Interval(3600), Report, id="report")).run_once(T0)
    often = leaders.inserter(PeriodicJob(Interval(60), Report, id="report"))
    assert often.run_once(T0).wait_s == 60.0
    assert often.run_once(T0 + MINUTE).jobs == 1


def test_two_that_both_believe_to_lead_insert_once(leaders: Leaders) -> None:
    """A leader that was paused without noticing repeats no run."""
    job = PeriodicJob(Interval(MINUTE), Report, id="report")
    one, other = leaders.inserter(job), leaders.inserter(job)
    one.run_once(T0)
    other.run_once(T0)
    now = T0 + MINUTE
    assert one.run_once(now).jobs + other.run_once(now).jobs == 1


def test_a_run_is_left_to_the_client_that_holds_it(leaders: Leaders) -> None:
    """While one leader's transaction is open, another one does not wait for it."""
    job = PeriodicJob(Interval(MINUTE), Report, id="report")
    one = leaders.inserter(job)
    one.run_once(T0)
    other = leaders.inserter(PeriodicJob(Interval(MINUTE), lambda: seen(), id="report"))
    other.run_once(T0)
    turns: list[int] = []

    def seen() -> Report:
        turns.append(one.run_once(T0 + MINUTE).jobs)
        return Report()

    assert other.run_once(T0 + MINUTE).jobs == 1
    assert turns == [0]


def test_a_term_that_ended_takes_its_turn_back(leaders: Leaders) -> None:
    """A run that is due when the term ends is left to the next leader."""
    answers = iter([True, True, True, False])
    inserter = leaders.inserter(PeriodicJob(Interval(MINUTE), Report), leads=lambda: next(answers))
    inserter.run_once(T0)
    assert inserter.run_once(T0 + MINUTE).jobs == 0
    assert leaders.rows() == []


def test_run_on_start_runs_with_each_leader(leaders: Leaders) -> None:
    """As River's: at once when a term begins, and then by the schedule."""
    job = PeriodicJob(Interval(MINUTE), Report, id="report", run_on_start=True)
    inserter = leaders.inserter(job)
    assert [inserter.run_once(T0).jobs, inserter.run_once(T0).jobs] == [1, 0]
    assert leaders.inserter(job).run_once(T0).jobs == 1


def test_a_constructor_decides_and_may_fail(
    leaders: Leaders, caplog: pytest.LogCaptureFixture
) -> None:
    """Options, no run, or an error: each concerns its own job only."""
    unique = InsertOpts(queue="reports", unique=UniqueOpts(by_args=True))
    inserter = leaders.inserter(
        PeriodicJob(Interval(MINUTE), lambda: (Report("a"), unique)),
        PeriodicJob(Interval(MINUTE), lambda: (Report("a"), unique)),
        PeriodicJob(Interval(MINUTE), lambda: None, id="none"),
        PeriodicJob(Interval(MINUTE), lambda: 1 / 0, id="broken"),
        PeriodicJob(Interval(MINUTE), lambda: (Report(), InsertOpts(scheduled_at=T0 + 9 * MINUTE))),
        PeriodicJob(Interval(MINUTE), sys.exit, id="exits"),
        PeriodicJob(lambda at: at, Report, id="standing"),
        PeriodicJob(lambda _: sys.exit(), Report, id="exiting"),
    )
    inserter.run_once(T0)
    assert "the schedule of the periodic job standing failed" in caplog.text
    assert "the schedule of the periodic job exiting failed" in caplog.text
    assert inserter.run_once(T0 + MINUTE).jobs == 2
    assert "skipped a run of the periodic job broken" in caplog.text
    assert "skipped a run of the periodic job exits" in caplog.text
    assert [(row.queue, row.state, row.scheduled_at) for row in leaders.rows()] == [
        ("reports", JobState.available, T0 + MINUTE),
        ("default", JobState.scheduled, T0 + 9 * MINUTE),
    ]
    assert inserter.run_once(T0 + MINUTE).jobs == 0


def test_application_code_that_exits_concerns_its_own_job_only(
    leaders: Leaders, caplog: pytest.LogCaptureFixture
) -> None:
    """A schedule or constructor that raises SystemExit keeps no other job from running."""
    inserter = leaders.inserter(
        PeriodicJob(Interval(MINUTE), lambda: sys.exit(1), id="constructor"),
        PeriodicJob(lambda _: sys.exit(1), Report, id="schedule"),
        PeriodicJob(Interval(MINUTE), Report),
    )
    inserter.run_once(T0)
    assert inserter.run_once(T0 + MINUTE).jobs == 1
    assert "skipped a run of the periodic job constructor" in caplog.text
    assert "the schedule of the periodic job schedule failed" in caplog.text


@pytest.mark.parametrize("job_id", [None, "report"])
def test_a_schedule_without_an_answer_loses_no_run_and_makes_none_up(
    leaders: Leaders, job_id: str | None
) -> None:
    """A run that is due happens though the next is unknown; that one happens once it is known."""
    answers = {T0: T0 + MINUTE, T0 + 3 * MINUTE: T0 + 5 * MINUTE}

    def schedule(after: datetime) -> datetime:
        if after in answers:
            return answers[after]
        raise ValueError("day is out of range for month")

    inserter = leaders.inserter(PeriodicJob(schedule, Report, id=job_id))
    assert inserter.run_once(T0).jobs == 0
    assert inserter.run_once(T0 + MINUTE).jobs == 1
    for minute in (2, 3, 4):
        assert inserter.run_once(T0 + minute * MINUTE).jobs == 0
    assert inserter.run_once(T0 + 5 * MINUTE).jobs == 1
    assert inserter.run_once(T0 + 99 * MINUTE).jobs == 0
    assert [row.scheduled_at for row in leaders.rows()] == [T0 + MINUTE, T0 + 5 * MINUTE]


def test_another_leader_asks_a_schedule_again(leaders: Leaders) -> None:
    """A job without a next run is planned by the next leader, if its schedule answers then."""

    def never(after: datetime) -> datetime:
        raise ValueError("no answer")

    leaders.inserter(PeriodicJob(Interval(MINUTE), Report, id="report")).run_once(T0)
    silent = leaders.inserter(PeriodicJob(never, Report, id="report"))
    assert silent.run_once(T0 + MINUTE).jobs == 1
    answering = leaders.inserter(PeriodicJob(Interval(MINUTE), Report, id="report"))
    assert answering.run_once(T0 + 2 * MINUTE).jobs == 0
    assert answering.run_once(T0 + 3 * MINUTE).jobs == 1


def test_runs_before_one_without_an_answer_are_made_up_for(leaders: Leaders) -> None:
    """With `missed=each` a schedule that fails in the middle loses none of the runs before."""

    def schedule(after: datetime) -> datetime:
        if after >= T0 + 3 * MINUTE:
            raise ValueError("no answer")
        return after + MINUTE

    inserter = leaders.inserter(PeriodicJob(schedule, Report, id="report", missed=Missed.each))
    inserter.run_once(T0)
    assert inserter.run_once(T0 + 9 * MINUTE).jobs == 3


def test_no_jobs_cost_no_statement(leaders: Leaders) -> None:
    """A client without periodic jobs, or without the lead, asks nothing of the database."""
    statements: list[str] = []
    note = lambda *args: statements.append(args[2])  # noqa: E731
    event.listen(leaders.engine, "before_cursor_execute", note)
    try:
        assert leaders.inserter().run_once().jobs == 0
        idle = leaders.inserter(PeriodicJob(Interval(1), Report), leads=lambda: False)
        assert idle.run_once().jobs == 0
    finally:
        event.remove(leaders.engine, "before_cursor_execute", note)
    assert statements == []


@attrs.frozen
class Refused(JobArgs, kind="refused"):
    """Args of a job that a trigger refuses."""


@pytest.mark.parametrize("action", ["RAISE EXCEPTION 'no';", "RETURN NULL;"])
@pytest.mark.parametrize("with_id", [True, False])
def test_a_job_that_cannot_be_inserted_keeps_no_other(
    leaders: Leaders, action: str, with_id: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The others run. The job's own run is made up for once it can be inserted."""
    schema = leaders.schema
    with leaders.engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {action} END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE INSERT ON {schema}.river_job FOR EACH ROW"
            f" WHEN (NEW.kind = 'refused') EXECUTE FUNCTION {schema}.refuse()"
        )
    ids = ("refused", "report") if with_id else (None, None)
    inserter = leaders.inserter(
        PeriodicJob(Interval(MINUTE), Refused(), id=ids[0]),
        PeriodicJob(Interval(MINUTE), Report(), id=ids[1]),
        PeriodicJob(Interval(MINUTE), Report()),
    )
    inserter.run_once(T0)
    assert inserter.run_once(T0 + MINUTE).jobs == 2
    assert inserter.run_once(T0 + MINUTE).wait_s == 60.0
    assert inserter.run_once(T0 + 2 * MINUTE).jobs == 2
    assert "periodic jobs not inserted, and left alone for 60 s: 1" in caplog.text
    with leaders.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER refuse ON {schema}.river_job")
    inserter._refused.clear()  # the time is over
    assert inserter.run_once(T0 + 2 * MINUTE).jobs == 1
    assert leaders.rows()[-1].kind == "refused"


def test_where_no_job_can_be_inserted_none_is_left_alone(leaders: Leaders) -> None:
    """An error for which no job is at fault is raised, and the turn is tried again soon."""
    with leaders.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {leaders.schema}.river_job ADD CHECK (kind = '')")
    jobs = [PeriodicJob(Interval(MINUTE), each()) for each in (Refused, Report)]
    inserter = leaders.inserter(*jobs)
    inserter.run_once(T0)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            inserter.run_once(T0 + MINUTE)
    with leaders.engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER TABLE {leaders.schema}.river_job DROP CONSTRAINT river_job_kind_check"
        )
    assert inserter.run_once(T0 + MINUTE).jobs == 2
