"""The statements of `verbs.act` that choose jobs."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    bindparam,
    func,
    literal_column,
    select,
)

from riverrun.jobs.listing import JobListParams
from riverrun.jobs.states import FINAL_STATES
from riverrun.models import Job
from riverrun.queries.filters import criteria


def page(params: JobListParams, legal: ColumnElement[bool]) -> Select[Any]:
    """Read the next ids after bind `after_id`, up to `newest_id` and at most `limit`, in order.

    Only jobs that `params` select and for which `legal` is true. Locks nothing. Index: as for
    `list_jobs`.
    """
    states = params.states or ()
    # In the order of the column the planner would walk the primary key past all final jobs. Final
    # jobs may be too many to be sorted.
    waiting = bool(states) and not set(states) & FINAL_STATES
    place: Any = Job.id + literal_column("0") if waiting else Job.id
    limit = bindparam("limit", type_=Integer)
    return select(Job.id).where(*_in_reach(params, legal)).order_by(place).limit(limit)


def count(params: JobListParams, legal: ColumnElement[bool]) -> Select[Any]:
    """Count the jobs of `page`, up to bind `limit`. Index: as for `list_jobs`."""
    found = select(Job.id).where(*_in_reach(params, legal))
    return select(func.count()).select_from(
        found.limit(bindparam("limit", type_=Integer)).subquery()
    )


def _in_reach(params: JobListParams, legal: ColumnElement[bool]) -> list[ColumnElement[bool]]:
    after = Job.id > bindparam("after_id", type_=BigInteger)
    return [*criteria(params), legal, after, Job.id <= bindparam("newest_id", type_=BigInteger)]


@lru_cache
def newest_id() -> Select[Any]:
    """Read the highest id of a job. Index: river_job_pkey."""
    return select(func.max(Job.id))
