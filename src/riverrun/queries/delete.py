"""The statements of `verbs.delete`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    bindparam,
    delete,
)
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.jobs.listing import JobListParams
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.chosen import Chosen
from riverrun.queries.expressions import job_columns, state_literal
from riverrun.queries.read import listed


@lru_cache
def delete_job() -> ReturningDelete[Any]:
    """Delete the job with bind `job_id` unless it is running.

    Index: river_job_pkey. River: JobDelete.
    """
    return (
        delete(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state != state_literal(JobState.running),
        )
        .returning(*job_columns())
    )


def delete_jobs(params: JobListParams) -> ReturningDelete[Any]:
    """Delete the jobs that `params` select, except running ones.

    Locks the rows that it deletes, and skips locked ones. River: JobDeleteMany.
    """
    chosen = (
        listed(params, Job.id)
        .with_only_columns(Job.id)
        .where(Job.state != state_literal(JobState.running))
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    return delete(Job).where(Job.id == chosen.c.id).returning(*job_columns())


def delete_chosen(which: Chosen, *, by_ids: bool) -> Delete:
    """Delete the chosen jobs. Locks the rows in the order of their ids."""
    found = which.locked(by_ids=by_ids, key_share=False)
    return delete(which.job).where(which.job.id == found.c.id)


def not_running(job: Any) -> ColumnElement[bool]:
    """Return the condition for a job that can be deleted."""
    can: ColumnElement[bool] = job.state != state_literal(JobState.running, job)
    return can
