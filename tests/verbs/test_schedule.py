"""Schedule: due jobs become available, and those that are duplicates by then are discarded."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, select

from factories import insert_job
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.policies.uniqueness import REQUIRED_STATES
from riverrun.verbs import get
from riverrun.verbs.schedule import Scheduled, schedule
from verbs.joins import JOINED, KINDS, commit, listening, opened

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DUE = NOW - timedelta(minutes=1)
WAITING = ("retryable", "scheduled")
# Retryable jobs do not hold their key here, so several may wait with the same one.
UNIQUE: dict[str, Any] = {"unique_key": b"key", "unique_states": REQUIRED_STATES}


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("kind", KINDS)
def test_makes_due_jobs_available(engine: Engine, schema: str, kind: str, state: str) -> None:
    """A job that is due is available, and nothing else of it changes."""
    job_id = insert_job(engine, schema, state=state, scheduled_at=DUE, metadata_={"kept": 1})
    before = get(engine, job_id, schema=schema)
    with opened(kind, engine) as where:
        done = schedule(where, schema=schema, now=NOW)
        commit(where)
    assert done == Scheduled(available=1, discarded=0)
    available = attrs.evolve(before, state=JobState.available)
    assert get(engine, job_id, schema=schema) == available


@pytest.mark.parametrize("kind", JOINED)
def test_is_the_callers_transaction(engine: Engine, schema: str, kind: str) -> None:
    """The caller's rollback undoes what was scheduled."""
    job_id = insert_job(engine, schema, state="scheduled", scheduled_at=DUE)
    with opened(kind, engine) as where:
        schedule(where, schema=schema, now=NOW)
        where.rollback()
    assert get(engine, job_id, schema=schema).state is JobState.scheduled


@pytest.mark.parametrize(("ahead_s", "moved"), [(0, 1), (4.999, 1), (5, 1), (5.001, 0), (60, 0)])
@pytest.mark.parametrize("state", WAITING)
def test_looks_five_seconds_ahead(
    engine: Engine, schema: str, state: str, ahead_s: float, moved: int
) -> None:
    """A job due within 5 s is available already, its time kept; one due later waits."""
    at = NOW + timedelta(seconds=ahead_s)
    job_id = insert_job(engine, schema, state=state, scheduled_at=at)
    assert schedule(engine, schema=schema, now=NOW).available == moved
    job = get(engine, job_id, schema=schema)
    assert (job.state, job.scheduled_at) == ("available" if moved else state, at)


def test_leaves_other_states(engine: Engine, schema: str) -> None:
    """Only retryable and scheduled jobs are moved."""
    for state in set(JobState) - set(WAITING):
        insert_job(engine, schema, state=state, scheduled_at=DUE)
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=0, discarded=0)


def test_moves_the_first_up_to_its_limit(engine: Engine, schema: str) -> None:
    """With too many due, those first in line are moved first."""
    places = [(2, DUE), (1, NOW), (1, DUE), (4, DUE)]
    ids = [
        insert_job(engine, schema, state="scheduled", priority=priority, scheduled_at=at)
        for priority, at in places
    ]
    assert schedule(engine, limit=2, schema=schema, now=NOW).available == 2
    states = [get(engine, job_id, schema=schema).state.value for job_id in ids]
    assert states == ["scheduled", "available", "available", "scheduled"]


def assert_discarded(engine: Engine, schema: str, job_id: int) -> None:
    """Fail unless the scheduler discarded the job, and recorded why."""
    job = get(engine, job_id, schema=schema)
    assert (job.state, job.finalized_at) == (JobState.discarded, NOW)
    assert job.metadata == {"unique_key_conflict": "scheduler_discarded"}


@pytest.mark.parametrize("holder_state", ["available", "pending", "running", "scheduled"])
def test_discards_what_another_holds(engine: Engine, schema: str, holder_state: str) -> None:
    """A job whose unique key another holds by now is discarded; the holder stays as it is."""
    later = NOW + timedelta(hours=1)
    holder = insert_job(engine, schema, state=holder_state, scheduled_at=later, **UNIQUE)
    late = insert_job(engine, schema, state="retryable", scheduled_at=DUE, **UNIQUE)
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=0, discarded=1)
    assert get(engine, holder, schema=schema).state == holder_state
    assert_discarded(engine, schema, late)


