"""The statements of `verbs.serialize`."""

from functools import lru_cache

from sqlalchemy import Text, Update, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import state_literal


@lru_cache
def wake_waiting() -> Update:
    """Make the oldest job whose metadata contains bind `mark` due now, if it is due later.

    Locks that row, and skips locked ones. Index: river_job_metadata_index.
    """
    first = (
        select(Job.id)
        .where(
            Job.metadata_.contains(cast(bindparam("mark", type_=Text), JSONB)),
            Job.state == state_literal(JobState.available),
            Job.scheduled_at > func.now(),
        )
        .order_by(Job.priority, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("first")
    )
    return (
        update(Job)
        .where(Job.id == select(first.c.id).scalar_subquery())
        .values(scheduled_at=func.now())
        .returning(Job.queue)
    )
