"""Delete old final jobs, queues that no client works, and records of dead clients."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import attrs
from sqlalchemy import Engine, Executable

from riverrun.db.conflicts import tried_again
from riverrun.db.refusals import Fault, fault_of
from riverrun.db.transactions import Tx, joined
from riverrun.queries import clean as queries
from riverrun.queries import rescue as rescue_queries
from riverrun.queries.rescue import dead_clients, forget_these_clients
from riverrun.verbs.halves import Halves, by_halves, log_refused

T = TypeVar("T", int, str)


@attrs.frozen(kw_only=True)
class Cleaned:
    """The result of one batch of cleaning.

    Attributes:
        deleted: How many jobs were deleted.
        refused: How many jobs the database refused to delete, such as those that another table
            refers to.
        last_id: The id after which the next batch begins, if there may be more.
        more: Whether there may be more.
    """

    deleted: int
    refused: int = 0
    last_id: int = 0
    more: bool = False


@tried_again
def clean(
    tx: Tx,
    *,
    cancelled_s: float | None,
    completed_s: float | None,
    discarded_s: float | None,
    limit: int = 10_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Delete final jobs older than their state's retention; return how many.

    On an Engine, rows that cannot be deleted are logged and skipped, such as those that a foreign
    key of another table refers to.

    Args:
        tx: The transaction, as for `insert`.
        cancelled_s: Seconds to keep cancelled jobs; None for ever.
        completed_s: Seconds to keep completed jobs; None for ever.
        discarded_s: Seconds to keep discarded jobs; None for ever.
        limit: Maximum number of jobs to delete.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    retention_s = {"cancelled": cancelled_s, "completed": completed_s, "discarded": discarded_s}
    return clean_after(tx, 0, retention_s=retention_s, limit=limit, schema=schema, now=now).deleted


def clean_after(
    tx: Tx,
    after_id: int,
    *,
    retention_s: Mapping[str, float | None],
    limit: int,
    schema: str | None,
    now: datetime | None = None,
) -> Cleaned:
    """Do what `clean` does, among jobs with an id greater than `after_id`.

    Args:
        tx: The transaction, as for `insert`.
        after_id: The last id of the previous batch; 0 for the first.
        retention_s: Seconds to keep jobs, by their final state; None for ever.
        limit: Maximum number of jobs to delete.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    params = {
        **{f"{state}_s": kept_s for state, kept_s in retention_s.items()},
        "after_id": after_id,
        "limit": limit,
        "now": now,
    }
    try:
        deleted = _ids(tx, queries.clean_jobs(), params, schema)
    except Exception as error:
        if not _can_be_halved(tx, error):
            raise
    else:
        last = max(deleted, default=after_id)
        return Cleaned(deleted=len(deleted), last_id=last, more=len(deleted) == limit)
    found: list[int] = _ids(tx, queries.old_jobs(), params, schema)
    done = _delete(tx, queries.clean_these_jobs(), {**params, "after_id": 0}, "ids", found, schema)
    log_refused("jobs not deleted", done.refused)
    return Cleaned(
        deleted=sum(done.results),
        refused=len(done.refused),
        last_id=max(found, default=after_id),
        more=len(found) == limit,
    )


@tried_again
def clean_queues(
    tx: Tx,
    *,
    idle_s: float,
    limit: int = 1_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Delete queues that no client has worked for `idle_s` seconds; return how many."""
    params = {"idle_s": idle_s, "limit": limit, "now": now}
    statements = (queries.clean_queues(), queries.old_queues(), queries.clean_these_queues())
    return _clean_named(tx, statements, params, "queues not deleted", schema)


def forget_clients(
    tx: Tx,
    *,
    dead_s: float,
    limit: int = 1_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Delete the records of clients that are dead and have no running jobs."""
    params = {"dead_s": dead_s, "limit": limit, "now": now}
    statements = (rescue_queries.forget_clients(), dead_clients(), forget_these_clients())
    return _clean_named(tx, statements, params, "dead clients not deleted", schema)


def _clean_named(
    tx: Tx,
    statements: Sequence[Executable],
    params: Mapping[str, Any],
    refused: str,
    schema: str | None,
) -> int:
    delete, choose, delete_these = statements
    try:
        return len(_ids(tx, delete, params, schema))
    except Exception as error:
        if not _can_be_halved(tx, error):
            raise
    found: list[str] = _ids(tx, choose, params, schema)
    done = _delete(tx, delete_these, params, "names", found, schema)
    log_refused(refused, done.refused)
    return sum(done.results)


def _can_be_halved(tx: Tx, error: Exception) -> bool:
    # The first error aborts a transaction of the application's, so nothing more can be tried in it.
    return isinstance(tx, Engine) and fault_of(error) is not Fault.connection


def _delete(
    tx: Tx,
    statement: Executable,
    params: Mapping[str, Any],
    name: str,
    found: Sequence[T],
    schema: str | None,
) -> Halves[T, int]:
    def act(part: Sequence[T]) -> int:
        return len(_ids(tx, statement, {**params, name: list(part)}, schema))

    return by_halves(found, act)


def _ids(tx: Tx, statement: Executable, params: Mapping[str, Any], schema: str | None) -> list[Any]:
    with joined(tx, schema) as transaction:
        return list(transaction.execute(statement, params).scalars())
