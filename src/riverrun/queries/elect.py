"""The statements of `verbs.elect`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Delete,
    Insert,
    Interval,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    literal_column,
    or_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from riverrun.jobs.columns import Timestamp
from riverrun.models import Leader
from riverrun.queries.expressions import NOW, seconds

_TOO_LONG = literal_column("interval '1 hour'", Interval)
"""Longer than any term. River's are 15 s. Source: River 0.51, internal/leadership."""


@lru_cache
def expire_leader() -> Delete:
    """Remove an expired term. River: LeaderDeleteExpired.

    Also one that ends later than any term can: the server's clock was wrong when it began, and a
    leader that was killed then would keep others from leading for as long.
    """
    return delete(Leader).where(or_(Leader.expires_at < NOW, Leader.expires_at > NOW + _TOO_LONG))


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
