"""The statements of `verbs.read`: one job, and lists of jobs."""

from functools import lru_cache
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from riverrun.jobs.json_values import json_text
from riverrun.jobs.listing import JobCursor, JobListParams, JobOrder
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.expressions import FIRST_TIME, LAST_TIME, job_columns, readable, state_literal

BRIEF_CHARS = 200
"""Most characters of args and of an error in a brief list."""


BRIEF_ARGS_BYTES = 2_000
"""Largest args, in bytes as stored, that are read for a brief list."""


@lru_cache
def get_job() -> Select[Any]:
    """Read the job with bind `job_id`. Index: river_job_pkey. River: JobGetByID."""
    return select(*job_columns()).where(Job.id == bindparam("job_id", type_=BigInteger))


def list_jobs(params: JobListParams) -> Select[Any]:
    """Read the jobs that `params` select, in order, each with the time that orders it.

    Index: river_job_pkey in the order of ids; river_job_state_and_finalized_at_index in the order
    of finalized_at; river_job_prioritized_fetching_index by state and queue; river_job_kind;
    river_job_metadata_index.
    """
    return listed(params, *job_columns())


def list_briefs(params: JobListParams, *, errors: bool) -> Select[Any]:
    """Read the short form of the jobs that `params` select. Indexes: the same as for `list_jobs`.

    Long args are not read: a page of 50 jobs with 1 MB each would take a second.
    """
    stored = func.pg_column_size(Job.args)
    short = case((stored <= BRIEF_ARGS_BYTES, func.left(cast(Job.args, Text), BRIEF_CHARS)))
    last = type_coerce(Job.errors, ARRAY(JSONB))[func.array_upper(Job.errors, 1)]
    error = func.left(last.op("->>")("error"), BRIEF_CHARS) if errors else null()
    return listed(
        params,
        *(readable(getattr(Job, name)).label(name) for name in _BRIEF),
        short.label("args"),
        stored.label("args_bytes"),
        type_coerce(error, Text).label("last_error"),
    )


def count_listed(params: JobListParams, most: int) -> Select[Any]:
    """Count the jobs that `params` select, up to `most`. Indexes: the same as for `list_jobs`."""
    found = select(Job.id).where(*criteria(params)).limit(most).subquery()
    return select(func.count()).select_from(found)


_BRIEF = (
    "id",
    "kind",
    "queue",
    "state",
    "priority",
    "attempt",
    "max_attempts",
    "scheduled_at",
    "attempted_at",
    "finalized_at",
)


def listed(params: JobListParams, *columns: Any) -> Select[Any]:
    """Return the statement that reads `columns` of a list's jobs, in the order of the list."""
    time = _time(params)
    key = [Job.id] if params.order_by is JobOrder.id else [time, Job.id]
    order = [column.desc() if params.descending else column for column in key]
    statement = select(*columns, readable(time).label("order_time")).order_by(*order)
    states = params.states or ()
    if time is Job.finalized_at and len(states) > 1 and set(states) <= FINAL_STATES:
        # The index orders the jobs of one state by finalized_at, but not those of several states.
        pages = [
            select(Job.id)
            .where(*_page(attrs.evolve(params, states=[state]), time))
            .order_by(*order)
            .limit(params.limit)
            .subquery()
            for state in states
        ]
        found = union_all(*(select(page.c.id) for page in pages)).subquery()
    elif params.order_by is JobOrder.id and states and not set(states) & FINAL_STATES:
        # Order by an expression. By the column the planner would walk the primary key past all
        # final jobs.
        place = Job.id + 0
        page = select(Job.id).where(*_page(params, time)).limit(params.limit)
        found = page.order_by(place.desc() if params.descending else place).subquery()
    else:
        return statement.where(*_page(params, time)).limit(params.limit)
    return statement.where(Job.id.in_(select(found.c.id))).limit(params.limit)


def _page(params: JobListParams, time: Any) -> list[ColumnElement[bool]]:
    filters = criteria(params)
    if time is Job.finalized_at and set(params.states or ()) <= FINAL_STATES:
        filters.append(Job.finalized_at.is_not(None))  # the condition of the partial index
    if (after := params.cursor()) is not None:
        filters.append(_beyond(after, time, params))
    return filters


def criteria(params: JobListParams) -> list[ColumnElement[bool]]:
    """Return the conditions for the jobs of a list."""
    filters: list[ColumnElement[bool]] = []
    if params.ids is not None:
        filters.append(Job.id.in_(params.ids))
    if params.kinds is not None:
        filters.append(Job.kind.in_(params.kinds))
    if params.queues is not None:
        filters.append(Job.queue.in_(params.queues))
        if params.states is None:
            # All states, for an index that begins with the state.
            filters.append(Job.state.in_([state_literal(state) for state in JobState]))
    if params.priorities is not None:
        filters.append(Job.priority.in_(params.priorities))
    if params.states is not None:
        filters.append(Job.state.in_([state_literal(state) for state in params.states]))
    if params.tags_all is not None:
        filters.append(Job.tags.contains(cast(list(params.tags_all), Job.tags.type)))
    if params.tags_any is not None:
        filters.append(Job.tags.overlap(cast(list(params.tags_any), Job.tags.type)))
    if params.metadata is not None:
        filters.append(
            Job.metadata_.contains(cast(literal(json_text(params.metadata), Text), JSONB))
        )
    time = Job.created_at if params.order_by is JobOrder.id else _time(params)
    if params.since is not None:
        filters.append(time >= params.since)
    if params.until is not None:
        filters.append(time < params.until)
    return filters


def _beyond(after: JobCursor, time: Any, params: JobListParams) -> ColumnElement[bool]:
    """Return the condition for jobs after a cursor. PostgreSQL sorts a null after all times."""
    here = Job.id < after.id if params.descending else Job.id > after.id
    if params.order_by is JobOrder.id:
        return here
    if after.time is None:
        if params.descending:
            return or_(time.is_not(None), here)
        return and_(time.is_(None), here)
    # The cursor does not have the times that Python cannot hold. No index serves them.
    compared = readable(time) if after.time in (FIRST_TIME, LAST_TIME) else time
    place, last = tuple_(compared, Job.id), [after.time, after.id]
    if params.descending:
        return place < last
    return place > last if time is Job.scheduled_at else or_(place > last, time.is_(None))


def _time(params: JobListParams) -> Any:
    """Return the time by which a list is ordered."""
    if params.order_by is JobOrder.finalized_at:
        return Job.finalized_at
    if params.order_by is JobOrder.time and params.states:
        first = params.states[0]
        if first.is_final:
            return Job.finalized_at
        if first is JobState.running:
            return Job.attempted_at
    return Job.scheduled_at
