"""The statements of operators, as PostgreSQL takes them: what they ask of jobs, and do to them."""

from functools import lru_cache
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Integer,
    Select,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.job_list import JobCursor, JobListParams, JobOrder
from riverrun.models import ClientRecord, Job, Leader, Queue
from riverrun.options import json_text
from riverrun.queries.postgresql import (
    ATTEMPT_MAX,
    FIRST_TIME,
    LAST_TIME,
    NOW,
    job_columns,
    readable,
    state_literal,
)
from riverrun.states import FINAL_STATES, JobState

BRIEF_CHARS = 200
"""Most characters of args and of an error in a brief list."""

BRIEF_ARGS_BYTES = 2_000
"""Args stored in more bytes than this are not read for a brief list."""


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
        readable(ClientRecord.metadata_).label("metadata"),
        cast(
            func.extract("epoch", func.clock_timestamp() - ClientRecord.heartbeat_at), Float
        ).label("silent_s"),
    )
    return select(*columns).order_by(ClientRecord.id).limit(bindparam("limit", type_=Integer))


@lru_cache
def last_worked() -> Select[Any]:
    """Read when a job of each queue in bind `names` was last attempted, of those scheduled last.

    A look at the end of each state and priority: no index is in the order of attempts, and jobs of
    one priority are claimed in the order of their times.

    Index: river_job_prioritized_fetching_index.
    """
    names = (
        func.unnest(bindparam("names", type_=ARRAY(Text)))
        .table_valued("name")
        .render_derived(name="queues")
    )
    priorities = func.generate_series(1, 4).table_valued("number").render_derived(name="priorities")
    attempted = [JobState.running, JobState.retryable, *sorted(FINAL_STATES)]
    looks = [
        select(readable(Job.attempted_at).label("at"))
        .where(
            Job.state == state_literal(state),
            Job.queue == names.c.name,
            Job.priority == priorities.c.number,
        )
        .order_by(Job.scheduled_at.desc(), Job.id.desc())
        .limit(1)
        .lateral(state.value)
        for state in attempted
    ]
    source: Any = names.join(priorities, true())
    for look in looks:
        source = source.outerjoin(look, true())
    latest = func.max(func.greatest(*(look.c.at for look in looks)))
    return select(names.c.name, latest.label("at")).select_from(source).group_by(names.c.name)


@lru_cache
def unworked_queues() -> Select[Any]:
    """Read queues with due jobs that are not paused and that no living client works, by name.

    A client of riverrun's lives if its heartbeat is at most `dead_s` old. River's have none: where
    one leads or runs a job of the queue, the queue's row, which they renew every 10 min, counts.

    Index: river_job_prioritized_fetching_index, a look for each queue; riverrun_client_pkey.
    """
    available = Job.state == state_literal(JobState.available)
    first: Any = select(func.min(Job.queue).label("name")).where(available)
    first = first.cte("waiting", recursive=True)
    following = select(func.min(Job.queue)).where(available, Job.queue > first.c.name)
    waiting = first.union_all(select(following.scalar_subquery()).where(first.c.name.is_not(None)))
    name = waiting.c.name
    now = func.clock_timestamp()
    due = exists().where(available, Job.queue == name, Job.scheduled_at <= now)
    paused = exists().where(Queue.name == name, Queue.paused_at.is_not(None))
    dead_s = cast(bindparam("dead_s"), Float)
    ours = exists().where(
        ClientRecord.heartbeat_at >= now - func.make_interval(0, 0, 0, 0, 0, 0, dead_s),
        name == any_(ClientRecord.queues),
    )
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    led = exists().where(
        Leader.expires_at >= now, ~exists().where(ClientRecord.id == Leader.leader_id)
    )
    running = exists().where(
        Job.state == state_literal(JobState.running),
        Job.queue == name,
        ~exists().where(ClientRecord.id == owner).correlate(Job),
    )
    renewed = exists().where(
        Queue.name == name, Queue.updated_at >= now - func.make_interval(0, 0, 0, 0, 0, 11)
    )
    return (
        select(name)
        .where(name.is_not(None), due, ~paused, ~ours, ~and_(renewed, or_(led, running)))
        .order_by(name)
        .limit(bindparam("limit", type_=Integer))
    )


