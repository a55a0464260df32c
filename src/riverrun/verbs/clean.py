"""Clean: delete what is final and old."""

from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult

from riverrun.queries import upkeep
from riverrun.sessions import Where, joined


def clean(
    where: Where,
    *,
    cancelled_s: float | None,
    completed_s: float | None,
    discarded_s: float | None,
    limit: int = 10_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Delete final jobs older than their state's retention; return how many.

    Args:
        where: Whose transaction, as for `insert`.
        cancelled_s: Seconds to keep cancelled jobs; None for ever.
        completed_s: Seconds to keep completed jobs; None for ever.
        discarded_s: Seconds to keep discarded jobs; None for ever.
        limit: Most jobs to delete.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.
    """
    params = {
        "cancelled_s": cancelled_s,
        "completed_s": completed_s,
        "discarded_s": discarded_s,
        "limit": limit,
        "now": now,
    }
    with joined(where, schema) as transaction:
        return _count(transaction.execute(upkeep.clean_jobs(), params))


def clean_queues(
    where: Where,
    *,
    idle_s: float,
    limit: int = 1_000,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Delete queues that no client has worked for `idle_s` seconds; return how many."""
    params = {"idle_s": idle_s, "limit": limit, "now": now}
    with joined(where, schema) as transaction:
        return _count(transaction.execute(upkeep.clean_queues(), params))


def _count(result: Any) -> int:
    assert isinstance(result, CursorResult)  # noqa: S101  a DELETE's result is one
    return result.rowcount
