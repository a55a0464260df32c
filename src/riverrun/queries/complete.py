"""The statements of `verbs.complete`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Select,
    Text,
    Update,
    bindparam,
    cast,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from riverrun.models import Job
from riverrun.queries.expressions import NOW, state_literal, still_running
from riverrun.states import JobState


@lru_cache
def complete_jobs(*, skip_locked: bool) -> Update:
    """Complete the jobs in binds `ids` and `attempts`, two arrays, where they still run.

    Locks their rows in the order of the arrays, or only those that nobody else has locked. Index:
    river_job_pkey. River: JobSetStateIfRunningMany, for the case that a worker returned and said
    nothing more.
    """
    return (
        update(Job)
        .where(*still_running(skip_locked=skip_locked))
        .values(state=state_literal(JobState.completed), finalized_at=NOW)
        .returning(Job.id)
    )


@lru_cache
def merge_metadata() -> Update:
    """Merge bind `merged` into the metadata of a job that runs at `attempt_number`.

    Locks the row. Index: river_job_pkey. River: JobUpdate, which is not fenced.
    """
    merged = cast(bindparam("merged", type_=Text), JSONB)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.attempt == bindparam("attempt_number", type_=Integer),
            Job.state == state_literal(JobState.running),
        )
        .values(metadata_=Job.metadata_.op("||")(merged))
        .returning(Job.id)
    )


@lru_cache
def clock() -> Select[Any]:
    """Read the database's time."""
    return select(func.now())
