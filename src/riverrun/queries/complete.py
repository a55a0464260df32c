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
    delete,
    func,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import finished_at, own_claim, state_literal, still_running


@lru_cache
def complete_jobs(*, skip_locked: bool) -> Update:
    """Complete the jobs in binds `ids`, ascending, that `owner` still runs at their `attempts`.

    `ages_us` are the microseconds since each worker returned. All three are the texts of arrays.
    Locks the rows in the order of the arrays; with `skip_locked` only those that are free. Index:
    river_job_pkey. River: JobSetStateIfRunningMany, for workers that returned and changed nothing
    else of the job.
    """
    # A job's place among the ids is found by bisection and not by a join: the planner does not know
    # how many rows there will be, and for many it would read the whole table. In subqueries the
    # texts are parsed once and not for each row.
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
def delete_completed() -> ReturningDelete[Any]:
    """Delete the jobs in binds `ids` that `owner` still runs at their attempt in `attempts`.

    For clients that keep completed jobs for no time: an update would also write an entry to each of
    the table's indexes. Locks and skips rows as `complete_jobs` does. Index: river_job_pkey.
    """
    return delete(Job).where(*still_running(skip_locked=True)).returning(Job.id)


@lru_cache
def merge_metadata() -> Update:
    """Merge bind `merged` into a job's metadata if `owner` still runs it at `attempt_number`.

    Locks the row. Index: river_job_pkey. River: JobUpdate, which does not check the attempt.
    """
    merged = cast(bindparam("merged", type_=Text), JSONB)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.attempt == bindparam("attempt_number", type_=Integer),
            Job.state == state_literal(JobState.running),
            own_claim(),
        )
        .values(metadata_=Job.metadata_.op("||")(merged))
        .returning(Job.id)
    )


@lru_cache
def clock() -> Select[Any]:
    """Read the database's time."""
    return select(func.now())