@lru_cache
def finish_rates() -> Select[Any]:
    """Count the jobs that were finalized last, of each final state at most 1,000, in `window_s`.

    Returns for each state their number and in how many seconds they were finalized.

    Index: river_job_state_and_finalized_at_index.
    """
    window_s = cast(bindparam("window_s"), Float)
    since = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, window_s)
    parts = []
    for state in sorted(FINAL_STATES):
        last = (
            select(Job.finalized_at)
            .where(Job.state == state_literal(state), Job.finalized_at > since)
            .order_by(Job.finalized_at.desc())
            .limit(1_000)
            .subquery()
        )
        passed = func.extract("epoch", func.clock_timestamp() - func.min(last.c.finalized_at))
        parts.append(
            select(
                cast(literal(state.value), Text).label("state"),
                func.count().label("count"),
                cast(case((func.count() < 1_000, window_s), else_=passed), Float).label("seconds"),
            ).select_from(last)
        )
    return union_all(*parts)  # type: ignore[return-value]


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

    Index: river_job_pkey in the order of ids; river_job_state_and_finalized_at_index in the order
    of ends; river_job_prioritized_fetching_index by state and queue; river_job_kind,
    river_job_metadata_index.
    """
    return _listed(params, *job_columns())


def list_briefs(params: JobListParams, *, errors: bool) -> Select[Any]:
    """Read what a table shows of the jobs that `params` ask for. Indexes: as `list_jobs`.

    Args that are long stay where they are: a page of 50 jobs with 1 MB each would take a second.
    """
    stored = func.pg_column_size(Job.args)
    short = case((stored <= BRIEF_ARGS_BYTES, func.left(cast(Job.args, Text), BRIEF_CHARS)))
    last = type_coerce(Job.errors, ARRAY(JSONB))[func.array_upper(Job.errors, 1)]
    error = func.left(last.op("->>")("error"), BRIEF_CHARS) if errors else null()
    return _listed(
        params,
        *(readable(getattr(Job, name)).label(name) for name in _BRIEF),
        short.label("args"),
        stored.label("args_bytes"),
        type_coerce(error, Text).label("last_error"),
    )


def count_listed(params: JobListParams, most: int) -> Select[Any]:
    """Count the jobs that `params` ask for, up to `most`. Indexes: as `list_jobs`."""
    found = select(Job.id).where(*_filters(params)).limit(most).subquery()
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


def _listed(params: JobListParams, *columns: Any) -> Select[Any]:
    time = _time(params)
    key = [Job.id] if params.order_by is JobOrder.id else [time, Job.id]
    order = [each.desc() if params.descending else each for each in key]
    statement = select(*columns, readable(time).label("order_time")).order_by(*order)
    states = params.states or ()
    if time is Job.finalized_at and len(states) > 1 and set(states) <= FINAL_STATES:
        # The index has each state's jobs in the order of their ends, and not those of several.
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
        # By an expression, or the planner walks the primary key past all that is final.
        place = Job.id + 0
        page = select(Job.id).where(*_page(params, time)).limit(params.limit)
        found = page.order_by(place.desc() if params.descending else place).subquery()
    else:
        return statement.where(*_page(params, time)).limit(params.limit)
    return statement.where(Job.id.in_(select(found.c.id))).limit(params.limit)


def _page(params: JobListParams, time: Any) -> list[ColumnElement[bool]]:
    filters = _filters(params)
    if time is Job.finalized_at and set(params.states or ()) <= FINAL_STATES:
        filters.append(Job.finalized_at.is_not(None))  # as the index says
    if (after := params.cursor()) is not None:
        filters.append(_beyond(after, time, params))
    return filters


def delete_jobs(params: JobListParams) -> ReturningDelete[Any]:
    """Delete the jobs that `params` ask for, none that runs.

    Locks what it deletes and skips what others have locked. River: JobDeleteMany.
    """
    chosen = (
        _listed(params, Job.id)
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
        if params.states is None:
            # All of them, for an index that begins with the state.
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
