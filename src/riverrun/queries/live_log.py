"""The statement of `verbs.live_log`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Select, Text, bindparam, cast, func, select

from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Job
from riverrun.queries.expressions import state_literal


@lru_cache
def get_live_log() -> Select[Any]:
    """Read what the client that runs job `job_id` has written of its log.

    Indexes: river_job_pkey, riverrun_client_pkey.
    """
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    entry = ClientRecord.metadata_.op("->")("logs").op("->")(cast(Job.id, Text))
    return (
        select(
            Job.attempt,
            ClientRecord.heartbeat_at,
            entry.op("->>")("attempt").label("of"),
            entry.op("->>")("log").label("log"),
        )
        .join(ClientRecord, ClientRecord.id == owner)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state == state_literal(JobState.running),
        )
    )
