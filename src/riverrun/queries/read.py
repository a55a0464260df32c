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
    null,
    select,
    true,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import aliased

from riverrun.jobs.listing import JobCursor, JobListParams, JobOrder
from riverrun.jobs.states import FINAL_STATES
from riverrun.models import Job
from riverrun.queries.expressions import (
    in_mask,
    job_columns,
    readable,
)
from riverrun.queries.filters import beyond, criteria, time_of_list, until
from riverrun.queries.waiting import PRIORITIES, places

BRIEF_CHARS = 200
"""Maximum number of characters of args and of an error in a brief list."""


BRIEF_ARGS_BYTES = 2_000
"""Largest args, in bytes as stored, that are read for a brief list."""


NEAR = 2_000
"""How many of the newest jobs are read for a page of jobs that are not final."""


@lru_cache
def get_job() -> Select[Any]:
    """Read the job with bind `job_id`. Index: river_job_pkey. River: JobGetByID."""
    return select(*job_columns()).where(Job.id == bindparam("job_id", type_=BigInteger))


@lru_cache
def get_key_holder(schema: str | None) -> Select[Any]:
    """Read the id of the job `job_id`, and the short form of the job that holds its unique key.

    Only one job can hold a key, and only in the states of its mask. Indexes: river_job_pkey;
    river_job_unique_idx.
    """
    asked = aliased(Job)
    holds = and_(
        Job.unique_key == asked.unique_key,
        Job.unique_states.is_not(None),
        in_mask(Job.unique_states, Job.state, schema),
    )
    return (
        select(asked.id.label("asked_id"), *_brief(errors=True))
        .select_from(asked)
        .outerjoin(Job, holds)
        .where(asked.id == bindparam("job_id", type_=BigInteger))
    )


def list_jobs(params: JobListParams, end: JobCursor | None = None) -> Select[Any]:
    """Read the jobs that `params` select, in order, each with the time that orders it.

    Nothing after `end` is read, the last job of a window.

    Index: river_job_pkey in the order of ids; river_job_state_and_finalized_at_index in the order
    of finalized_at; river_job_prioritized_fetching_index by state and queue; river_job_kind;
    river_job_args_index; river_job_metadata_index.
    """
    return listed(params, *job_columns(), end=end)


def list_briefs(
    params: JobListParams, end: JobCursor | None = None, *, errors: bool
) -> Select[Any]:
    """Read the short form of the jobs that `params` select. Indexes: the same as for `list_jobs`.

    Long args are not read: a page of 50 jobs with 1 MB each would take a second.
    """
    return listed(params, *_brief(errors=errors), end=end)


def _brief(*, errors: bool) -> list[Any]:
    """Return the columns of a job's short form, with or without its last error."""
    stored = func.pg_column_size(Job.args)
    short = case((stored <= BRIEF_ARGS_BYTES, func.left(cast(Job.args, Text), BRIEF_CHARS)))
    last = type_coerce(Job.errors, ARRAY(JSONB))[func.array_upper(Job.errors, 1)]
    error = func.left(last.op("->>")("error"), BRIEF_CHARS) if errors else null()
    return [
        *(readable(getattr(Job, name)).label(name) for name in _BRIEF),
        short.label("args"),
        stored.label("args_bytes"),
        type_coerce(error, Text).label("last_error"),
    ]


def count_listed(params: JobListParams, most: int, end: JobCursor | None = None) -> Select[Any]:
    """Count the jobs that `params` select, up to `most`. Indexes: the same as for `list_jobs`."""
    filters = _page(attrs.evolve(params, after=None), time_of_list(params), end)
    found = select(Job.id).where(*filters).limit(most).subquery()
    return select(func.count()).select_from(found)


def window_end(params: JobListParams, window: int) -> Select[Any]:
    """Read the last of the first `window` jobs of a list, filters aside; no row if it has fewer.

    Indexes: the same as for `list_jobs`.
    """
    time = time_of_list(params)
    within = _unfiltered(params)
    if _is_merged(params, time):
        pages = [
            select(Job.id, time.label("at"))
            .where(*_page(attrs.evolve(within, states=[state]), time))
            .order_by(*_order(params, time))
            .limit(window)
            .subquery()
            for state in dict.fromkeys(params.states or ())
        ]
        found = union_all(*(select(*page.c) for page in pages)).subquery()
        place = select(found.c.id).order_by(*_ordered(params, found.c.at, found.c.id))
    else:
        order = [_place(params)] if _is_active(params) else _order(params, time)
        place = select(Job.id).where(*_page(within, time)).order_by(*order)
    last = place.offset(window - 1).limit(1).scalar_subquery()
    columns = (Job.id, Job.kind, Job.queue, readable(time).label("order_time"))
    return select(*columns).where(Job.id == last)


def _unfiltered(params: JobListParams) -> JobListParams:
    """Return `params` with only those filters that an index serves in the order of the list."""
    by_id = params.order_by is JobOrder.id
    return JobListParams(
        # By id the jobs of a final state may be far apart.
        states=params.states if not by_id or _is_active(params) else None,
        since=None if by_id else params.since,
        until=None if by_id else params.until,
        order_by=params.order_by,
        descending=params.descending,
        after=params.after,
    )


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


