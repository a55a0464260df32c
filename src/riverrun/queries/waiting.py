"""The statements of `verbs.waiting`: jobs that are not final, and a job's place in line."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import array as pg_array
from sqlalchemy.orm import aliased

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import readable, state_literal

PRIORITIES = range(1, 5)


@lru_cache
def count_waiting() -> Select[Any]:
    """Count the jobs of each queue in each state that is not final, up to `most` each.

    It finds the queues of a state one after the other, and so does not read all jobs. The earliest
    scheduled_at is that of the first job of a priority.

    Index: river_job_prioritized_fetching_index, and the table where it is not vacuumed.
    """
    place = places([state for state in JobState if not state.is_final])
    first = (
        select(Job.priority.label("priority"))
        .where(Job.state == place.c.state, Job.queue == place.c.queue)
        # In the order of the index, so that the planner does not read the table instead.
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("most", type_=Integer) + 1)
        .correlate(place)
        .lateral("first_jobs")
    )
    numbers = {
        f"priority_{number}": func.count().filter(first.c.priority == number)
        for number in PRIORITIES
    }
    counts = (
        select(func.count().label("found"), *(number.label(key) for key, number in numbers.items()))
        .select_from(first)
        .lateral("counts")
    )
    oldest = oldest_at(place)
    return (
        select(
            place.c.queue,
            cast(place.c.state, Text).label("state"),
            *counts.c,
            readable(oldest.c.at).label("oldest_at"),
            age_s(readable(oldest.c.at)).label("age_s"),
        )
        .select_from(place.join(counts, true()).join(oldest, true()))
        .order_by(place.c.queue, place.c.state)
    )


@lru_cache
def place_in_line() -> Select[Any]:
    """Count the jobs that are claimed before the job with bind `job_id`, up to `most`.

    Returns its state and the count. Jobs that are not due yet do not count, unless they are due
    before the job is. Indexes: river_job_pkey; river_job_prioritized_fetching_index.
    """
    mine = aliased(Job)
    order = (Job.priority, Job.scheduled_at, Job.id)
    before = (
        select(Job.id)
        .where(
            Job.state == state_literal(JobState.available),
            Job.queue == mine.queue,
            tuple_(*order) < tuple_(mine.priority, mine.scheduled_at, mine.id),
            Job.scheduled_at <= func.greatest(func.clock_timestamp(), mine.scheduled_at),
        )
        # In the order of the index, so that the planner does not read the table instead.
        .order_by(*order)
        .limit(bindparam("most", type_=Integer) + 1)
        .correlate(mine)
        .lateral("jobs_before")
    )
    ahead = select(func.count().label("ahead")).select_from(before).lateral("ahead")
    return (
        select(readable(mine.state).label("state"), ahead.c.ahead)
        .select_from(mine)
        # Other jobs are in no line, and nothing is counted for them.
        .outerjoin(ahead, mine.state == state_literal(JobState.available))
        .where(mine.id == bindparam("job_id", type_=BigInteger))
    )


def places(states: Sequence[JobState], name: str = "places") -> Any:
    """Return the queues that have jobs in one of `states`, as rows with `state` and `queue`.

    Index: river_job_prioritized_fetching_index, once for each row.

    Args:
        states: The states.
        name: A name that nothing else in the statement has.
    """
    wanted = func.unnest(pg_array([state_literal(state) for state in states])).column_valued(
        "wanted"
    )
    first: Any = select(
        wanted.label("state"),
        select(func.min(Job.queue)).where(Job.state == wanted).scalar_subquery().label("queue"),
    ).cte(name, recursive=True)
    following = select(func.min(Job.queue)).where(
        Job.state == first.c.state, Job.queue > first.c.queue
    )
    found = first.union_all(
        select(first.c.state, following.scalar_subquery()).where(first.c.queue.is_not(None))
    )
    there = found.c.queue.is_not(None)
    # By arrays, because the planner expects a hundred rows of a recursion, and ten of an array. By
    # its estimate for a hundred it would compile the statement, which takes seconds.
    arrays = [
        func.array(
            select(values).where(there).order_by(found.c.state, found.c.queue).scalar_subquery()
        )
        for values in (found.c.state, found.c.queue)
    ]
    return (
        func.unnest(*arrays)
        .table_valued(column("state", Job.state.type), column("queue", Text))
        .render_derived(name=f"row_of_{name}")
    )


def oldest_at(place: Any) -> Any:
    """Return the earliest scheduled_at of the jobs in a row of `places`, as a row with `at`.

    Index: river_job_prioritized_fetching_index, once for each priority.
    """
    firsts = [
        select(func.min(Job.scheduled_at))
        .where(Job.state == place.c.state, Job.queue == place.c.queue, Job.priority == number)
        .correlate(place)
        .scalar_subquery()
        for number in PRIORITIES
    ]
    # An aggregate is computed once, however often the result is used.
    first = func.unnest(pg_array(firsts)).column_valued("first_at")
    return select(func.min(first, type_=Timestamp).label("at")).lateral("oldest")


def age_s(at: Any) -> Any:
    """Return the seconds since a time, by the database's clock."""
    return cast(func.extract("epoch", func.clock_timestamp() - at), Float)
