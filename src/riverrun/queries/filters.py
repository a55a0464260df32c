"""The filters of lists of jobs, and the conditions for the jobs after a cursor."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    or_,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from riverrun.jobs.json_values import json_text
from riverrun.jobs.listing import JobCursor, JobListParams, JobOrder
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.expressions import FIRST_TIME, LAST_TIME, readable, state_literal

TEXT_ARGS_BYTES = 2_000
"""Largest args, in bytes as stored, that are searched for a text. Larger ones are stored apart."""


TEXT_ERRORS_BYTES = 8_000
"""Largest errors, in bytes as stored, that are searched for a text."""


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
    time = Job.created_at if params.order_by is JobOrder.id else time_of_list(params)
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
    # In JSON some characters are escaped. A text that was copied from JSON has the escapes.
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


def beyond(after: JobCursor, time: Any, params: JobListParams) -> ColumnElement[bool]:
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


def until(end: JobCursor, time: Any, params: JobListParams) -> ColumnElement[bool]:
    """Return the condition for jobs that are not after `end`, the opposite of `beyond`."""
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


def time_of_list(params: JobListParams) -> Any:
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
