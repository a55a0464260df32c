"""The statements of `verbs.queues`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Insert,
    Integer,
    Select,
    Text,
    Update,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from riverrun.models import Queue
from riverrun.queries.expressions import NOW, readable

ALL = "*"
"""The name that means all queues."""


def _columns() -> list[Any]:
    # With labels, because a Session names a column by its attribute, a Connection by its column.
    names = ("name", "created_at", "metadata_", "paused_at", "updated_at")
    return [readable(getattr(Queue, name)).label(name) for name in names]


def _named() -> Any:
    name = bindparam("queue_name", type_=Text)
    return or_(Queue.name == name, name == ALL)


@lru_cache
def upsert_queues() -> Insert:
    """Record that the queues in bind `names` are being worked, and return their rows.

    Index: river_queue_pkey. River: QueueCreateOrSetUpdatedAt.
    """
    names = func.unnest(bindparam("names", type_=ARRAY(Text))).table_valued("name")
    statement = insert(Queue).from_select(
        ["name", "created_at", "updated_at"], select(names.c.name, NOW, NOW).order_by("name")
    )
    return (
        statement.on_conflict_do_update(
            index_elements=[Queue.name], set_={"updated_at": statement.excluded.updated_at}
        )
        .execution_options(dml_strategy="raw")
        .returning(*_columns())
    )


@lru_cache
def get_queue() -> Select[Any]:
    """Read the queue with bind `queue_name`. Index: river_queue_pkey."""
    return select(*_columns()).where(Queue.name == bindparam("queue_name", type_=Text))


@lru_cache
def list_queues() -> Select[Any]:
    """Read up to `limit` queues, by name. Index: river_queue_pkey."""
    return select(*_columns()).order_by(Queue.name).limit(bindparam("limit", type_=Integer))


@lru_cache
def read_queues() -> Select[Any]:
    """Read the queues in bind `names`. Index: river_queue_pkey."""
    return select(*_columns()).where(Queue.name == func.any(bindparam("names", type_=ARRAY(Text))))


@lru_cache
def pause_queue() -> Update:
    """Pause the queue with bind `queue_name`, or all. A paused queue keeps the time of its pause.

    Locks the rows. Index: river_queue_pkey. River: QueuePause.
    """
    moved = case((Queue.paused_at.is_(None), NOW), else_=Queue.updated_at)
    return (
        update(Queue)
        .where(_named())
        .values(paused_at=func.coalesce(Queue.paused_at, NOW), updated_at=moved)
        .returning(*_columns())
    )


@lru_cache
def resume_queue() -> Update:
    """Resume the queue with bind `queue_name`, or all. Locks the rows. River: QueueResume."""
    moved = case((Queue.paused_at.is_not(None), NOW), else_=Queue.updated_at)
    return (
        update(Queue)
        .where(_named())
        .values(paused_at=None, updated_at=moved)
        .returning(*_columns())
    )


@lru_cache
def update_queue() -> Update:
    """Replace the metadata of queue `queue_name`. Locks the row. River: QueueUpdate."""
    return (
        update(Queue)
        .where(Queue.name == bindparam("queue_name", type_=Text))
        .values(metadata_=cast(bindparam("queue_metadata", type_=Text), JSONB), updated_at=NOW)
        .returning(*_columns())
    )
