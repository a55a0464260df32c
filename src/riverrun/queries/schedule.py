"""The statements of `verbs.schedule`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import NOW, in_mask, readable, state_literal


@lru_cache
def due_jobs() -> Select[Any]:
    """Choose up to `limit` retryable and scheduled jobs that are due within `ahead_s` seconds.

    Leaves out the ids in bind `skipped`. Locks the rows, and skips locked ones. Index:
    river_job_prioritized_fetching_index.
    """
    waiting = Job.state.in_([state_literal(JobState.retryable), state_literal(JobState.scheduled)])
    horizon = NOW + func.make_interval(0, 0, 0, 0, 0, 0, cast(bindparam("ahead_s"), Float))
    names = ("id", "unique_key", "unique_states", "state", "priority", "scheduled_at")
    columns: list[Any] = [getattr(Job, name) for name in names]
    return (
        select(*columns)
        .where(
            waiting,
            Job.scheduled_at <= horizon,
            Job.id != func.all(bindparam("skipped", type_=ARRAY(BigInteger))),
        )
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache
def schedule_jobs(*, schema: str | None, these: bool = False) -> Update:
    """Make the `due_jobs` available; with `these` only those in bind `ids`.

    A job whose unique key another job holds is discarded. River: JobSchedule.
    """
    chosen = due_jobs()
    if these:
        chosen = chosen.where(Job.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))
    due = chosen.cte("due")
    holder = aliased(Job)
    taken = exists().where(
        holder.unique_key == due.c.unique_key,
        holder.id != due.c.id,
        holder.unique_states.is_not(None),
        in_mask(holder.unique_states, holder.state, schema),
    )
    holds = in_mask(due.c.unique_states, due.c.state, schema)
    turn = func.row_number().over(
        partition_by=due.c.unique_key,
        order_by=(holds.desc().nulls_last(), due.c.priority, due.c.scheduled_at, due.c.id),
    )
    ranked = select(
        due.c.id,
        and_(
            due.c.unique_key.is_not(None), due.c.unique_states.is_not(None), or_(turn > 1, taken)
        ).label("conflict"),
        in_mask(due.c.unique_states, state_literal(JobState.discarded), schema).label(
            "holds_discarded"
        ),
    ).cte("ranked")
    mark = func.jsonb_build_object("unique_key_conflict", "scheduler_discarded")
    return (
        update(Job)
        .where(Job.id == ranked.c.id)
        .values(
            state=case(
                (ranked.c.conflict, state_literal(JobState.discarded)),
                else_=state_literal(JobState.available),
            ),
            finalized_at=case((ranked.c.conflict, NOW), else_=None),
            metadata_=case((ranked.c.conflict, Job.metadata_.op("||")(mark)), else_=Job.metadata_),
            # If discarded jobs also hold their key, the unique index would always refuse this
            # change.
            unique_states=case(
                (and_(ranked.c.conflict, ranked.c.holds_discarded), None), else_=Job.unique_states
            ),
        )
        .returning(
            Job.id,
            Job.queue,
            readable(Job.state).label("state"),
            (Job.scheduled_at <= NOW + func.make_interval(0, 0, 0, 0, 0, 0, 0.005)).label("due"),
        )
    )
