"""The statements of `verbs.claim`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Integer,
    Select,
    Text,
    Update,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries.expressions import ATTEMPT_MAX, NOW, job_column, state_literal

ATTEMPTED_BY_MAX = 100
"""Maximum number of clients in a job's `attempted_by`; the oldest are dropped. Source: River 0.51,
JobGetAvailable."""


PRIORITIES = (1, 2, 3, 4)
"""The priorities that a job can have. Source: River 0.51, the table's check constraint."""


CLAIMED = (
    "id",
    "kind",
    "args",
    "attempt",
    "max_attempts",
    "priority",
    "created_at",
    "scheduled_at",
    "attempted_at",
    "attempted_by",
    "errors",
    "metadata_",
    "tags",
)
"""The columns that a claim returns, in order."""


@lru_cache
def claim_jobs() -> Update:
    """Claim up to `limit` available jobs of `queue` for `client_id`.

    Locks the rows that it claims, and skips locked ones. Index:
    river_job_prioritized_fetching_index. River: JobGetAvailable.
    """
    found = (
        claimable()
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("claimable")
    )
    return claim_of(found)


@lru_cache
def claim_jobs_beyond() -> Update:
    """Claim as `claim_jobs` does, but of each priority only jobs behind a bound.

    The bounds of priority 1 are the binds `since_1`, a time as text, and `after_1`, an id, and so
    on. Each lies in front of the first job that can be claimed, so that the index's dead entries
    before it, of jobs that were worked while some transaction was open, are not read.
    """
    parts = []
    for priority in PRIORITIES:
        since = cast(bindparam(f"since_{priority}", type_=Text), Timestamp)
        after = bindparam(f"after_{priority}", type_=BigInteger)
        part = (
            claimable()
            .where(
                Job.priority == literal_column(str(priority), Job.priority.type),
                tuple_(Job.scheduled_at, Job.id) > tuple_(since, after),
            )
            .order_by(Job.scheduled_at, Job.id)
            .limit(bindparam("limit", type_=Integer))
            .with_for_update(skip_locked=True)
            .subquery()
        )
        parts.append(select(part.c.id))
    # Read one after another, and only until there are enough: no more rows are locked.
    found = union_all(*parts).limit(bindparam("limit", type_=Integer)).cte("claimable")
    return claim_of(found)


@lru_cache
def queues_waiting() -> Select[Any]:
    """Read which queues in the array `names` have a job that `claim_jobs` might claim.

    Locks nothing. Index: river_job_prioritized_fetching_index, once for each queue. The order is
    that of the index, because for one row in any order the planner may choose another way.
    """
    asked = (
        func.unnest(bindparam("names", type_=ARRAY(Text)))
        .table_valued(column("name", Text))
        .render_derived(name="asked")
    )
    first = (
        select(Job.id)
        .where(
            Job.state == state_literal(JobState.available),
            Job.queue == asked.c.name,
            Job.scheduled_at <= func.now(),
        )
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(1)
        .lateral("first")
    )
    return select(asked.c.name).join_from(asked, first, true())


@lru_cache
def claim_job() -> Update:
    """Claim the job `job_id` for `client_id` if it is waiting, even if it is not due.

    Locks its row. Index: river_job_pkey.
    """
    waits = {JobState.available, JobState.pending, JobState.retryable, JobState.scheduled}
    found = (
        select(Job.id)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state.in_([state_literal(state) for state in sorted(waits)]),
        )
        .with_for_update(skip_locked=True)
        .cte("claimable")
    )
    return claim_of(found)


def claimable() -> Select[Any]:
    """Return a select of the ids of jobs of `queue_name` that can be claimed."""
    return select(Job.id).where(
        Job.state == state_literal(JobState.available),
        Job.queue == bindparam("queue_name", type_=Text),
        Job.scheduled_at <= NOW,
    )


def claim_of(found: CTE) -> Update:
    """Return the statement that claims the jobs whose ids are in `found`."""
    client_id = cast(bindparam("client_id"), Text)
    length = func.array_length(Job.attempted_by, 1)
    kept = case(
        # Nothing can be appended to a nested array, and no other job's claim must fail for that.
        (func.array_ndims(Job.attempted_by) > 1, None),
        (
            length >= ATTEMPTED_BY_MAX,
            Job.attempted_by[length - (ATTEMPTED_BY_MAX - 2) : length],
        ),
        else_=Job.attempted_by,
    )
    return (
        update(Job)
        # Not a join: the planner does not know how many rows will be locked, and by its estimate it
        # would read the whole of a table of 50,000 rows for a thousand.
        .where(Job.id == func.any(func.array(select(found.c.id).scalar_subquery())))
        .values(
            state=state_literal(JobState.running),
            attempt=func.least(Job.attempt, ATTEMPT_MAX - 1) + 1,
            attempted_at=NOW,
            attempted_by=func.array_append(kept, client_id),
        )
        .returning(
            *(
                Job.attempted_at if name == "attempted_at" else job_column(name).label(name)
                for name in CLAIMED
            )
        )
    )