def test_moves_jobs_whose_locks_are_released(engine: Engine, schema: str) -> None:
    """A job with the same key, in a state outside of its mask, is no obstacle."""
    insert_job(engine, schema, state="completed", **UNIQUE)
    late = insert_job(engine, schema, state="retryable", scheduled_at=DUE, **UNIQUE)
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=1, discarded=0)
    assert get(engine, late, schema=schema).state is JobState.available


def test_of_two_in_a_batch_the_first_is_moved(engine: Engine, schema: str) -> None:
    """Of due jobs with one key the first in line is available, the others are discarded."""
    places = [(2, DUE), (1, NOW), (1, DUE), (1, DUE)]
    ids = [
        insert_job(engine, schema, state="retryable", priority=p, scheduled_at=at, **UNIQUE)
        for p, at in places
    ]
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=1, discarded=3)
    assert get(engine, ids[2], schema=schema).state is JobState.available
    for n in (0, 1, 3):
        assert_discarded(engine, schema, ids[n])


def test_a_holder_in_the_batch_wins(engine: Engine, schema: str) -> None:
    """A due job that holds its key is made available, though others come before it in line."""
    first = insert_job(engine, schema, state="retryable", scheduled_at=DUE, **UNIQUE)
    holder = insert_job(engine, schema, state="scheduled", scheduled_at=NOW, priority=4, **UNIQUE)
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=1, discarded=1)
    assert get(engine, holder, schema=schema).state is JobState.available
    assert_discarded(engine, schema, first)


def test_a_key_without_states_blocks_no_job(engine: Engine, schema: str) -> None:
    """Jobs with a key and no states, from before River's version 6, neither win nor lose."""
    old = insert_job(engine, schema, state="scheduled", scheduled_at=DUE, unique_key=b"key")
    holder = insert_job(engine, schema, state="scheduled", scheduled_at=NOW, **UNIQUE)
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=2, discarded=0)
    for job_id in (old, holder):
        assert get(engine, job_id, schema=schema).state is JobState.available


def test_discards_also_where_discarded_counts(engine: Engine, schema: str) -> None:
    """A duplicate whose mask counts discarded jobs too does not stop the scheduler."""
    unique = {"unique_key": b"key", "unique_states": REQUIRED_STATES | {JobState.discarded}}
    insert_job(engine, schema, state="running", **unique)
    late = insert_job(engine, schema, state="retryable", scheduled_at=DUE, **unique)
    other = insert_job(engine, schema, state="retryable", scheduled_at=DUE)
    assert schedule(engine, schema=schema, now=NOW) == Scheduled(available=1, discarded=1)
    assert_discarded(engine, schema, late)
    assert get(engine, other, schema=schema).state is JobState.available


def test_notifies_each_queue_once(engine: Engine, schema: str) -> None:
    """Queues with jobs due now are notified once, at commit; others are not."""
    for queue, at in [("b", DUE), ("b", DUE), ("a", NOW), ("late", NOW + timedelta(seconds=4))]:
        insert_job(engine, schema, state="scheduled", queue=queue, scheduled_at=at)
    insert_job(engine, schema, state="running", queue="held", **UNIQUE)
    insert_job(engine, schema, state="retryable", queue="held", scheduled_at=DUE, **UNIQUE)
    with listening(engine, f"{schema!s}.river_insert") as received:
        with engine.begin() as connection:
            schedule(connection, schema=schema, now=NOW)
            assert received() == []
        payloads = [json.loads(payload) for payload in received()]
        assert payloads == [{"queue": "a"}, {"queue": "b"}]
        schedule(engine, schema=schema, now=NOW)
        assert received() == []


def test_skips_what_is_locked(engine: Engine, schema: str) -> None:
    """A job that another transaction has locked is left for the next turn, without waiting."""
    ids = [insert_job(engine, schema, state="scheduled", scheduled_at=DUE) for _ in range(2)]
    with engine.connect() as other:
        other.execute(
            select(Job.id).where(Job.id == ids[0]).with_for_update(),
            execution_options={"schema_translate_map": {None: schema}},
        )
        assert schedule(engine, schema=schema, now=NOW).available == 1
    assert schedule(engine, schema=schema, now=NOW).available == 1
