"""The one place that makes test data, and reads it."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from riverrun.jobs.row import JobRow
from riverrun.jobs.states import FINAL_STATES, JobState, mask_of
from riverrun.models import Job

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def job_row(**changes: Any) -> JobRow:
    """Return a job as claimed for its first attempt, with `changes`."""
    values: dict[str, Any] = {
        "id": 1,
        "kind": "greet",
        "args": {"name": "Ada"},
        "state": JobState.running,
        "queue": "default",
        "attempt": 1,
        "max_attempts": 25,
        "priority": 1,
        "created_at": T0,
        "scheduled_at": T0,
        "attempted_at": T0,
        "attempted_by": ("client",),
    }
    return JobRow(**{**values, **changes})


def insert_job(tx: Engine | Connection, schema: str | None = None, **changes: Any) -> int:
    """Insert a row into `river_job` as it stands, in any state, and return its id.

    A final job gets the `finalized_at` that its state asks for, a running one an attempt.

    Args:
        tx: An Engine, which commits, or a Connection, which does not.
        schema: The schema of River's tables; None means the search path's.
        **changes: Columns by the names of `riverrun.models.Job`; `unique_states` as states.
    """
    values: dict[str, Any] = {"kind": "greet", "args": {"name": "Ada"}, **changes}
    state = JobState(values.get("state", JobState.available))
    if state in FINAL_STATES:
        values.setdefault("finalized_at", T0)
    if state is JobState.running:
        values.setdefault("attempt", 1)
        values.setdefault("attempted_at", T0)
        values.setdefault("attempted_by", ["client"])
    if values.get("unique_states") is not None:
        values["unique_states"] = mask_of(values["unique_states"])
    statement = insert(Job).values(**values).returning(Job.id)
    options = {"schema_translate_map": {None: schema}}
    if isinstance(tx, Engine):
        with tx.begin() as connection:
            return connection.execute(statement, execution_options=options).scalar_one()
    return tx.execute(statement, execution_options=options).scalar_one()


def only_state(engine: Engine, schema: str) -> JobState:
    """Return the state of the only job."""
    options = {"schema_translate_map": {None: schema}}
    with engine.connect() as connection:
        return JobState(connection.execute(select(Job.state), execution_options=options).scalar())
