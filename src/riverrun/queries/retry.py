"""The statements of `verbs.retry`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Update,
    and_,
    bindparam,
    case,
    func,
    update,
)

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.chosen import Chosen
from riverrun.queries.expressions import ATTEMPT_MAX, NOW, job_columns, state_literal


@lru_cache
def retry_job() -> Update:
    """Make the job with bind `job_id` available now, unless it is running, or available and due.

    Locks the row. Index: river_job_pkey. River: JobRetry.
    """
    return (
        update(Job)
        .where(Job.id == bindparam("job_id", type_=BigInteger), not_due(Job))
        .values(_available(Job))
        .returning(*job_columns())
    )


def retry_chosen(which: Chosen, *, by_ids: bool) -> Update:
    """Make the chosen jobs available now, and return their queues.

    Locks the rows in the order of their ids. River: JobRetry, here for many jobs.
    """
    job, found = which.job, which.locked(by_ids=by_ids)
    return update(job).where(job.id == found.c.id).values(_available(job)).returning(job.queue)


def not_due(job: Any) -> ColumnElement[bool]:
    """Return the condition for a job that can be retried: not running, nor available and due."""
    due = and_(job.state == state_literal(JobState.available, job), job.scheduled_at < NOW)
    return and_(job.state != state_literal(JobState.running, job), ~due)


def _available(job: Any) -> dict[Any, Any]:
    return {
        job.state: state_literal(JobState.available, job),
        job.scheduled_at: NOW,
        job.finalized_at: None,
        job.max_attempts: case(
            (
                job.attempt == job.max_attempts,
                func.least(job.max_attempts, ATTEMPT_MAX - 1) + 1,
            ),
            else_=job.max_attempts,
        ),
        # The mark of an earlier cancel must not cancel the next attempts.
        job.metadata_: case(
            (
                func.jsonb_typeof(job.metadata_) == "object",
                job.metadata_.op("-")("cancel_attempted_at"),
            ),
            else_=job.metadata_,
        ),
    }
