"""The kinds of jobs: their names, times and failures."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from factories import T0, insert_job
from riverrun.errors import InvalidOption
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.verbs import kind_stats, list_kinds
from verbs.joins import KINDS, opened
from verbs.test_odd_rows import ODD, change


def ended(engine: Engine, schema: str | None, run_s: float, wait_s: float, **changes: Any) -> int:
    """Insert a job that waited and ran for so many seconds, and ended at T0."""
    began = T0 - timedelta(seconds=run_s)
    values: dict[str, Any] = {
        "state": JobState.completed,
        "attempt": 1,
        "scheduled_at": began - timedelta(seconds=wait_s),
        "attempted_at": began,
        "finalized_at": T0,
    }
    return insert_job(engine, schema, **{**values, **changes})


def test_figures_of_each_kind(engine: Engine, schema: str) -> None:
    """A kind has its times, its failures and its attempts; other kinds have their own."""
    for number in range(1, 6):
        ended(engine, schema, run_s=number, wait_s=10 * number, attempt=1 + number // 4)
    bill: dict[str, Any] = {"kind": "bill"}
    ended(engine, schema, 4, 2, state=JobState.discarded, attempt=25, **bill)
    ended(engine, schema, 9, 9, state=JobState.cancelled, attempt=0, **bill)
    insert_job(engine, schema, state=JobState.retryable, attempt=3, attempted_at=T0, **bill)
    for state in set(JobState) - {JobState.retryable}:
        if not state.is_final:
            insert_job(engine, schema, kind="waiting", state=state)
    greet, billed = kind_stats(engine, schema=schema)
    assert (greet.kind, greet.count, greet.failed) == ("greet", 5, 0)
    assert (greet.run_p50_s, greet.wait_p50_s) == (3, 30)
    assert (greet.run_p95_s, greet.wait_p95_s) == (pytest.approx(4.8), pytest.approx(48))
    assert greet.attempts == {1: 3, 2: 2}
    assert (billed.kind, billed.count, billed.failed) == ("bill", 3, 2)
    assert (billed.run_p50_s, billed.run_p95_s, billed.wait_p50_s) == (4, 4, 2)
    assert billed.attempts == {0: 1, 3: 1, 25: 1}


def test_the_last_jobs_of_all_states(engine: Engine, schema: str) -> None:
    """The window has the last jobs, whatever state they ended in."""
    states = [JobState.completed, JobState.discarded, JobState.cancelled, JobState.retryable]
    for number, state in enumerate(states):
        at = T0 + timedelta(minutes=number)
        final = {"finalized_at": at} if state.is_final else {}
        insert_job(engine, schema, kind=state.value, state=state, attempted_at=at, **final)
    for window in range(1, 5):
        kinds = {each.kind for each in kind_stats(engine, window=window, schema=schema)}
        assert kinds == {state.value for state in states[-window:]}


def test_clocks_that_were_changed(engine: Engine, schema: str) -> None:
    """A job that ended before it began ran for no time, and one without an attempt has no time."""
    ended(engine, schema, -5, -5)
    ended(engine, schema, 0, 0, kind="never", attempted_at=None)
    greet, never = sorted(kind_stats(engine, schema=schema), key=lambda each: each.kind)
    assert (greet.run_p50_s, greet.wait_p95_s) == (0, 0)
    assert (never.run_p50_s, never.run_p95_s, never.wait_p50_s, never.wait_p95_s) == (None,) * 4


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_ended(engine: Engine, schema: str, kind: str) -> None:
    """Without jobs there are no kinds, on any kind of transaction."""
    with opened(kind, engine) as where:
        assert kind_stats(where, schema=schema) == []
        assert list_kinds(where, schema=schema) == []


@pytest.mark.parametrize("state", ["completed", "discarded", "retryable"])
def test_odd_rows_have_figures(engine: Engine, schema: str, state: str) -> None:
    """Rows that no client writes are among the figures."""
    jobs = {name: ended(engine, schema, 1, 1) for name in ("nothing", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    for at in ("infinity", "-infinity", "4000-01-01 BC", "20000-01-01"):
        for column in ("scheduled_at", "attempted_at", "finalized_at"):
            job_id = ended(engine, schema, 1, 1)
            change(engine, schema, f"{column} = '{at}'", [job_id])
            jobs[f"{column} {at}"] = job_id
    no_end = ", finalized_at = NULL" if state == "retryable" else ""
    change(engine, schema, f"state = '{state}'{no_end}", list(jobs.values()))
    found = {each.kind: each for each in kind_stats(engine, schema=schema)}
    assert sum(each.count for each in found.values()) == len(jobs)
    assert sum(sum(each.attempts.values()) for each in found.values()) == len(jobs)
    assert set(list_kinds(engine, schema=schema)) == set(found) == {"greet", "a\nb \u2028"}


def test_kinds_by_name(engine: Engine, schema: str) -> None:
    """Each kind is listed once, in order, up to a limit, with jobs in whatever states."""
    names = ["b", "a", "B", "c%s", "'; --", "\N{SNOWMAN}", "a"]
    for name, state in zip(names, JobState, strict=False):
        insert_job(engine, schema, kind=name, state=state)
    kinds = list_kinds(engine, schema=schema)
    assert sorted(kinds) == sorted(set(names))
    assert len(kinds) == len(set(names))
    assert list_kinds(engine, limit=3, schema=schema) == kinds[:3]


def test_states_of_a_later_river(empty_database: Engine) -> None:
    """A job in a state that only a later River knows has no figures, but its kind is listed."""
    migrate(empty_database)
    frozen = insert_job(empty_database, kind="frozen")
    ended(empty_database, None, 1, 1)
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {frozen}"))
    assert [each.kind for each in kind_stats(empty_database)] == ["greet"]
    assert list_kinds(empty_database) == ["frozen", "greet"]


@pytest.mark.parametrize("value", [0, -1, 100_001, True, "5", datetime.now(UTC)])
def test_refuses_odd_limits(engine: Engine, schema: str, value: Any) -> None:
    """A window or limit out of range is refused."""
    with pytest.raises(InvalidOption, match="window"):
        kind_stats(engine, window=value, schema=schema)
    with pytest.raises(InvalidOption, match="limit"):
        list_kinds(engine, limit=value, schema=schema)
