"""The statements of `verbs.serialize`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    Update,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import state_literal

COUNT_MAX = 1_000
"""How many of the jobs that wait for one object are counted at most."""


@lru_cache
def count_waiting() -> Select[Any]:
    """Count the waiting jobs whose metadata contains bind `mark`, up to COUNT_MAX.

    Locks nothing. Index: river_job_metadata_index.
    """
    some = (
        select(Job.id)
        .where(_waits(), Job.state == state_literal(JobState.available))
        .limit(literal_column(str(COUNT_MAX)))
        .subquery()
    )
    return select(func.count()).select_from(some)


@lru_cache
def wake_waiting() -> Update:
    """Make the oldest job whose metadata contains bind `mark` due now, if it is due later.

    Locks that row, and skips locked ones. Index: river_job_metadata_index.
    """
    first = (
        select(Job.id)
        .where(
            _waits(),
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


def _waits() -> ColumnElement[bool]:
    return Job.metadata_.contains(cast(bindparam("mark", type_=Text), JSONB))
