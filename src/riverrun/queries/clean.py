"""The statements of `verbs.clean`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Integer, Select, Text, and_, bindparam, delete, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.jobs.states import JobState
from riverrun.models import Job, Queue
from riverrun.queries.expressions import NOW, seconds, state_literal


@lru_cache
def old_jobs() -> Select[Any]:
    """Choose up to `limit` final jobs past their retention, by id, after bind `after_id`.

    A null retention keeps all jobs. Locks the rows, and skips locked ones. Index:
    river_job_state_and_finalized_at_index.
    """

    def past(state: JobState) -> Any:
        return and_(
            Job.state == state_literal(state),
            Job.finalized_at < NOW - seconds(f"{state.value}_s"),
        )

    return (
        select(Job.id)
        .where(
            or_(past(JobState.cancelled), past(JobState.completed), past(JobState.discarded)),
            Job.id > bindparam("after_id", type_=BigInteger),
        )
        .order_by(Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache
def clean_jobs() -> ReturningDelete[Any]:
    """Delete the `old_jobs`. River: JobDeleteBefore."""
    return delete(Job).where(Job.id.in_(old_jobs().scalar_subquery())).returning(Job.id)


@lru_cache
def clean_these_jobs() -> ReturningDelete[Any]:
    """Delete the jobs with bind `ids` that are still among the `old_jobs`."""
    these = old_jobs().where(Job.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))
    return delete(Job).where(Job.id.in_(these.scalar_subquery())).returning(Job.id)


@lru_cache
def old_queues() -> Select[Any]:
    """Choose up to `limit` queues that no client has worked for `idle_s` seconds.

    Locks the rows, and skips locked ones.
    """
    return (
        select(Queue.name)
        .where(Queue.updated_at < NOW - seconds("idle_s"))
        .order_by(Queue.name)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache
def clean_queues() -> ReturningDelete[Any]:
    """Delete the `old_queues`. River: QueueDeleteExpired."""
    return delete(Queue).where(Queue.name.in_(old_queues().scalar_subquery())).returning(Queue.name)


@lru_cache
def clean_these_queues() -> ReturningDelete[Any]:
    """Delete the queues with bind `names` that are still among the `old_queues`."""
    these = old_queues().where(Queue.name == func.any(bindparam("names", type_=ARRAY(Text))))
    return delete(Queue).where(Queue.name.in_(these.scalar_subquery())).returning(Queue.name)
