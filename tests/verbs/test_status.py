"""What runs where, and what has finished when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from factories import T0, insert_job
from riverrun.errors import InvalidOption
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.migrations import migrate
from riverrun.verbs import RunningOn, finished_by_time, running_on
from verbs.joins import KINDS, opened
from verbs.test_odd_rows import ODD, change


def test_finished_jobs_by_time(engine: Engine, schema: str) -> None:
    """Jobs are counted by state in the step in which they ended, the earliest step first."""
    with engine.connect() as connection:
        now = connection.execute(text("SELECT now()")).scalar_one()
    step_s = 100
    start = datetime.fromtimestamp((now.timestamp() // step_s - 3) * step_s, UTC)
    ends = {
        JobState.completed: [0, 1, 99.9, 100, 250],
        JobState.discarded: [100],
        JobState.cancelled: [99.9],
    }
    for state, seconds in ends.items():
        for after in seconds:
            insert_job(engine, schema, state=state, finalized_at=start + timedelta(seconds=after))
        # Too early, and not yet.
        insert_job(engine, schema, state=state, finalized_at=start - timedelta(days=1))
        insert_job(engine, schema, state=state, finalized_at=now + timedelta(days=1))
    found = finished_by_time(engine, window_s=50_000, step_s=step_s, schema=schema)
    assert [((each.at - start).total_seconds(), each.state, each.count) for each in found] == [
        (0, JobState.cancelled, 1),
        (0, JobState.completed, 3),
        (100, JobState.completed, 1),
        (100, JobState.discarded, 1),
        (200, JobState.completed, 1),
    ]
    few = finished_by_time(engine, window_s=50_000, step_s=step_s, most=2, schema=schema)
    assert {each.state: each.count for each in few if each.at > start} == {
        JobState.completed: 1,
        JobState.discarded: 1,
    }
    assert sum(each.count for each in few) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_runs_or_has_finished(engine: Engine, schema: str, kind: str) -> None:
    """Without such jobs there are no counts, on any kind of transaction."""
    with opened(kind, engine) as where:
        assert finished_by_time(where, schema=schema) == []
        assert running_on(where, schema=schema) == []


def test_finished_at_odd_times(engine: Engine, schema: str) -> None:
    """A job that ended at no time of a calendar is not counted, and hides no other."""
    for at in ("infinity", "-infinity", "4000-01-01 BC", "20000-01-01"):
        job_id = insert_job(engine, schema, state=JobState.completed)
        change(engine, schema, f"finalized_at = '{at}'", [job_id])
    job_id = insert_job(engine, schema, state=JobState.completed)
    change(engine, schema, "finalized_at = now()", [job_id])
    found = finished_by_time(engine, window_s=1e300, step_s=1e300, schema=schema)
    assert [each.count for each in found] == [1]


@pytest.mark.parametrize(
    "params",
    [
        {"window_s": 0},
        {"window_s": float("nan")},
        {"window_s": "15"},
        {"step_s": -1},
        {"step_s": True},
        {"most": 0},
    ],
    ids=str,
)
def test_refuses_odd_windows(engine: Engine, schema: str, params: dict[str, Any]) -> None:
    """A window, step or limit out of range is refused."""
    with pytest.raises(InvalidOption, match=next(iter(params))):
        finished_by_time(engine, **params, schema=schema)


def test_what_runs_where(engine: Engine, schema: str) -> None:
    """Running jobs are counted by the client that claimed them last, by kind and by queue."""
    running = {"state": JobState.running}
    for minutes in (5, 9, 2):
        at = T0 + timedelta(minutes=minutes)
        insert_job(engine, schema, attempted_by=["gone", "one"], attempted_at=at, **running)
    insert_job(engine, schema, attempted_by=["one"], kind="bill", queue="mail", **running)
    insert_job(engine, schema, attempted_by=["one", "two"], **running)
    insert_job(engine, schema, attempted_by=None, attempted_at=None, **running)
    for state in FINAL_STATES | {JobState.available, JobState.retryable, JobState.scheduled}:
        insert_job(engine, schema, attempted_by=["one"], state=state)
    found = running_on(engine, schema=schema)
    assert [(each.client_id, each.kind, each.queue, each.count) for each in found] == [
        ("one", "bill", "mail", 1),
        ("one", "greet", "default", 3),
        ("two", "greet", "default", 1),
        (None, "greet", "default", 1),
    ]
    assert found[1].oldest_at == T0 + timedelta(minutes=2)
    assert found[1].age_s == pytest.approx(
        (datetime.now(UTC) - T0 - timedelta(minutes=2)).total_seconds(), abs=60
    )
    assert found[3] == RunningOn(
        client_id=None, kind="greet", queue="default", count=1, oldest_at=None, age_s=None
    )


def test_odd_rows_run(engine: Engine, schema: str) -> None:
    """Rows that no client writes are counted among the running jobs."""
    jobs = {name: insert_job(engine, schema, state=JobState.running) for name in ("none", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    for at in ("infinity", "-infinity", "4000-01-01 BC"):
        jobs[at] = insert_job(engine, schema, state=JobState.running, kind="odd")
        change(engine, schema, f"attempted_at = '{at}'", [jobs[at]])
        assert sum(each.count for each in running_on(engine, schema=schema)) == len(jobs)


def test_states_of_a_later_river(empty_database: Engine) -> None:
    """A job in a state that only a later River knows is neither running nor finished."""
    migrate(empty_database)
    frozen = insert_job(empty_database, state=JobState.running)
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {frozen}"))
    assert running_on(empty_database) == []
    assert finished_by_time(empty_database, window_s=1e9) == []
