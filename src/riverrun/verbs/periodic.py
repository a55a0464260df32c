"""The runs of periodic jobs in the database: plan them, lock the due ones, and set the next."""

from collections.abc import Collection, Mapping
from datetime import datetime

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.jobs.checks import check_int
from riverrun.queries import complete as complete_queries
from riverrun.queries import periodic as queries


@attrs.frozen(kw_only=True)
class PeriodicRow:
    """The database's row of a periodic job with an id.

    Attributes:
        id: The periodic job's id.
        next_run_at: When it runs next.
        last_run_at: When it last ran, or was due and skipped; None if never.
    """

    id: str
    next_run_at: datetime
    last_run_at: datetime | None


@tried_again
def list_periodic(tx: Tx, *, limit: int = 100, schema: str | None = None) -> list[PeriodicRow]:
    """Return at most `limit` periodic jobs that have an id, in the order of ids.

    Args:
        tx: The transaction, as for `insert`.
        limit: Most jobs, 1 to 10,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.list_runs(), {"limit": limit})
        return [PeriodicRow(**row._mapping) for row in rows]


def clock(transaction: Transaction) -> datetime:
    """Return the database's time."""
    value: datetime = transaction.execute(complete_queries.clock(), {}).scalar_one()
    return value


def plan(transaction: Transaction, times: Mapping[str, datetime], now: datetime) -> None:
    """Plan the first run of each id, unless an earlier one is planned already."""
    params = {"ids": list(times), "times": list(times.values()), "now": now}
    transaction.execute(queries.plan_runs(), params)


def due(transaction: Transaction, ids: Collection[str], now: datetime) -> dict[str, datetime]:
    """Lock those of `ids` that are due, and return when each was due. Skips locked rows."""
    params = {"ids": list(ids), "now": now}
    return {row.id: row.next_run_at for row in transaction.execute(queries.due_runs(), params)}


def advance(transaction: Transaction, times: Mapping[str, datetime], now: datetime) -> None:
    """Set when each id runs next."""
    params = {"ids": list(times), "times": list(times.values()), "now": now}
    transaction.execute(queries.advance_runs(), params)


def planned(transaction: Transaction, ids: Collection[str]) -> dict[str, datetime]:
    """Return when each of `ids` runs next."""
    rows = transaction.execute(queries.next_runs(), {"ids": list(ids)})
    return {row.id: row.next_run_at for row in rows}
