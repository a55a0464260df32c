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
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import finished_at, state_literal, still_running


@lru_cache
def complete_jobs(*, skip_locked: bool) -> Update:
    """Complete the jobs in binds `ids`, ascending, and `attempts`, where they still run.

    `ages_us` are the microseconds since each worker returned. All three are the texts of arrays.
    Locks the rows in the order of the arrays, or only those that nobody else has locked. Index:
    river_job_pkey. River: JobSetStateIfRunningMany, for the case that a worker returned and said
    nothing more.
    """
    # A job's place among the ids is found by halving, and not by a join: how many rows there will
    # be is not known when the plan is made, and for many the planner would read all of the table.
    # As subqueries, the texts are read once and not for each row.
    ids, ages = (
        select(cast(bindparam(name, type_=Text), ARRAY(BigInteger))).scalar_subquery()
        for name in ("ids", "ages_us")
    )
    age = type_coerce(ages, ARRAY(BigInteger))[func.width_bucket(Job.id, ids)]
    return (
        update(Job)
        .where(*still_running(skip_locked=skip_locked))
        .values(state=state_literal(JobState.completed), finalized_at=finished_at(age))
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
