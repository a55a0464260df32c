"""The statement of `verbs.failures`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Select,
    SmallInteger,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    null,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import readable, state_literal

ERROR_CHARS = 500
"""Maximum number of characters of an error that are read."""


ERRORS_BYTES = 64_000
"""Largest errors of a job, in bytes as stored, that are read."""


LEAST_SHARE = 10
"""Minimum number of retryable jobs that are read of each queue and priority."""


@lru_cache
def read_failed() -> Select[Any]:
    """Read jobs that have failed: the last `window` discarded ones, and `window` retryable ones.

    No index has the retryable jobs in the order in which they failed. Each queue and priority with
    such jobs, a `line`, gets an equal share of the window, so that a busy one does not hide the
    others. From each line it reads the jobs that are due last.

    Returns the last error, and when the attempt ended or, of a retryable job, began, in seconds
    since 1970.
    Indexes: river_job_state_and_finalized_at_index; river_job_prioritized_fetching_index.
    """
    window = bindparam("window", type_=Integer)
    discarded = (
        select(*_columns(Job.finalized_at), cast(null(), BigInteger).label("line"))
        .where(
            Job.state == state_literal(JobState.discarded),
            Job.finalized_at.is_not(None),  # the condition of the partial index
        )
        .order_by(Job.finalized_at.desc(), Job.id.desc())
        .limit(window)
        .subquery("discarded")
    )
    parts = [select(*discarded.c), retryable_jobs(window, *_columns(_began()))]
    return union_all(*parts)  # type: ignore[return-value]


def retryable_jobs(window: Any, *columns: Any) -> Select[Any]:
    """Read `columns` of about `window` retryable jobs, with the number of the `line` of each."""
    queue, priority = Job.queue.label("queue"), Job.priority.label("priority")
    retryable = Job.state == state_literal(JobState.retryable)
    start = select(queue, priority).where(retryable).order_by(queue, priority).limit(1).subquery()
    first: Any = select(*start.c).cte("retryable_lines", recursive=True)
    following = (
        select(queue, priority)
        .where(retryable, tuple_(Job.queue, Job.priority) > tuple_(first.c.queue, first.c.priority))
        .order_by(Job.queue, Job.priority)
        .limit(1)
        .lateral("following")
    )
    lines = first.union_all(select(*following.c).select_from(first.join(following, true())))
    # As arrays: of these the planner expects ten rows, and of a recursion far more.
    arrays = [
        func.array(select(values).order_by(*lines.c).scalar_subquery())
        for values in (lines.c.queue, lines.c.priority)
    ]
    line = (
        func.unnest(*arrays)
        .table_valued(
            column("queue", Text), column("priority", SmallInteger), with_ordinality="number"
        )
        .render_derived(name="line")
    )
    count = select(func.count()).select_from(lines).scalar_subquery()
    jobs = (
        select(*columns)
        .where(retryable, Job.queue == line.c.queue, Job.priority == line.c.priority)
        .order_by(Job.scheduled_at.desc(), Job.id.desc())
        .limit(func.greatest(LEAST_SHARE, window / func.greatest(count, 1)))
        .correlate(line)
        .lateral("retryable")
    )
    return select(*jobs.c, line.c.number.label("line")).select_from(line.join(jobs, true()))


def _began() -> Any:
    return func.coalesce(Job.attempted_at, Job.created_at, type_=Timestamp)


def _columns(at: Any) -> list[Any]:
    last = type_coerce(Job.errors, ARRAY(JSONB))[func.array_upper(Job.errors, 1)]
    # As in `JobRow.errors`, an error that is not an object is its own text.
    whole = last.op("#>>")(literal_column("'{}'::text[]"))
    error = case((func.jsonb_typeof(last) == "object", last.op("->>")("error")), else_=whole)
    small = func.pg_column_size(Job.errors) <= ERRORS_BYTES
    return [
        Job.id.label("id"),
        Job.kind.label("kind"),
        readable(Job.state).label("state"),
        _epoch(readable(at)).label("at_s"),
        type_coerce(case((small, func.left(error, ERROR_CHARS))), Text).label("error"),
        _epoch(func.now()).label("now_s"),
    ]


def _epoch(time: Any) -> Any:
    """Return a time in seconds since 1970, because a driver reads a number ten times as fast."""
    return cast(func.extract("epoch", time), Float)


@lru_cache
def clock() -> Select[Any]:
    """Read the database's time in seconds since 1970."""
    return select(_epoch(func.now()))
