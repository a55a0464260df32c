"""The statements of `testing`: read jobs that the current transaction has written."""

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import NOW, state_literal


@lru_cache
def own_waiting_jobs() -> Select[Any]:
    """Read the ids of available, retryable and scheduled jobs that this transaction has written."""
    waiting = (JobState.available, JobState.retryable, JobState.scheduled)
    return select(Job.id).where(Job.state.in_([state_literal(state) for state in waiting]), _own())


@lru_cache
def next_own_job() -> Select[Any]:
    """Read the id of this transaction's job in `queue_name` that a claim would take first.

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
    """Count the due jobs in the queues of the array `names` that other transactions wrote."""
    named = Job.queue == func.any(bindparam("names", type_=ARRAY(Text)))
    return select(func.count()).select_from(Job).where(*_claimable(), named, ~_own())


def _claimable() -> list[ColumnElement[bool]]:
    return [Job.state == state_literal(JobState.available), Job.scheduled_at <= NOW]


def _own() -> ColumnElement[bool]:
    """Return the condition for rows that this transaction, or a savepoint in it, has written.

    If a row is visible and the transaction that wrote it is in progress, it is this transaction. A
    savepoint has its own transaction id, later than the transaction's. Only such ids are looked up,
    because xmin does not have the epoch of an older one.
    """
    return literal_column(
        "(CASE WHEN age(xmin) <= age(pg_current_xact_id()::xid) THEN"
        " pg_xact_status((pg_current_xact_id()::text::bigint"
        " + age(pg_current_xact_id()::xid) - age(xmin))::text::xid8) = 'in progress'"
        " ELSE false END)"
    )
