"""The statements of `verbs.cancel`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Select, Update, bindparam, case, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.expressions import NOW, job_columns, state_literal


@lru_cache
def cancel_job() -> Update:
    """Cancel the job with bind `job_id`; a running one is only marked, a final one not touched.

    Locks the row. Index: river_job_pkey. River: JobCancel.
    """
    running = Job.state == state_literal(JobState.running)
    mark = func.jsonb_build_object("cancel_attempted_at", NOW)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state.not_in([state_literal(state) for state in sorted(FINAL_STATES)]),
        )
        .values(
            state=case((running, Job.state), else_=state_literal(JobState.cancelled)),
            finalized_at=case((running, Job.finalized_at), else_=NOW),
            metadata_=Job.metadata_.op("||")(mark),
        )
        .returning(*job_columns())
    )


@lru_cache
def cancelled_jobs() -> Select[Any]:
    """Read which of binds `ids` run and were asked to cancel. Index: river_job_pkey."""
    return select(Job.id).where(
        Job.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))),
        Job.state == state_literal(JobState.running),
        Job.metadata_.has_key("cancel_attempted_at"),
    )
