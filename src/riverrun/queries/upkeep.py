"""The statements of heartbeat, leadership and maintenance, as PostgreSQL takes them."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Delete,
    Float,
    Insert,
    Integer,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningDelete

from riverrun.columns import Timestamp
from riverrun.models import ClientRecord, Job, Leader, Queue
from riverrun.queries.postgresql import NOW, job_columns, state_literal
from riverrun.states import JobState

LOST_BYTES = 2 * 1024 * 1024
"""Most bytes of lost jobs read at once, as they are stored: compressed, often to a tenth."""


def _seconds(name: str) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, cast(bindparam(name), Float))


@lru_cache
def beat() -> Insert:
    """Say that client `client_id` lives, with its host, pid, queues and how it is (bind `state`).

    Returns whether somebody leads who never says so, as River's clients do not. Index:
    riverrun_client_pkey.
    """
    statement = insert(ClientRecord).values(
        id=bindparam("client_id", type_=Text),
        heartbeat_at=NOW,
        hostname=bindparam("host", type_=Text),
        pid=bindparam("process", type_=Integer),
        queues=bindparam("names", type_=ARRAY(Text)),
        metadata_=cast(bindparam("state", type_=Text), JSONB),
    )
    leader = aliased(ClientRecord)
    ours = exists().where(leader.id == Leader.leader_id)
    return (
        statement.on_conflict_do_update(
            index_elements=[ClientRecord.id],
            set_={
                "heartbeat_at": statement.excluded.heartbeat_at,
                "queues": statement.excluded.queues,
                "metadata": statement.excluded.metadata,
            },
        )
        .returning(exists().where(Leader.expires_at >= NOW, ~ours))
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def sign_on() -> Insert:
    """Register client `client_id`, unless somebody of that name lives or has left a job running.

    Index: as `leave`.
    """
    client_id = bindparam("client_id", type_=Text)
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    running = exists().where(Job.state == state_literal(JobState.running), owner == client_id)
    values = select(
        client_id,
        NOW,
        bindparam("host", type_=Text),
        bindparam("process", type_=Integer),
    )
    statement = insert(ClientRecord).from_select(
        ["id", "heartbeat_at", "hostname", "pid"], values.where(~running)
    )
    return (
        statement.on_conflict_do_update(
            index_elements=[ClientRecord.id],
            set_={
                "heartbeat_at": statement.excluded.heartbeat_at,
                "hostname": statement.excluded.hostname,
                "pid": statement.excluded.pid,
            },
            where=ClientRecord.heartbeat_at < NOW - _seconds("dead_s"),
        )
        .returning(ClientRecord.id)
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def leave() -> Delete:
    """Forget client `client_id`, unless a running job names it: the rescuer goes by its heartbeat.

    Index: riverrun_client_pkey, and river_job_prioritized_fetching_index for the running jobs.
    """
    own = ClientRecord.id == bindparam("client_id", type_=Text)
    return delete(ClientRecord).where(own, ~_names_a_running_job())


@lru_cache
def touch_jobs() -> Update:
    """Renew the attempt time of the running jobs in binds `ids` and `attempts`.

    River's rescuer goes by that time alone, and would take a healthy job that runs for an hour.
    Skips what others have locked. Index: river_job_pkey.
    """
    mine = (
        func.unnest(
            bindparam("ids", type_=ARRAY(BigInteger)), bindparam("attempts", type_=ARRAY(Integer))
        )
        .table_valued(column("id", BigInteger), column("attempt", Integer))
        .render_derived(name="mine")
    )
    held = (
        select(Job.id)
        .where(
            Job.id == mine.c.id,
            Job.attempt == mine.c.attempt,
            Job.state == state_literal(JobState.running),
        )
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("held")
    )
    touched = Job.id == func.any(func.array(select(held.c.id).scalar_subquery()))
    return update(Job).where(touched).values(attempted_at=NOW)


@lru_cache
def expire_leader() -> Delete:
    """Remove a term that is over. River: LeaderDeleteExpired."""
    return delete(Leader).where(Leader.expires_at < NOW)


@lru_cache
def elect_leader() -> Insert:
    """Begin a term of `ttl_s` seconds, unless somebody leads. River: LeaderAttemptElect."""
    return (
        insert(Leader)
        .values(
            leader_id=bindparam("client_id", type_=Text),
            elected_at=NOW,
            expires_at=NOW + _seconds("ttl_s"),
        )
        .on_conflict_do_nothing(index_elements=[Leader.name])
        .returning(Leader.elected_at)
        .execution_options(dml_strategy="raw")
    )


def _term() -> Any:
    return and_(
        Leader.leader_id == bindparam("client_id", type_=Text),
        Leader.elected_at == bindparam("since", type_=Timestamp),
    )


@lru_cache
def reelect_leader() -> Update:
    """Extend one's own term that is not over. River: LeaderAttemptReelect."""
    return (
        update(Leader)
        .where(_term(), Leader.expires_at >= NOW)
        .values(expires_at=NOW + _seconds("ttl_s"))
        .returning(Leader.elected_at)
    )


