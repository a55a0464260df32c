"""Get, cancel and retry a job in any state."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine

from factories import T0, insert_job
from riverrun.errors import JobNotFound
from riverrun.jobs.states import JobState
from riverrun.verbs import cancel, get, retry
from verbs.joins import JOINED, KINDS, commit, listening, opened

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VERBS: list[Callable[..., Any]] = [get, cancel, retry]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_says_which_job_is_not_there(
    engine: Engine, schema: str, kind: str, verb: Callable[..., Any]
) -> None:
    """A job that does not exist raises an error with its id, and the transaction continues."""
    there = insert_job(engine, schema)
    with opened(kind, engine) as where:
        with pytest.raises(JobNotFound, match="4711"):
            verb(where, 4711, schema=schema)
        assert get(where, there, schema=schema).id == there


@pytest.mark.parametrize("verb", [cancel, retry])
@pytest.mark.parametrize("kind", JOINED)
def test_is_the_callers_transaction(
    engine: Engine, schema: str, kind: str, verb: Callable[..., Any]
) -> None:
    """A cancel or retry is undone by the caller's rollback, and kept by its commit."""
    job_id = insert_job(engine, schema, state="scheduled", scheduled_at=T0)
    before = get(engine, job_id, schema=schema)
    with opened(kind, engine) as where:
        verb(where, job_id, schema=schema)
        where.rollback()
        assert get(engine, job_id, schema=schema) == before
        changed = verb(where, job_id, schema=schema)
        commit(where)
    assert get(engine, job_id, schema=schema) == changed != before


@pytest.mark.parametrize("state", list(JobState))
def test_get(engine: Engine, schema: str, state: JobState) -> None:
    """A job is read as its row is, whatever its state."""
    job_id = insert_job(
        engine,
        schema,
        state=state,
        errors=[{"attempt": 1, "error": "no"}],
        tags=["one", "two"],
        metadata_={"a": {"b": [None]}},
        unique_key=b"\x00key",
        unique_states={JobState.available, JobState.scheduled},
    )
    job = get(engine, job_id, schema=schema)
    assert (job.id, job.state, job.tags) == (job_id, state, ("one", "two"))
    assert job.errors == ({"attempt": 1, "error": "no"},)
    assert job.metadata == {"a": {"b": [None]}}
    assert job.unique_key == b"\x00key"
    assert job.unique_states == {JobState.available, JobState.scheduled}
    assert job.created_at.utcoffset() is not None


@pytest.mark.parametrize("state", list(JobState))
def test_cancel(engine: Engine, schema: str, state: JobState) -> None:
    """A final job stays, a running one is marked, any other is cancelled and marked."""
    job_id = insert_job(engine, schema, state=state, metadata_={"kept": 1})
    before = get(engine, job_id, schema=schema)
    job = cancel(engine, job_id, schema=schema, now=NOW)
    assert job == get(engine, job_id, schema=schema)
    if state.is_final:
        assert job == before
        return
    mark = job.metadata["cancel_attempted_at"]
    assert datetime.fromisoformat(mark) == NOW
    marked = attrs.evolve(before, metadata={"kept": 1, "cancel_attempted_at": mark})
    if state is not JobState.running:
        marked = attrs.evolve(marked, state=JobState.cancelled, finalized_at=NOW)
    assert job == marked


@pytest.mark.parametrize("state", list(JobState))
def test_cancel_notifies_the_client_that_runs_it(
    engine: Engine, schema: str, state: JobState
) -> None:
    """Clients are notified of a cancel at commit, unless the job was final already."""
    job_id = insert_job(engine, schema, state=state, queue="mail")
    with listening(engine, f"{schema!s}.river_control") as received:
        with engine.begin() as connection:
            cancel(connection, job_id, schema=schema)
            assert received() == []
        payloads = [json.loads(payload) for payload in received()]
    expected = {"action": "cancel", "job_id": job_id, "queue": "mail"}
    assert payloads == ([] if state.is_final else [expected])


@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.parametrize("state", list(JobState))
def test_retry(engine: Engine, schema: str, state: JobState, spent: bool) -> None:
    """Any job but a running one is available now, with one more attempt if all were spent."""
    job_id = insert_job(
        engine,
        schema,
        state=state,
        attempt=3,
        max_attempts=3 if spent else 4,
        scheduled_at=NOW + timedelta(hours=1),
        errors=[{"attempt": 3}],
        metadata_={"kept": 1},
    )
    before = get(engine, job_id, schema=schema)
    job = retry(engine, job_id, schema=schema, now=NOW)
    assert job == get(engine, job_id, schema=schema)
    if state is JobState.running:
        assert job == before
    else:
        assert job == attrs.evolve(
            before,
            state=JobState.available,
            scheduled_at=NOW,
            finalized_at=None,
            max_attempts=4,
        )


def test_retry_of_what_is_due(engine: Engine, schema: str) -> None:
    """An available job that is due keeps its place in line."""
    job_id = insert_job(engine, schema, scheduled_at=NOW - timedelta(hours=1), attempt=25)
    before = get(engine, job_id, schema=schema)
    assert retry(engine, job_id, schema=schema, now=NOW) == before


def test_a_retry_takes_an_earlier_cancel_back(engine: Engine, schema: str) -> None:
    """A job that was cancelled and retried fails like any other, and is not cancelled for that."""
    job_id = insert_job(engine, schema)
    cancel(engine, job_id, schema=schema)
    assert "cancel_attempted_at" not in retry(engine, job_id, schema=schema).metadata
