"""The statements of `verbs.read`: one job, and lists of jobs."""

from collections.abc import Mapping
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
from sqlalchemy.orm import aliased

from riverrun.jobs.json_values import json_text
from riverrun.jobs.listing import JobCursor, JobListParams, JobOrder
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.expressions import (
    FIRST_TIME,
    LAST_TIME,
    in_mask,
    job_columns,
    readable,
    state_literal,
)

BRIEF_CHARS = 200
"""Most characters of args and of an error in a brief list."""


BRIEF_ARGS_BYTES = 2_000
"""Largest args, in bytes as stored, that are read for a brief list."""


NEAR = 2_000
"""How many of the newest jobs are read for a page of jobs that are not final."""


TEXT_ARGS_BYTES = 2_000
"""Largest args, in bytes as stored, that are searched for a text. Larger ones are stored apart."""


TEXT_ERRORS_BYTES = 8_000
"""Largest errors, in bytes as stored, that are searched for a text."""


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
    filters = _page(attrs.evolve(params, after=None), _time(params), end)
    found = select(Job.id).where(*filters).limit(most).subquery()
    return select(func.count()).select_from(found)


def window_end(params: JobListParams, window: int) -> Select[Any]:
    """Read the last of the first `window` jobs of a list, filters aside; no row if it has fewer.

    Indexes: the same as for `list_jobs`.
    """
    time = _time(params)
    within = _unfiltered(params)
    if _is_merged(params, time):
        pages = [
            select(Job.id, time.label("at"))
            .where(*_page(attrs.evolve(within, states=[state]), time))
            .order_by(*_order(params, time))
            .limit(window)
            .subquery()
            for state in params.states or ()
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
    time = _time(params)
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


def _is_merged(params: JobListParams, time: Any) -> bool:
    """Return whether a list is merged of several final states, each in the order of an index."""
    states = params.states or ()
    return time is Job.finalized_at and len(states) > 1 and set(states) <= FINAL_STATES


def _is_active(params: JobListParams) -> bool:
    """Return whether a list has jobs that are not final, in the order of ids."""
    states = params.states or ()
    return params.order_by is JobOrder.id and bool(states) and not set(states) & FINAL_STATES


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
        filters.append(_beyond(after, time, params))
    if end is not None:
        filters.append(_until(end, time, params))
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
        filters.append(Job.metadata_.contains(_object(params.metadata)))
    if params.args is not None:
        filters.append(Job.args.contains(_object(params.args)))
    if params.client is not None:
        filters.append(
            Job.attempted_by[func.array_upper(Job.attempted_by, 1)] == literal(params.client, Text)
        )
    if params.text is not None:
        filters.append(_has_text(params.text))
    time = Job.created_at if params.order_by is JobOrder.id else _time(params)
    if params.since is not None:
        filters.append(time >= params.since)
    if params.until is not None:
        filters.append(time < params.until)
    return filters


def _object(value: Mapping[str, Any]) -> ColumnElement[Any]:
    """Return a JSON object as a literal, so that the planner knows how rare it is.

    The driver prepares a statement that is executed often. For a bind the planner may then choose
    to walk the primary key, which takes a second for an object that no job has.
    """
    text = bindparam(None, json_text(value), Text, unique=True, literal_execute=True)
    return cast(text, JSONB)


def _has_text(text: str) -> ColumnElement[bool]:
    # In JSON some characters are escaped; who has copied them from JSON has the escapes.
    forms = sorted({text, json_text(text)[1:-1]})
    size = func.pg_column_size
    args = case((size(Job.args) <= TEXT_ARGS_BYTES, cast(Job.args, Text)))
    last = type_coerce(Job.errors, ARRAY(JSONB))[func.array_upper(Job.errors, 1)]
    error = case((size(Job.errors) <= TEXT_ERRORS_BYTES, last.op("->>")("error")))
    return or_(
        *(
            func.strpos(func.lower(place), func.lower(literal(form, Text))) > 0
            for place in (Job.kind, args, type_coerce(error, Text))
            for form in (forms if place is args else [text])
        )
    )


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


def _until(end: JobCursor, time: Any, params: JobListParams) -> ColumnElement[bool]:
    """Return the condition for jobs that are not after `end`, the opposite of `_beyond`."""
    here = Job.id >= end.id if params.descending else Job.id <= end.id
    if params.order_by is JobOrder.id:
        return here
    if end.time is None:
        if params.descending:
            return and_(time.is_(None), here)
        return or_(time.is_not(None), here)
    compared = readable(time) if end.time in (FIRST_TIME, LAST_TIME) else time
    place, last = tuple_(compared, Job.id), [end.time, end.id]
    if not params.descending:
        return place <= last
    always = time is Job.scheduled_at or set(params.states or ()) <= FINAL_STATES
    return place >= last if always else or_(place >= last, time.is_(None))


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
