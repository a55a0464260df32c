"""The statements of operators, as PostgreSQL takes them: what they ask of jobs, and do to them."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Integer,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.columns import Timestamp
from riverrun.job_list import JobCursor, JobListParams, JobOrder
from riverrun.models import ClientRecord, Job, Leader
from riverrun.options import json_text
from riverrun.queries.postgresql import (
    ATTEMPT_MAX,
    FIRST_TIME,
    LAST_TIME,
    job_columns,
    readable,
    state_literal,
)
from riverrun.states import FINAL_STATES, JobState

_NOW = func.coalesce(cast(bindparam("now"), Timestamp), func.now())


@lru_cache
def get_job() -> Select[Any]:
    """Read the job with bind `job_id`. Index: river_job_pkey. River: JobGetByID."""
    return select(*job_columns()).where(Job.id == bindparam("job_id", type_=BigInteger))


@lru_cache
def count_jobs() -> Select[Any]:
    """Count jobs that are not final by queue and state, with the earliest scheduled_at of each.

    Index: river_job_prioritized_fetching_index.
    """
    states = [state_literal(state) for state in JobState if not state.is_final]
    oldest = readable(func.min(Job.scheduled_at))
    return (
        select(
            Job.queue,
            Job.state,
            func.count().label("count"),
            oldest.label("oldest_at"),
            cast(func.extract("epoch", func.clock_timestamp() - oldest), Float).label("age_s"),
        )
        .where(Job.state.in_(states))
        .group_by(Job.queue, Job.state)
        .order_by(Job.queue, Job.state)
    )


@lru_cache
def list_clients() -> Select[Any]:
    """Read the clients that say that they live, by id. Index: riverrun_client_pkey."""
    columns: tuple[Any, ...] = (
        ClientRecord.id,
        ClientRecord.hostname,
        ClientRecord.pid,
        ClientRecord.queues,
        ClientRecord.created_at,
        ClientRecord.heartbeat_at,
        cast(
            func.extract("epoch", func.clock_timestamp() - ClientRecord.heartbeat_at), Float
        ).label("silent_s"),
    )
    return select(*columns).order_by(ClientRecord.id).limit(bindparam("limit", type_=Integer))


@lru_cache
def get_leader() -> Select[Any]:
    """Read who leads now. Index: river_leader_pkey."""
    return select(Leader.leader_id).where(Leader.expires_at > func.now())


@lru_cache
def cancel_job() -> Update:
    """Cancel the job with bind `job_id`; a running one is only marked, a final one not touched.

    Locks the row. Index: river_job_pkey. River: JobCancel.
    """
    running = Job.state == state_literal(JobState.running)
    mark = func.jsonb_build_object("cancel_attempted_at", _NOW)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state.not_in([state_literal(state) for state in sorted(FINAL_STATES)]),
        )
        .values(
            state=case((running, Job.state), else_=state_literal(JobState.cancelled)),
            finalized_at=case((running, Job.finalized_at), else_=_NOW),
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


@lru_cache
def retry_job() -> Update:
    """Make the job with bind `job_id` available now, unless it runs or is available and due.

    Locks the row. Index: river_job_pkey. River: JobRetry.
    """
    due = and_(Job.state == state_literal(JobState.available), Job.scheduled_at < _NOW)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state != state_literal(JobState.running),
            ~due,
        )
        .values(
            state=state_literal(JobState.available),
            scheduled_at=_NOW,
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


@lru_cache
def update_job() -> Update:
    """Merge bind `merged` into the metadata of the job with bind `job_id`. River: JobUpdate."""
    merged = cast(bindparam("merged", type_=Text), JSONB)
    return (
        update(Job)
        .where(Job.id == bindparam("job_id", type_=BigInteger))
        .values(metadata_=Job.metadata_.op("||")(merged))
        .returning(*job_columns())
    )


def list_jobs(params: JobListParams) -> Select[Any]:
    """Read the jobs that `params` ask for, in their order, with the time that orders them.

    Index: river_job_pkey in the order of ids; river_job_prioritized_fetching_index by state and
    queue; river_job_state_and_finalized_at_index, river_job_kind, river_job_metadata_index.
    """
    time = _time(params)
    statement = select(*job_columns(), readable(time).label("order_time")).where(*_filters(params))
    key = [Job.id] if params.order_by is JobOrder.id else [time, Job.id]
    statement = statement.order_by(*(each.desc() if params.descending else each for each in key))
    if (after := params.cursor()) is not None:
        statement = statement.where(_beyond(after, time, params))
    return statement.limit(params.limit)


def delete_jobs(params: JobListParams) -> ReturningDelete[Any]:
    """Delete the jobs that `params` ask for, none that runs.

    Locks what it deletes and skips what others have locked. River: JobDeleteMany.
    """
    chosen = (
        list_jobs(params)
        .with_only_columns(Job.id)
        .where(Job.state != state_literal(JobState.running))
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    return delete(Job).where(Job.id == chosen.c.id).returning(*job_columns())


def _filters(params: JobListParams) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if params.ids is not None:
        filters.append(Job.id.in_(params.ids))
    if params.kinds is not None:
        filters.append(Job.kind.in_(params.kinds))
    if params.queues is not None:
        filters.append(Job.queue.in_(params.queues))
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
    """Return what stands after a cursor; no time is later than any, as PostgreSQL sorts it."""
    here = Job.id < after.id if params.descending else Job.id > after.id
    if params.order_by is JobOrder.id:
        return here
    if after.time is None:
        if params.descending:
            return or_(time.is_not(None), here)
        return and_(time.is_(None), here)
    # Of times that Python cannot tell the cursor knows only that: no index serves them.
    compared = readable(time) if after.time in (FIRST_TIME, LAST_TIME) else time
    place, last = tuple_(compared, Job.id), [after.time, after.id]
    if params.descending:
        return place < last
    return place > last if time is Job.scheduled_at else or_(place > last, time.is_(None))


def _time(params: JobListParams) -> Any:
    """Return the column that orders."""
    if params.order_by is JobOrder.finalized_at:
        return Job.finalized_at
    if params.order_by is JobOrder.time and params.states:
        first = params.states[0]
        if first.is_final:
            return Job.finalized_at
        if first is JobState.running:
            return Job.attempted_at
    return Job.scheduled_at
