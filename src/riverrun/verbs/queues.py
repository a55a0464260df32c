"""Queues: pause and resume them, keep metadata with them, and record which are worked."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Row

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import QueueNotFound
from riverrun.jobs.checks import check_int
from riverrun.jobs.json_values import metadata_text
from riverrun.queries import queues as queries
from riverrun.verbs.notify import notify_in
from riverrun.verbs.read import json_object
from riverrun.wire.topics import Topic, metadata_payload, pause_payload, resume_payload

ALL = queries.ALL


@attrs.frozen(kw_only=True)
class QueueRow:
    """The database's row of a queue.

    Attributes:
        name: The queue's name.
        metadata: The application's metadata of the queue.
        paused_at: When the queue was paused; None if it is not paused.
        created_at: When a client first worked it.
        updated_at: When a client last recorded that it works the queue, or the row was changed.
    """

    name: str
    metadata: Mapping[str, Any]
    paused_at: datetime | None
    created_at: datetime
    updated_at: datetime


@tried_again
def get_queue(tx: Tx, name: str, *, schema: str | None = None) -> QueueRow:
    """Return the queue `name`.

    Args:
        tx: The transaction, as for `insert`.
        name: The queue.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        QueueNotFound: If no client has worked it for a day.
    """
    with joined(tx, schema) as transaction:
        params = {"queue_name": _name(name)}
        row = transaction.execute(queries.get_queue(), params).one_or_none()
    return _found(name, row)


@tried_again
def list_queues(tx: Tx, *, limit: int = 100, schema: str | None = None) -> list[QueueRow]:
    """Return the queues that clients work, or have worked in the last day, by name.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of queues, 1 to 10,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.list_queues(), {"limit": limit})
        return [queue_row(row) for row in rows]


@tried_again
def pause_queue(
    tx: Tx, name: str, *, schema: str | None = None, now: datetime | None = None
) -> list[QueueRow]:
    """Pause the queue `name`: no client claims more jobs from it. Running jobs continue.

    Clients are notified when the transaction commits.

    Args:
        tx: The transaction, as for `insert`.
        name: The queue's name; "*" for all queues.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The queues after the change.

    Raises:
        QueueNotFound: If there is no such queue. "*" never raises.
    """
    with joined(tx, schema) as transaction:
        params = {"queue_name": _name(name), "now": now}
        rows = transaction.execute(queries.pause_queue(), params).all()
        return _notified(transaction, name, rows, pause_payload(name), schema)


@tried_again
def resume_queue(
    tx: Tx, name: str, *, schema: str | None = None, now: datetime | None = None
) -> list[QueueRow]:
    """Resume the queue `name`, or all with "*". See `pause_queue` for the arguments."""
    with joined(tx, schema) as transaction:
        params = {"queue_name": _name(name), "now": now}
        rows = transaction.execute(queries.resume_queue(), params).all()
        return _notified(transaction, name, rows, resume_payload(name), schema)


@tried_again
def update_queue(
    tx: Tx,
    name: str,
    *,
    metadata: Mapping[str, Any],
    schema: str | None = None,
    now: datetime | None = None,
) -> QueueRow:
    """Replace the metadata of the queue `name`, and notify the clients that work it.

    Args:
        tx: The transaction, as for `insert`.
        name: The queue.
        metadata: The new metadata, a JSON object.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        InvalidOption: If JSON cannot hold the metadata.
        QueueNotFound: If there is no such queue.
    """
    text = metadata_text(metadata)
    params = {"queue_name": _name(name), "queue_metadata": text, "now": now}
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.update_queue(), params).all()
        payload = metadata_payload(name, metadata)
        return _notified(transaction, name, rows, payload, schema)[0]


@tried_again
def upsert_queues(
    tx: Tx, names: Sequence[str], *, schema: str | None = None, now: datetime | None = None
) -> list[QueueRow]:
    """Record that a client works the queues `names`, and return their rows.

    The record lasts for a day, so repeat this within a day.
    """
    with joined(tx, schema) as transaction:
        params = {"names": sorted(set(names)), "now": now}
        return [queue_row(row) for row in transaction.execute(queries.upsert_queues(), params)]


@tried_again
def read_queues(tx: Tx, names: Sequence[str], *, schema: str | None = None) -> list[QueueRow]:
    """Return the rows of the queues `names`, without those that do not exist."""
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.read_queues(), {"names": list(names)})
        return [queue_row(row) for row in rows]


def queue_row(row: Row[Any]) -> QueueRow:
    """Return a row of `river_queue` as a QueueRow."""
    return QueueRow(
        name=row.name,
        metadata=json_object(row.metadata_ or "{}"),
        paused_at=row.paused_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _name(name: str) -> str:
    # No queue can have such a name, and PostgreSQL would refuse a NUL.
    if not isinstance(name, str) or "\x00" in name:
        raise QueueNotFound(name)
    return name


def _found(name: str, row: Row[Any] | None) -> QueueRow:
    if row is None:
        raise QueueNotFound(name)
    return queue_row(row)


def _notified(
    transaction: Transaction,
    name: str,
    rows: Sequence[Row[Any]],
    payload: str,
    schema: str | None,
) -> list[QueueRow]:
    if not rows and name != ALL:
        raise QueueNotFound(name)
    notify_in(transaction, Topic.control, [payload], schema=schema)
    return [queue_row(row) for row in rows]
