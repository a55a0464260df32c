"""The statements of `testing`: jobs that the transaction in which they are read has written."""

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import NOW, state_literal


@lru_cache
def own_waiting_jobs() -> Select[Any]:
    """Read the ids of jobs that this transaction has written, and that wait in any state."""
    waiting = (JobState.available, JobState.retryable, JobState.scheduled)
    return select(Job.id).where(Job.state.in_([state_literal(each) for each in waiting]), _own())


@lru_cache
def next_own_job() -> Select[Any]:
    """Read the id of the job of `queue_name` that a claim would take first, of this transaction's.

    Locks nothing. Index: river_job_prioritized_fetching_index.
    """
    return (
        select(Job.id)
        .where(*_claimable(), Job.queue == bindparam("queue_name", type_=Text), _own())
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(1)
    )


@lru_cache
def count_others_jobs() -> Select[Any]:
    """Count the due jobs of bind `names`, an array of queues, that others have written."""
    named = Job.queue == func.any(bindparam("names", type_=ARRAY(Text)))
    return select(func.count()).select_from(Job).where(*_claimable(), named, ~_own())


def _claimable() -> list[ColumnElement[bool]]:
    return [Job.state == state_literal(JobState.available), Job.scheduled_at <= NOW]


def _own() -> ColumnElement[bool]:
    """Return whether the row is as this transaction, or a savepoint in it, has written it.

    Of a row that can be seen and whose transaction is in progress, the transaction is this one. A
    savepoint has a number of its own, later than that of its transaction. Only such are asked for:
    of an old one the whole number is not known.
    """
    return literal_column(
        "(CASE WHEN age(xmin) <= age(pg_current_xact_id()::xid) THEN"
        " pg_xact_status((pg_current_xact_id()::text::bigint"
        " + age(pg_current_xact_id()::xid) - age(xmin))::text::xid8) = 'in progress'"
        " ELSE false END)"
    )
