"""The statement of `verbs.overview`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    exists,
    func,
    literal,
    null,
    select,
    true,
    union_all,
)

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Job, Leader, Queue
from riverrun.queries.expressions import readable, seconds, state_literal
from riverrun.queries.rescues import rescued_at, was_rescued
from riverrun.queries.status import unworked_queues
from riverrun.queries.waiting import PRIORITIES, age_s, oldest_at, places

RESCUES_READ = 1_000
"""How many rescued jobs are looked at, the newest first."""


# Not clock_timestamp(), for which no index is used.
_NOW = func.statement_timestamp()


@lru_cache
def problems(*, standby: bool) -> Select[Any]:
    """Read what is wrong now, at most `limit` rows of each problem, the worst first.

    On a `standby` the leader cannot be read. Indexes: river_leader_pkey; riverrun_client_pkey;
    river_job_prioritized_fetching_index, several times for each queue and state;
    river_job_metadata_index.
    """
    parts = [] if standby else [_no_leader()]
    parts += [_silent_clients(), _unworked(standby), _long_waits(), _overdue(), _rescued()]
    limited = [
        select(*part.limit(bindparam("limit", type_=Integer)).subquery().c) for part in parts
    ]
    found = union_all(*limited).subquery("problems")
    since = readable(found.c.since)
    return select(
        found.c.problem,
        found.c.subject,
        found.c.state,
        found.c.number,
        since.label("since"),
        age_s(since).label("age_s"),
    )


def _row(
    problem: str,
    subject: Any = None,
    *,
    state: Any = None,
    number: Any = None,
    since: Any = None,
) -> Select[Any]:
    columns: tuple[Any, ...] = (
        cast(literal(problem), Text).label("problem"),
        cast(null() if subject is None else subject, Text).label("subject"),
        cast(null() if state is None else state, Text).label("state"),
        cast(null() if number is None else number, BigInteger).label("number"),
        cast(null() if since is None else since, Timestamp).label("since"),
    )
    return select(*columns)


def _no_leader() -> Select[Any]:
    last = select(func.max(Leader.expires_at)).scalar_subquery()
    led = exists().where(Leader.expires_at > _NOW)
    return _row("no_leader", since=last).where(~led)


def _silent_clients() -> Select[Any]:
    return (
        _row("silent_client", ClientRecord.id, since=ClientRecord.heartbeat_at)
        .where(ClientRecord.heartbeat_at < _NOW - seconds("dead_s"))
        .order_by(ClientRecord.heartbeat_at)
    )


def _unworked(standby: bool) -> Select[Any]:
    name = unworked_queues(standby=standby).subquery("unworked").c.name
    place = select(state_literal(JobState.available).label("state"), name.label("queue"))
    queue = place.subquery("unworked_queues")
    oldest = oldest_at(queue)
    return (
        _row("unworked_queue", queue.c.queue, since=oldest.c.at)
        .select_from(queue.join(oldest, true()))
        .order_by(oldest.c.at)
    )


def _long_waits() -> Select[Any]:
    place = places([JobState.available], "waiting_places")
    oldest = oldest_at(place)
    paused = exists().where(Queue.name == place.c.queue, Queue.paused_at.is_not(None))
    return (
        _row("long_wait", place.c.queue, since=oldest.c.at)
        .select_from(place.join(oldest, true()))
        .where(oldest.c.at < _NOW - seconds("wait_s"), ~paused.correlate(place))
        .order_by(oldest.c.at)
    )


def _overdue() -> Select[Any]:
    place = places([JobState.retryable, JobState.scheduled], "later_places")
    priorities = (
        func.generate_series(PRIORITIES[0], PRIORITIES[-1])
        .table_valued("number")
        .render_derived(name="priorities")
    )
    late = (
        select(Job.scheduled_at.label("at"))
        .where(
            Job.state == place.c.state,
            Job.queue == place.c.queue,
            Job.priority == priorities.c.number,
            Job.scheduled_at < _NOW - seconds("late_s"),
        )
        .order_by(Job.scheduled_at)
        .limit(bindparam("most", type_=Integer) + 1)
        .correlate(place, priorities)
        .lateral("late")
    )
    state = cast(place.c.state, Text)
    return (
        _row("overdue", state=state, number=func.count(), since=func.min(late.c.at))
        .select_from(place.join(priorities, true()).join(late, true()))
        .group_by(state)
    )


def _rescued() -> Select[Any]:
    last = (
        select(rescued_at().label("at"))
        .where(was_rescued())
        .order_by(Job.id.desc())
        .limit(RESCUES_READ)
        .subquery("last_rescues")
    )
    # Compared as text, because the time in an error may be any text.
    since, until = (
        func.to_char(func.timezone("UTC", time), 'YYYY-MM-DD"T"HH24:MI:SS')
        for time in (_NOW - seconds("rescued_s"), _NOW + func.make_interval(0, 0, 0, 1))
    )
    at = last.c.at.collate("C")
    return (
        _row("rescued", number=func.count())
        .select_from(last)
        .where(at >= since, at < until)
        .having(func.count() > 0)
    )
