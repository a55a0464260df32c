"""The statements of `verbs.actions`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Insert, Integer, Select, Text, bindparam, cast, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from riverrun.models import Action
from riverrun.queries.expressions import readable


@lru_cache
def record() -> Insert:
    """Insert a row of what a user did, and return it."""
    return (
        insert(Action)
        .values(
            user_name=bindparam("by_user", type_=Text),
            action=bindparam("done", type_=Text),
            count=bindparam("how_many", type_=BigInteger),
            job_ids=cast(bindparam("which", type_=Text), ARRAY(BigInteger)),
            filter=cast(bindparam("chosen_by", type_=Text), JSONB),
        )
        .returning(*_columns())
        .execution_options(dml_strategy="raw")
    )


@lru_cache
def list_actions() -> Select[Any]:
    """Read up to `limit` actions before bind `before_id`, newest first. Index: its primary key."""
    before = Action.id < bindparam("before_id", type_=BigInteger)
    limit = bindparam("limit", type_=Integer)
    return select(*_columns()).where(before).order_by(Action.id.desc()).limit(limit)


def _columns() -> list[Any]:
    names = ("id", "created_at", "user_name", "action", "count", "job_ids", "filter")
    return [readable(getattr(Action, name)).label(name) for name in names]
