"""The statements of `verbs.record`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Select,
    Text,
    Update,
    and_,
    case,
    cast,
    column,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, array

from riverrun.jobs.columns import JobStateType, Timestamp
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.expressions import (
    NOW,
    attempts,
    finished_at,
    own_claim,
    readable,
    records,
    state_literal,
)


@lru_cache
def unwritten_jobs() -> Select[Any]:
    """Read the jobs in binds `ids`: whether `owner` still runs them, and whether they are free.

    Locks the rows that are not locked, until the transaction ends, to find out which those are.
    Index: river_job_pkey.
    """
    asked, again = attempts("asked"), attempts("again")
    free = (
        select(Job.id)
        .join(again, Job.id == again.c.id)
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("free")
    )
    running = Job.state == state_literal(JobState.running)
    runs = and_(running, Job.attempt == asked.c.attempt, own_claim())
    columns: tuple[Any, ...] = (Job.id, runs.label("runs"), Job.id.in_(select(free.c.id)))
    return select(*columns).join(asked, Job.id == asked.c.id)


@lru_cache
def record_outcomes(*, skip_locked: bool) -> Update:
    """Write the outcomes in bind `outcomes` of jobs that `owner` still runs at the same attempt.

    A job that was marked as cancelled in the meantime, and that would run again, is cancelled
    instead. The `finalized_at` of a final job is when its worker returned, `age_us` microseconds
    ago. With `merge_anyway` metadata is merged even if the job no longer runs. Locks the rows by
    id; with `skip_locked` only those that are free. Index: river_job_pkey. River:
    JobSetStateIfRunningMany.
    """
    rows = records(
        "outcomes",
        column("id", BigInteger),
        column("attempt", Integer),
        column("state", Text),
        column("scheduled_at", Timestamp),
        column("error", JSONB),
        column("metadata", JSONB),
        column("give_back", Integer),
        column("age_us", BigInteger),
        column("merge_anyway", Integer),
    )
    held = (
        select(Job.id)
        .join(rows, Job.id == rows.c.id)
        .order_by(Job.id)
        .with_for_update(of=Job, key_share=True, skip_locked=skip_locked)
        .cte("held")
    )
    running = Job.state == state_literal(JobState.running)
    fenced = and_(running, Job.attempt == rows.c.attempt, own_claim())
    again = rows.c.state.in_(
        [literal_column(f"'{state}'") for state in ("available", "retryable", "scheduled")]
    )
    # Nothing can be appended to a nested array, which neither River nor riverrun writes.
    before = case(
        (func.array_ndims(Job.errors) > 1, array([func.to_jsonb(Job.errors)])), else_=Job.errors
    )
    unwanted = and_(fenced, again, Job.metadata_.has_key("cancel_attempted_at"))
    final = rows.c.state.in_([literal_column(f"'{state}'") for state in sorted(FINAL_STATES)])
    return (
        update(Job)
        .where(
            Job.id == held.c.id,
            Job.id == rows.c.id,
            or_(fenced, and_(rows.c.merge_anyway == 1, rows.c.metadata.is_not(None))),
        )
        .values(
            state=case(
                (unwanted, state_literal(JobState.cancelled)),
                (fenced, cast(rows.c.state, JobStateType)),
                else_=Job.state,
            ),
            attempt=case(
                (unwanted, Job.attempt),
                (fenced, func.greatest(Job.attempt - func.coalesce(rows.c.give_back, 0), 0)),
                else_=Job.attempt,
            ),
            scheduled_at=case(
                (unwanted, Job.scheduled_at),
                (fenced, func.coalesce(rows.c.scheduled_at, Job.scheduled_at)),
                else_=Job.scheduled_at,
            ),
            finalized_at=case(
                (unwanted, NOW),
                (and_(fenced, final), finished_at(rows.c.age_us)),
                else_=Job.finalized_at,
            ),
            errors=case(
                (
                    and_(fenced, rows.c.error.is_not(None)),
                    func.array_append(before, rows.c.error),
                ),
                else_=Job.errors,
            ),
            metadata_=func.coalesce(Job.metadata_.op("||")(rows.c.metadata), Job.metadata_),
        )
        .returning(Job.id, readable(Job.state).label("state"))
    )
