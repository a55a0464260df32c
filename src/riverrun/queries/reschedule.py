"""The statement of `verbs.reschedule`."""

from typing import Any

from sqlalchemy import ColumnElement, Update, case, cast, update

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import JobState
from riverrun.queries.chosen import Chosen
from riverrun.queries.expressions import NOW, state_literal

WAITING = (JobState.available, JobState.pending, JobState.retryable, JobState.scheduled)


def reschedule_chosen(which: Chosen, scheduled_at: Any, *, by_ids: bool) -> Update:
    """Make the chosen jobs due at `scheduled_at`, and return the queues of those available now.

    Locks the rows in the order of their ids.

    Args:
        which: The jobs.
        scheduled_at: An expression over the jobs' columns.
        by_ids: Whether to change only the jobs in bind `chosen_ids`.
    """
    job, found = which.job, which.locked(by_ids=by_ids)
    at = cast(scheduled_at, Timestamp)
    kept = [state_literal(state, job) for state in (JobState.pending, JobState.retryable)]
    state = case(
        (job.state == state_literal(JobState.pending, job), job.state),
        (at <= NOW, state_literal(JobState.available, job)),
        (job.state.in_(kept), job.state),
        else_=state_literal(JobState.scheduled, job),
    )
    available = job.state == state_literal(JobState.available, job)
    return (
        update(job)
        .where(job.id == found.c.id)
        .values({job.scheduled_at: at, job.state: state})
        .returning(case((available, job.queue)).label("queue"))
    )


def waiting(job: Any) -> ColumnElement[bool]:
    """Return the condition for a waiting job."""
    waits: ColumnElement[bool] = job.state.in_([state_literal(state, job) for state in WAITING])
    return waits