def listed(params: JobListParams, *columns: Any, end: JobCursor | None = None) -> Select[Any]:
    """Return the statement that reads `columns` of a list's jobs, in the order of the list.

    Args:
        params: The filters and the order.
        *columns: What to read of each job.
        end: The last job of the list's window; None for a list without one.
    """
    time = time_of_list(params)
    order = _order(params, time)
    statement = select(*columns, readable(time).label("order_time")).order_by(*order)
    if _is_merged(params, time):
        # The index orders the jobs of one state by finalized_at, but not those of several states.
        pages = [
            select(Job.id)
            .where(*_page(attrs.evolve(params, states=[state]), time, end))
            .order_by(*order)
            .limit(params.limit)
            .subquery()
            for state in params.states or ()
        ]
        found = union_all(*(select(page.c.id) for page in pages)).subquery()
    elif _is_active(params):
        found = _active_page(params, time, end)
    elif _is_timed(params, time):
        found = _timed_page(params, time, end)
    else:
        return statement.where(*_page(params, time, end)).limit(params.limit)
    return statement.where(Job.id.in_(select(found.c.id))).limit(params.limit)


def _active_page(params: JobListParams, time: Any, end: JobCursor | None) -> Any:
    """Return the ids of a page of jobs that are not final, in the order of ids.

    The newest ones are mostly among the newest of all jobs. Only if these do not fill the page, all
    jobs of the states are read and sorted.
    """
    filters = _page(params, time, end)
    # Order by an expression. By the column the planner would walk the primary key past all final
    # jobs.
    whole = select(Job.id).where(*filters).order_by(_place(params)).limit(params.limit)
    if not params.descending:
        return whole.subquery()
    after = params.cursor()
    below = Job.id < (2**63 - 1 if after is None else after.id)
    start = select(Job.id).where(below).order_by(Job.id.desc()).offset(NEAR).limit(1)
    near = (
        select(Job.id)
        .where(*filters, Job.id >= func.coalesce(start.scalar_subquery(), 0))
        .order_by(Job.id.desc())
        .limit(params.limit)
        .cte("near")
    )
    count = select(func.count()).select_from(near).scalar_subquery()
    rest = whole.subquery()
    # The condition stands outside of the sort, so that no parallel workers are started for nothing.
    more = select(rest.c.id).where(count < params.limit)
    return union_all(select(near.c.id), more).subquery()


def _timed_page(params: JobListParams, time: Any, end: JobCursor | None) -> Any:
    """Return the ids of a page of jobs that are not final, in the order of scheduled_at.

    The index has them in this order for each state, queue and priority, of which there are few.
    """
    place = places(list(dict.fromkeys(params.states or ())))
    priorities = (
        func.generate_series(PRIORITIES[0], PRIORITIES[-1])
        .table_valued("number")
        .render_derived(name="priorities")
    )
    jobs = (
        select(Job.id, Job.scheduled_at.label("at"))
        .where(
            Job.state == place.c.state,
            Job.queue == place.c.queue,
            Job.priority == priorities.c.number,
            *_page(params, time, end),
        )
        .order_by(*_order(params, time))
        .limit(params.limit)
        .correlate(place, priorities)
        .lateral("listed")
    )
    return (
        select(jobs.c.id)
        .select_from(place.join(priorities, true()).join(jobs, true()))
        .order_by(*_ordered(params, jobs.c.at, jobs.c.id))
        .limit(params.limit)
        .subquery()
    )


def _is_merged(params: JobListParams, time: Any) -> bool:
    """Return whether a list is merged of several final states, each in the order of an index."""
    states = params.states or ()
    return time is Job.finalized_at and len(states) > 1 and set(states) <= FINAL_STATES


def _is_active(params: JobListParams) -> bool:
    """Return whether a list has jobs that are not final, in the order of ids."""
    states = params.states or ()
    return params.order_by is JobOrder.id and bool(states) and not set(states) & FINAL_STATES


def _is_timed(params: JobListParams, time: Any) -> bool:
    """Return whether a list has jobs that are not final, in the order of scheduled_at."""
    states = params.states or ()
    by_time = params.order_by is not JobOrder.id and time is Job.scheduled_at
    return by_time and bool(states) and not set(states) & FINAL_STATES


def _order(params: JobListParams, time: Any) -> list[Any]:
    if params.order_by is JobOrder.id:
        return _ordered(params, Job.id)
    return _ordered(params, time, Job.id)


def _ordered(params: JobListParams, *columns: Any) -> list[Any]:
    return [column.desc() if params.descending else column for column in columns]


def _place(params: JobListParams) -> Any:
    """Return the id as an expression, in the order of the list."""
    place = Job.id + 0
    return place.desc() if params.descending else place


def _page(
    params: JobListParams, time: Any, end: JobCursor | None = None
) -> list[ColumnElement[bool]]:
    filters = criteria(params)
    if time is Job.finalized_at and set(params.states or ()) <= FINAL_STATES:
        filters.append(Job.finalized_at.is_not(None))  # the condition of the partial index
    if (after := params.cursor()) is not None:
        filters.append(beyond(after, time, params))
    if end is not None:
        filters.append(until(end, time, params))
    return filters
