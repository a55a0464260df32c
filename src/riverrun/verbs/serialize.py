"""Work the jobs of one object one at a time, and wake the jobs that wait for it.

Only the lock of the object's row shows that a job works on it. The lock ends with the worker's
transaction, however that ends, and works across processes and languages.
"""

from typing import Any

from sqlalchemy import Select, select, true
from sqlalchemy.orm import Mapper, Session

from riverrun.db.transactions import Tx, joined
from riverrun.errors import ObjectBusy, ObjectGone
from riverrun.jobs.json_values import json_text
from riverrun.orm.marks import mark_of
from riverrun.orm.object_keys import base_of, keys_of
from riverrun.orm.refs import Ref
from riverrun.outcome import WAITS_KEY
from riverrun.queries import serialize as queries


def lock_for_worker(session: Session, ref: "Ref[Any]") -> str:
    """Lock an object's row until the session's transaction ends, without waiting for the lock.

    Other transactions may still insert rows that refer to the object.

    Args:
        session: The worker's session.
        ref: The reference to the object.

    Returns:
        The mark in the metadata of jobs that wait for the object.

    Raises:
        ObjectBusy: If another transaction has locked it.
        ObjectGone: If it is gone.
    """
    mapper = base_of(ref.entity)
    key = ref.key if isinstance(ref.key, tuple) else (ref.key,)
    mark = mark_of(mapper, key)
    # Select from the base table only, and not the entity: so all subclasses lock the same row, and
    # PostgreSQL cannot lock the nullable side of an outer join.
    row = select(*mapper.primary_key)
    for column, value in zip(mapper.primary_key, key, strict=True):
        row = row.where(column == value)
    # SQLAlchemy 2.0 caches a statement with key_share and one without under the same key. The
    # conditions that are always true are not sent, and give this statement a key of its own.
    locking = row.where(true(), true(), true()).with_for_update(key_share=True, skip_locked=True)
    if _found(session, mapper, locking):
        return mark
    if _found(session, mapper, row):
        raise ObjectBusy(ref.entity.__name__, mark)
    raise ObjectGone(ref.entity.__name__, keys_of(mapper).write(key))


def count_waiting(tx: Tx, mark: str, *, schema: str | None = None) -> int:
    """Return how many jobs wait for an object, 1,000 at most.

    Args:
        tx: The transaction, as for `insert`.
        mark: The mark of the object.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        count: int = transaction.execute(queries.count_waiting(), _params(mark)).scalar_one()
        return count


def wake_waiting(tx: Tx, mark: str, *, schema: str | None = None) -> str | None:
    """Make the oldest job that waits for an object due now.

    Args:
        tx: The transaction, as for `insert`.
        mark: The mark that `lock_for_worker` returned.
        schema: The schema of River's tables. Default: the search path's.

    Returns:
        The job's queue; None if there is no such job.
    """
    with joined(tx, schema) as transaction:
        queue: str | None = transaction.execute(queries.wake_waiting(), _params(mark)).scalar()
        return queue


def _params(mark: str) -> dict[str, str]:
    return {"mark": json_text({WAITS_KEY: mark})}


def _found(session: Session, mapper: Mapper[Any], statement: Select[Any]) -> bool:
    return session.execute(statement, bind_arguments={"mapper": mapper}).first() is not None
