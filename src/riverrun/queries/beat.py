"""The statements of `verbs.beat`."""

from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Delete,
    Insert,
    Integer,
    Text,
    Update,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.orm import aliased

from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Job, Leader
from riverrun.queries.expressions import (
    NOW,
    is_another_s,
    last_claimer,
    names_a_running_job,
    seconds,
    state_literal,
)


@lru_cache
def beat() -> Insert:
    """Write the heartbeat of client `client_id`: host, pid, queues and its health (bind `state`).

    Returns whether the leader is a client without heartbeats, as River's are; nothing if the name
    belongs to another instance than bind `instance`. Index: riverrun_client_pkey.
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
            where=~is_another_s(),
        )
        .returning(exists().where(Leader.expires_at >= NOW, ~ours))
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def sign_on() -> Insert:
    """Register client `client_id`, unless a client of that id is alive or has left a job running.

    Index: the same as for `leave`.
    """
    client_id = bindparam("client_id", type_=Text)
    running = exists().where(
        Job.state == state_literal(JobState.running), last_claimer() == client_id
    )
    values = select(
        client_id,
        NOW,
        bindparam("host", type_=Text),
        bindparam("process", type_=Integer),
        cast(bindparam("state", type_=Text), JSONB),
    )
    statement = insert(ClientRecord).from_select(
        ["id", "heartbeat_at", "hostname", "pid", "metadata"], values.where(~running)
    )
    return (
        statement.on_conflict_do_update(
            index_elements=[ClientRecord.id],
            set_={
                "heartbeat_at": statement.excluded.heartbeat_at,
                "hostname": statement.excluded.hostname,
                "pid": statement.excluded.pid,
                "metadata": statement.excluded.metadata,
            },
            where=ClientRecord.heartbeat_at < NOW - seconds("dead_s"),
        )
        .returning(ClientRecord.id)
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def leave() -> Delete:
    """Remove client `client_id`, unless a running job names it: the rescuer needs its heartbeat.

    Index: riverrun_client_pkey, and river_job_prioritized_fetching_index for the running jobs.
    """
    own = ClientRecord.id == bindparam("client_id", type_=Text)
    return delete(ClientRecord).where(own, ~names_a_running_job())


@lru_cache
def touch_jobs() -> Update:
    """Renew the attempt time of the running jobs in binds `ids` and `attempts`.

    River's rescuer looks only at that time, and would rescue a healthy job that runs for an hour.
    Skips locked rows. Index: river_job_pkey.
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
