"""The statements of `verbs.cancel`."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    Update,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from riverrun.jobs.json_values import json_text
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.chosen import Chosen
from riverrun.queries.expressions import NOW, go_time, job_columns, state_literal


@lru_cache
def cancel_job() -> Update:
    """Cancel the job with bind `job_id`. A running job is only marked; a final one stays as it is.

    Locks the row. Index: river_job_pkey. River: JobCancel.
    """
    return (
        update(Job)
        .where(Job.id == bindparam("job_id", type_=BigInteger), not_final(Job))
        .values(_cancelled(Job))
        .returning(*job_columns())
    )


def cancel_chosen(which: Chosen, *, by_ids: bool) -> Update:
    """Cancel the chosen jobs. Running ones are only marked, and their ids and queues returned.

    Locks the rows in the order of their ids. River: JobCancel, here for many jobs.
    """
    job, found = which.job, which.locked(by_ids=by_ids)
    running = job.state == state_literal(JobState.running, job)
    return (
        update(job)
        .where(job.id == found.c.id)
        .values(_cancelled(job))
        .returning(case((running, job.id)).label("id"), case((running, job.queue)).label("queue"))
    )


def not_final(job: Any) -> ColumnElement[bool]:
    """Return the condition for a job that can be cancelled."""
    final = [state_literal(state, job) for state in sorted(FINAL_STATES)]
    can: ColumnElement[bool] = job.state.not_in(final)
    return can


def waits(job: Any) -> ColumnElement[bool]:
    """Return the condition for a job that is neither running nor final."""
    others = [state_literal(state, job) for state in sorted(FINAL_STATES | {JobState.running})]
    can: ColumnElement[bool] = job.state.not_in(others)
    return can


def contains_any(job: Any, parts: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition for a job whose metadata contains one of `parts`, which are JSON.

    Index: river_job_metadata_index, looked up once for each part.
    """
    # Not a join with the parts: the planner would estimate that each matches a thousandth of the
    # table, and read all of it.
    texts = cast(literal([json_text(part) for part in parts], ARRAY(Text)), ARRAY(JSONB))
    found: ColumnElement[bool] = job.metadata_.op("@>", is_comparison=True)(any_(texts))
    return found


def _cancelled(job: Any) -> dict[Any, Any]:
    running = job.state == state_literal(JobState.running, job)
    return {
        job.state: case((running, job.state), else_=state_literal(JobState.cancelled, job)),
        job.finalized_at: case((running, job.finalized_at), else_=NOW),
        job.metadata_: job.metadata_.op("||")(
            func.jsonb_build_object("cancel_attempted_at", go_time(NOW))
        ),
    }


@lru_cache
def cancelled_jobs() -> Select[Any]:
    """Read which jobs in bind `ids` are running and marked as cancelled. Index: river_job_pkey."""
    return select(Job.id).where(
        Job.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))),
        Job.state == state_literal(JobState.running),
        Job.metadata_.has_key("cancel_attempted_at"),
    )
