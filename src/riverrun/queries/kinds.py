"""The statements of `verbs.kinds`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Float,
    Integer,
    Select,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)

from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.models import Job
from riverrun.queries.expressions import readable, state_literal
from riverrun.queries.failures import retryable_jobs


@lru_cache
def kind_stats() -> Select[Any]:
    """Read the times and attempts of the last `window` jobs that ended or failed, by kind.

    Indexes: river_job_state_and_finalized_at_index; river_job_prioritized_fetching_index, for the
    retryable ones.
    """
    window = bindparam("window", type_=Integer)
    parts = [_last(state, window) for state in sorted(FINAL_STATES)]
    parts.append(retryable_jobs(window, *_columns(JobState.retryable)))
    # Without the column `line`, which only the retryable jobs have.
    every = union_all(*(select(*list(part.subquery().c)[:6]) for part in parts)).subquery()
    ended = select(*every.c).order_by(every.c.at.desc()).limit(window).subquery("ended")
    percentiles = [
        func.percentile_cont(share).within_group(seconds).label(f"{name}_p{share * 100:.0f}_s")
        for name, seconds in (("run", ended.c.run_s), ("wait", ended.c.wait_s))
        for share in (0.5, 0.95)
    ]
    return (
        select(
            ended.c.kind,
            func.count().label("ended"),
            func.count().filter(ended.c.failed).label("failed"),
            *percentiles,
            func.array_agg(ended.c.attempt).label("attempts"),
        )
        .group_by(ended.c.kind)
        .order_by(func.count().desc(), ended.c.kind)
    )


def _last(state: JobState, window: Any) -> Select[Any]:
    return (
        select(*_columns(state))
        .where(
            Job.state == state_literal(state),
            Job.finalized_at.is_not(None),  # the condition of the partial index
        )
        .order_by(Job.finalized_at.desc())
        .limit(window)
    )


def _columns(state: JobState) -> list[Any]:
    """Return the columns of a job in `state`, with its times if its last attempt led to it."""
    attempted = readable(Job.attempted_at)
    run_s = wait_s = cast(null(), Float)
    if state in (JobState.completed, JobState.discarded):
        run_s = _seconds(readable(Job.finalized_at) - attempted)
        wait_s = _seconds(attempted - readable(Job.scheduled_at))
    at = Job.finalized_at if state.is_final else func.coalesce(Job.attempted_at, Job.created_at)
    return [
        Job.kind.label("kind"),
        at.label("at"),
        literal(state in (JobState.discarded, JobState.retryable)).label("failed"),
        Job.attempt.label("attempt"),
        run_s.label("run_s"),
        wait_s.label("wait_s"),
    ]


def _seconds(interval: Any) -> Any:
    passed = cast(func.extract("epoch", interval), Float)
    return case((passed < 0.0, 0.0), else_=passed)  # the clock may have been changed


@lru_cache
def list_kinds() -> Select[Any]:
    """Read up to `limit` kinds by name, one after the other. Index: river_job_kind."""
    first: Any = select(func.min(Job.kind).label("kind")).cte("kinds", recursive=True)
    following = select(func.min(Job.kind)).where(Job.kind > first.c.kind).scalar_subquery()
    kinds = first.union_all(select(following).where(first.c.kind.is_not(None)))
    there = kinds.c.kind.is_not(None)
    # Not in order by a sort: the recursion ends at the limit, and is in order.
    return select(kinds.c.kind).where(there).limit(bindparam("limit", type_=Integer))
