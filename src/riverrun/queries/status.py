"""The statements of `verbs.status`: counts, clients, rates and the leader."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Float,
    Integer,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import ClientRecord, Job, Leader, Queue
from riverrun.queries.expressions import last_claimer, readable, seconds, state_literal


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
    """Read the clients that have heartbeats, by id. Index: riverrun_client_pkey."""
    columns: tuple[Any, ...] = (
        ClientRecord.id,
        ClientRecord.hostname,
        ClientRecord.pid,
        ClientRecord.queues,
        ClientRecord.created_at,
        ClientRecord.heartbeat_at,
        cast(_without_logs(ClientRecord.metadata_), Text).label("metadata"),
        cast(
            func.extract("epoch", func.clock_timestamp() - ClientRecord.heartbeat_at), Float
        ).label("silent_s"),
    )
    return select(*columns).order_by(ClientRecord.id).limit(bindparam("limit", type_=Integer))


def _without_logs(metadata: Any) -> Any:
    """Return a client's metadata without the logs of running attempts, which may be long."""
    is_object = func.jsonb_typeof(metadata) == "object"
    return case((is_object, metadata.op("-")("logs")), else_=metadata)


@lru_cache
def last_worked() -> Select[Any]:
    """Read when a job of each queue in bind `names` was last attempted, approximately.

    For each state and priority it reads only the job that was scheduled last. No index is in the
    order of attempts, but jobs of one priority are claimed in the order of their scheduled_at.

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
def unworked_queues(*, standby: bool) -> Select[Any]:
    """Read queues with due jobs that are not paused and that no live client works, by name.

    A client of riverrun is live if its heartbeat is at most `dead_s` old. River's clients have no
    heartbeats, but renew the rows of their queues every 10 min. Such a row counts if a client of
    River leads or runs a job of the queue. On a `standby` the leader cannot be read, so the row
    always counts.

    Index: river_job_prioritized_fetching_index, once for each queue; riverrun_client_pkey.
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
    led = exists().where(
        Leader.expires_at >= now, ~exists().where(ClientRecord.id == Leader.leader_id)
    )
    running = exists().where(
        Job.state == state_literal(JobState.running),
        Job.queue == name,
        ~exists().where(ClientRecord.id == last_claimer()).correlate(Job),
    )
    renewed = exists().where(
        Queue.name == name, Queue.updated_at >= now - func.make_interval(0, 0, 0, 0, 0, 11)
    )
    theirs = renewed if standby else and_(renewed, or_(led, running))
    return (
        select(name)
        .where(name.is_not(None), due, ~paused, ~ours, ~theirs)
        .order_by(name)
        .limit(bindparam("limit", type_=Integer))
    )


@lru_cache
def finish_rates() -> Select[Any]:
    """Count the jobs that were finalized within `window_s`, at most 1,000 of each final state.

    Returns for each state the number of jobs and the seconds in which they were finalized.

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
def finished_by_time() -> Select[Any]:
    """Count the jobs that were finalized within `window_s`, by state and by steps of `step_s`.

    Reads at most the last `most` of each state. A step begins at a multiple of its length since
    1970. Index: river_job_state_and_finalized_at_index. Where the table is vacuumed, only the index
    is read.
    """
    step_s = cast(bindparam("step_s"), Float)
    # Not clock_timestamp(), for which no index is used.
    now = func.statement_timestamp()
    parts = []
    for state in sorted(FINAL_STATES):
        last = (
            select(Job.finalized_at.label("at"))
            .where(
                Job.state == state_literal(state),
                Job.finalized_at > now - seconds("window_s"),
                Job.finalized_at <= now,
            )
            .order_by(Job.finalized_at.desc())
            .limit(bindparam("most", type_=Integer))
            .subquery(f"last_{state.value}")
        )
        step = func.floor(func.date_part("epoch", last.c.at) / step_s) * step_s
        parts.append(
            select(
                cast(literal(state.value), Text).label("state"),
                func.to_timestamp(step, type_=Timestamp).label("at"),
                func.count().label("finished"),
            )
            .select_from(last)
            .group_by(step)
        )
    return union_all(*parts).order_by("at", "state")  # type: ignore[return-value]


@lru_cache
def running_on() -> Select[Any]:
    """Count the running jobs by client, kind and queue.

    Index: river_job_prioritized_fetching_index, whose part for running jobs is small.
    """
    client = Job.attempted_by[func.array_upper(Job.attempted_by, 1)]
    oldest = readable(func.min(Job.attempted_at, type_=Timestamp))
    return (
        select(
            client.label("client_id"),
            Job.kind,
            Job.queue,
            func.count().label("running"),
            oldest.label("oldest_at"),
            cast(func.extract("epoch", func.clock_timestamp() - oldest), Float).label("age_s"),
        )
        .where(Job.state == state_literal(JobState.running))
        .group_by(client, Job.kind, Job.queue)
        .order_by(client, Job.kind, Job.queue)
    )


@lru_cache
def get_leader() -> Select[Any]:
    """Read the id of the current leader. Index: river_leader_pkey."""
    return select(Leader.leader_id).where(Leader.expires_at > func.now())