@lru_cache
def resign_leader() -> Any:
    """End one's own term. River: LeaderResign."""
    return delete(Leader).where(_term()).returning(Leader.leader_id)


@lru_cache
def lost_jobs() -> Select[Any]:
    """Read and lock running jobs whose client is gone.

    Gone is a client whose heartbeat is older than `dead_s`. One that never had a heartbeat, such as
    River's, is taken for gone when the attempt is older than `stuck_s`, never if that is null, and
    than what the kind's worker may take, as binds `kinds` and `timeouts_s` say, null for ever; one
    whose heart beats keeps its jobs however long they run. Returns no more than `LOST_BYTES`, and
    with each how many it `found`. Skips what others have locked. Index:
    river_job_prioritized_fetching_index, whose part for running jobs is small.
    """
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    known = (
        func.unnest(
            bindparam("kinds", type_=ARRAY(Text)), bindparam("timeouts_s", type_=ARRAY(Float))
        )
        .table_valued(column("kind", Text), column("timeout_s", Float))
        .render_derived(name="known")
    )
    dead = ClientRecord.heartbeat_at < NOW - _seconds("dead_s")
    # One that runs since nobody knows when was not claimed by a client.
    since = func.coalesce(Job.attempted_at, Job.created_at)
    late = since < NOW - func.make_interval(0, 0, 0, 0, 0, 0, known.c.timeout_s)
    stuck = and_(
        ClientRecord.id.is_(None),
        since < NOW - _seconds("stuck_s"),
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
        .outerjoin(ClientRecord, ClientRecord.id == owner)
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
    """Choose up to `limit` clients dead for `dead_s` that no running job names.

    Locks them, and skips what others have locked. Index: river_job_prioritized_fetching_index, for
    the running jobs.
    """
    return (
        select(ClientRecord.id)
        .where(ClientRecord.heartbeat_at < NOW - _seconds("dead_s"), ~_names_a_running_job())
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


def _names_a_running_job() -> Any:
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    return exists().where(Job.state == state_literal(JobState.running), owner == ClientRecord.id)


@lru_cache
def old_jobs() -> Select[Any]:
    """Choose up to `limit` final jobs past their retention after bind `after_id`, by id.

    A null retention keeps them. Locks them, and skips what others have locked. Index:
    river_job_state_and_finalized_at_index.
    """

    def past(state: JobState) -> Any:
        return and_(
            Job.state == state_literal(state),
            Job.finalized_at < NOW - _seconds(f"{state.value}_s"),
        )

    return (
        select(Job.id)
        .where(
            or_(past(JobState.cancelled), past(JobState.completed), past(JobState.discarded)),
            Job.id > bindparam("after_id", type_=BigInteger),
        )
        .order_by(Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache
def clean_jobs() -> ReturningDelete[Any]:
    """Delete the `old_jobs`. River: JobDeleteBefore."""
    return delete(Job).where(Job.id.in_(old_jobs().scalar_subquery())).returning(Job.id)


@lru_cache
def clean_these_jobs() -> ReturningDelete[Any]:
    """Delete the jobs with bind `ids` that are still among the `old_jobs`."""
    these = old_jobs().where(Job.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))
    return delete(Job).where(Job.id.in_(these.scalar_subquery())).returning(Job.id)


@lru_cache
def old_queues() -> Select[Any]:
    """Choose up to `limit` queues not worked for `idle_s`.

    Locks them, and skips what others have locked.
    """
    return (
        select(Queue.name)
        .where(Queue.updated_at < NOW - _seconds("idle_s"))
        .order_by(Queue.name)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache
def clean_queues() -> ReturningDelete[Any]:
    """Delete the `old_queues`. River: QueueDeleteExpired."""
    return delete(Queue).where(Queue.name.in_(old_queues().scalar_subquery())).returning(Queue.name)


@lru_cache
def clean_these_queues() -> ReturningDelete[Any]:
    """Delete the queues with bind `names` that are still among the `old_queues`."""
    these = old_queues().where(Queue.name == func.any(bindparam("names", type_=ARRAY(Text))))
    return delete(Queue).where(Queue.name.in_(these.scalar_subquery())).returning(Queue.name)
