"""Periodic runs: plan them, take those that are due, and set the next; kept in the database."""

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
    """A periodic job with an id, as it stands in the database.

    Attributes:
        id: Its id.
        next_run_at: When it runs next.
        last_run_at: When it last ran, or was due and left out; None if never.
    """

    id: str
    next_run_at: datetime
    last_run_at: datetime | None


@tried_again
def list_periodic(tx: Tx, *, limit: int = 100, schema: str | None = None) -> list[PeriodicRow]:
    """Return periodic jobs that have an id, by it; at most `limit`, 1 to 10,000."""
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
    """Lock and return which of `ids` are due, and since when; not what another has locked."""
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
