"""The statements of `verbs.elect`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import Delete, Insert, Text, Update, and_, bindparam, delete, update
from sqlalchemy.dialects.postgresql import insert

from riverrun.jobs.columns import Timestamp
from riverrun.models import Leader
from riverrun.queries.expressions import NOW, seconds


@lru_cache
def expire_leader() -> Delete:
    """Remove an expired term. River: LeaderDeleteExpired."""
    return delete(Leader).where(Leader.expires_at < NOW)


@lru_cache
def elect_leader() -> Insert:
    """Begin a term of `ttl_s` seconds, unless a client leads. River: LeaderAttemptElect."""
    return (
        insert(Leader)
        .values(
            leader_id=bindparam("client_id", type_=Text),
            elected_at=NOW,
            expires_at=NOW + seconds("ttl_s"),
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
    """Extend the client's own term if it has not expired. River: LeaderAttemptReelect."""
    return (
        update(Leader)
        .where(_term(), Leader.expires_at >= NOW)
        .values(expires_at=NOW + seconds("ttl_s"))
        .returning(Leader.elected_at)
    )


@lru_cache
def resign_leader() -> Any:
    """End the client's own term. River: LeaderResign."""
    return delete(Leader).where(_term()).returning(Leader.leader_id)
