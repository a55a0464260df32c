"""The statements of `verbs.rescue`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    column,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Job
from riverrun.queries.expressions import (
    NOW,
    job_columns,
    last_claimer,
    names_a_running_job,
    seconds,
    state_literal,
)

LOST_BYTES = 2 * 1024 * 1024
"""Maximum number of bytes of lost jobs that are read at once, counted as they are stored.

They are stored compressed, often to a tenth.
"""


@lru_cache
def lost_jobs() -> Select[Any]:
    """Read and lock running jobs whose client is gone.

    A client is gone if its heartbeat is older than `dead_s`. While it has heartbeats it keeps its
    jobs, however long they run. A client without heartbeats, such as River's, is considered gone
    when the attempt is older than both `stuck_s` and the timeout of the job's kind, in binds
    `kinds` and `timeouts_s`. A null in either means never.

    Returns jobs of at most `LOST_BYTES`, and with each the number of jobs `found`. Skips locked
    rows. Index: river_job_prioritized_fetching_index, whose part for running jobs is small.
    """
    known = (
        func.unnest(
            bindparam("kinds", type_=ARRAY(Text)), bindparam("timeouts_s", type_=ARRAY(Float))
        )
        .table_valued(column("kind", Text), column("timeout_s", Float))
        .render_derived(name="known")
    )
    dead = ClientRecord.heartbeat_at < NOW - seconds("dead_s")
    # Without attempted_at the job was not claimed by a client.
    since = func.coalesce(Job.attempted_at, Job.created_at)
    late = since < NOW - func.make_interval(0, 0, 0, 0, 0, 0, known.c.timeout_s)
    stuck = and_(
        ClientRecord.id.is_(None),
        since < NOW - seconds("stuck_s"),
        or_(known.c.kind.is_(None), late),
    )
    size = func.coalesce(
        func.pg_column_size(Job.args)
        + func.pg_column_size(Job.metadata_)
        + func.coalesce(func.pg_column_size(Job.errors), 0),
        0,
    )
    lost = (
        select(Job.id, size.label("size"))
        .outerjoin(ClientRecord, ClientRecord.id == last_claimer())
        .outerjoin(known, known.c.kind == Job.kind)
        .where(
            Job.state == state_literal(JobState.running),
            Job.id > bindparam("after_id", type_=BigInteger),
            or_(dead, stuck),
        )
        .order_by(Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True, key_share=True, of=Job)
        .cte("lost")
    )
    before = func.sum(lost.c.size).over(order_by=lost.c.id) - lost.c.size
    sized = select(lost.c.id, before.label("before"), func.count().over().label("found")).cte(
        "sized"
    )
    return (
        select(*job_columns(), NOW.label("moment"), sized.c.found)
        .join(sized, sized.c.id == Job.id)
        .where(sized.c.before < LOST_BYTES)
        .order_by(Job.id)
    )


@lru_cache
def dead_clients() -> Select[Any]:
    """Choose up to `limit` clients without running jobs, and without a heartbeat for `dead_s`.

    Locks the rows, and skips locked ones. Index: river_job_prioritized_fetching_index, for the
    running jobs.
    """
    return (
        select(ClientRecord.id)
        .where(ClientRecord.heartbeat_at < NOW - seconds("dead_s"), ~names_a_running_job())
        .order_by(ClientRecord.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True, of=ClientRecord)
    )


@lru_cache
def forget_clients() -> ReturningDelete[Any]:
    """Remove the `dead_clients`."""
    dead = dead_clients().scalar_subquery()
    return delete(ClientRecord).where(ClientRecord.id.in_(dead)).returning(ClientRecord.id)


@lru_cache
def forget_these_clients() -> ReturningDelete[Any]:
    """Remove the clients with bind `names` that are still among the `dead_clients`."""
    named = ClientRecord.id == func.any(bindparam("names", type_=ARRAY(Text)))
    dead = dead_clients().where(named).scalar_subquery()
    return delete(ClientRecord).where(ClientRecord.id.in_(dead)).returning(ClientRecord.id)
