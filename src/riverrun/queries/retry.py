"""The statement of `verbs.retry`."""

from functools import lru_cache

from sqlalchemy import BigInteger, Update, and_, bindparam, case, func, update

from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import ATTEMPT_MAX, NOW, job_columns, state_literal


@lru_cache
def retry_job() -> Update:
    """Make the job with bind `job_id` available now, unless it runs or is available and due.

    Locks the row. Index: river_job_pkey. River: JobRetry.
    """
    due = and_(Job.state == state_literal(JobState.available), Job.scheduled_at < NOW)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state != state_literal(JobState.running),
            ~due,
        )
        .values(
            state=state_literal(JobState.available),
            scheduled_at=NOW,
            finalized_at=None,
            max_attempts=case(
                (
                    Job.attempt == Job.max_attempts,
                    func.least(Job.max_attempts, ATTEMPT_MAX - 1) + 1,
                ),
                else_=Job.max_attempts,
            ),
            # A cancel that was asked for before must not end the attempts to come.
            metadata_=case(
                (
                    func.jsonb_typeof(Job.metadata_) == "object",
                    Job.metadata_.op("-")("cancel_attempted_at"),
                ),
                else_=Job.metadata_,
            ),
        )
        .returning(*job_columns())
    )
