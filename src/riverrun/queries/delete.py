"""The statements of `verbs.delete`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, delete
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.jobs.listing import JobListParams
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import job_columns, state_literal
from riverrun.queries.read import listed


@lru_cache
def delete_job() -> ReturningDelete[Any]:
    """Delete the job with bind `job_id` unless it runs. Index: river_job_pkey. River: JobDelete."""
    return (
        delete(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state != state_literal(JobState.running),
        )
        .returning(*job_columns())
    )


def delete_jobs(params: JobListParams) -> ReturningDelete[Any]:
    """Delete the jobs that `params` ask for, none that runs.

    Locks what it deletes and skips what others have locked. River: JobDeleteMany.
    """
    chosen = (
        listed(params, Job.id)
        .with_only_columns(Job.id)
        .where(Job.state != state_literal(JobState.running))
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    return delete(Job).where(Job.id == chosen.c.id).returning(*job_columns())
