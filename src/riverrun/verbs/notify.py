"""Step 2 of 5, notify: the notifications."""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from sqlalchemy import select, true

from riverrun.db.commit_hooks import after_commit
from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.queries import notify as queries
from riverrun.wire.topics import Topic, insert_payload


@tried_again
def notify_inserted(tx: Tx, names: Iterable[str], *, schema: str | None = None) -> None:
    """Notify the clients that work the queues `names` of new jobs, when the transaction commits."""
    with joined(tx, schema) as transaction:
        notify_in(
            transaction, Topic.insert, [insert_payload(name) for name in names], schema=schema
        )


def notify_in(
    transaction: Transaction, topic: Topic, payloads: Sequence[str], *, schema: str | None
) -> None:
    """Send `payloads` on `topic` when `transaction` commits.

    PostgreSQL cannot prepare a transaction that has executed NOTIFY. So after a transaction that is
    committed in two phases, a small one on the same connection notifies.
    """
    params = notify_params(topic, payloads, schema)
    statement = queries.notify(named=schema is not None)
    if not transaction.in_two_phases:
        transaction.rows(statement, params)
        return
    # Execute a statement, or the driver would not have begun a transaction that can be followed.
    transaction.execute(select(true()), {})
    connection = transaction.connection
    compiled = statement.compile(dialect=connection.dialect)
    values: Any = compiled.construct_params(params)
    if compiled.positiontup is not None:
        values = [values[name] for name in compiled.positiontup]
    notice = _Notice(connection.connection.dbapi_connection, str(compiled), values)
    after_commit(connection, _send, notice)


def notify_params(topic: Topic, payloads: Sequence[str], schema: str | None) -> dict[str, Any]:
    """Return the binds of a statement that notifies."""
    params: dict[str, Any] = {"topic": topic.value, "payloads": list(payloads)}
    if schema is not None:
        params["schema"] = schema
    return params


@attrs.frozen(eq=False)
class _Notice:
    """A statement that notifies, for execution on a driver's connection."""

    dbapi_connection: Any
    statement: str
    params: Any


def _send(notice: _Notice) -> None:
    cursor = notice.dbapi_connection.cursor()
    try:
        cursor.execute(notice.statement, notice.params)
        notice.dbapi_connection.commit()
    except Exception:
        # The application uses the connection next, and must find no transaction open.
        notice.dbapi_connection.rollback()
        raise
    finally:
        cursor.close()
