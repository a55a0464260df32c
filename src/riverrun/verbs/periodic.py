"""Periodic jobs in the database: list and switch them, plan runs, and lock the due ones."""

from collections.abc import Collection, Mapping
from datetime import datetime

import attrs
from sqlalchemy import Update

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import PeriodicJobNotFound
from riverrun.jobs.checks import check_int
from riverrun.periodic_jobs import GRACE
from riverrun.queries import complete as complete_queries
from riverrun.queries import periodic as queries
from riverrun.verbs.notify import notify_in
from riverrun.wire.topics import Topic, run_periodic_payload


@attrs.frozen(kw_only=True)
class PeriodicRow:
    """The database's row of a periodic job with an id.

    Attributes:
        id: The periodic job's id.
        next_run_at: When it runs next.
        last_run_at: When it last ran, or was due and skipped; None if never.
        kind: The kind of its jobs; None if it is not known yet. Without version 3 of riverrun's
            line, this and the attributes down to `run_now_at` are None.
        queue: The queue of its jobs; None if it is not known yet.
        schedule: Its schedule as a text, such as "30 3 * * *" or "every 5 min".
        zone: The time zone of its schedule.
        paused_at: Since when it is paused; None if it is not.
        run_now_at: When a run was requested that the leader has not inserted yet.
        overdue: Whether it should have run more than 60 s ago, and is not paused.
    """

    id: str
    next_run_at: datetime
    last_run_at: datetime | None
    kind: str | None = None
    queue: str | None = None
    schedule: str | None = None
    zone: str | None = None
    paused_at: datetime | None = None
    run_now_at: datetime | None = None
    overdue: bool = False


@attrs.frozen
class DueRun:
    """A periodic job of which a run is due, or that is to run now.

    Attributes:
        next_run_at: The planned time, which may be in the future if it is to run now.
        paused: Whether it is paused.
        resumed_at: When it was last resumed; None if never.
        run_now: Whether it is to run now.
    """

    next_run_at: datetime
    paused: bool = False
    resumed_at: datetime | None = None
    run_now: bool = False


@attrs.frozen
class About:
    """What a periodic job is, for its row.

    Attributes:
        kind: The kind of its jobs; None if it is not known.
        queue: Their queue; None if it is not known.
        schedule: The schedule's text.
        zone: The schedule's time zone; None without one.
    """

    kind: str | None
    queue: str | None
    schedule: str
    zone: str | None


@tried_again
def list_periodic(
    tx: Tx, *, limit: int = 100, schema: str | None = None, now: datetime | None = None
) -> list[PeriodicRow]:
    """Return at most `limit` periodic jobs that have an id, in the order of ids.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of jobs, 1 to 10,000.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        return _rows(transaction, None, limit, now)


@tried_again
def pause_periodic(
    tx: Tx, periodic_id: str, *, schema: str | None = None, now: datetime | None = None
) -> PeriodicRow:
    """Pause a periodic job that has an id: its runs are skipped until it is resumed.

    Only riverrun's leaders obey; River's leader inserts its own periodic jobs.

    Args:
        tx: The transaction, as for `insert`.
        periodic_id: The periodic job's id.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        Its row after the change.

    Raises:
        PeriodicJobNotFound: If no leader has planned a run of it yet.
        SchemaMissing: If version 3 of riverrun's line is missing.
    """
    return _switch(tx, queries.pause_run(), periodic_id, schema, now)


@tried_again
def resume_periodic(
    tx: Tx, periodic_id: str, *, schema: str | None = None, now: datetime | None = None
) -> PeriodicRow:
    """Resume a paused periodic job. Runs that were due before are not made up for.

    See `pause_periodic` for the arguments.
    """
    return _switch(tx, queries.resume_run(), periodic_id, schema, now)


@tried_again
def run_periodic_now(
    tx: Tx, periodic_id: str, *, schema: str | None = None, now: datetime | None = None
) -> PeriodicRow:
    """Ask the leader to insert a job of a periodic job now, also if it is paused.

    Its schedule does not move. The leader is notified when the transaction commits; without
    notifications it looks within 60 s. The request waits while no client of riverrun leads that
    has this periodic job. See `pause_periodic` for the arguments.
    """
    with joined(tx, schema) as transaction:
        row = _switched(transaction, queries.run_now(), periodic_id, now)
        payload = run_periodic_payload(periodic_id)
        notify_in(transaction, Topic.control, [payload], schema=schema)
        return row


def _switch(
    tx: Tx, statement: Update, periodic_id: str, schema: str | None, now: datetime | None
) -> PeriodicRow:
    with joined(tx, schema) as transaction:
        return _switched(transaction, statement, periodic_id, now)


def _switched(
    transaction: Transaction, statement: Update, periodic_id: str, now: datetime | None
) -> PeriodicRow:
    if not isinstance(periodic_id, str) or "\x00" in periodic_id:
        raise PeriodicJobNotFound(periodic_id)
    params = {"periodic_id": periodic_id, "now": now}
    if transaction.execute(statement, params).first() is None:
        raise PeriodicJobNotFound(periodic_id)
    return _rows(transaction, periodic_id, 1, now)[0]


def _rows(
    transaction: Transaction, periodic_id: str | None, limit: int, now: datetime | None
) -> list[PeriodicRow]:
    params = {
        "periodic_id": periodic_id,
        "limit": limit,
        "grace_s": GRACE.total_seconds(),
        "now": now,
    }
    found = transaction.execute(queries.list_runs(), params)
    return [PeriodicRow(**row._mapping) for row in found]


def clock(transaction: Transaction) -> datetime:
    """Return the database's time."""
    value: datetime = transaction.execute(complete_queries.clock(), {}).scalar_one()
    return value


def plan(transaction: Transaction, times: Mapping[str, datetime], now: datetime) -> None:
    """Plan the first run of each id, unless an earlier one is planned already."""
    params = {"ids": list(times), "times": list(times.values()), "now": now}
    transaction.execute(queries.plan_runs(), params)


def due(
    transaction: Transaction, ids: Collection[str], now: datetime, *, switches: bool
) -> dict[str, DueRun]:
    """Lock those of `ids` that are due or to run now, and return them. Skips locked rows.

    Args:
        transaction: The transaction.
        ids: The periodic jobs' ids.
        now: The database's time.
        switches: Whether version 3 of riverrun's line is there.
    """
    rows = transaction.execute(queries.due_runs(switches=switches), {"ids": list(ids), "now": now})
    if not switches:
        return {row.id: DueRun(row.next_run_at) for row in rows}
    return {
        row.id: DueRun(
            row.next_run_at, row.paused_at is not None, row.resumed_at, row.run_now_at is not None
        )
        for row in rows
    }


def paused(transaction: Transaction, ids: Collection[str]) -> set[str]:
    """Return which of `ids` are paused. Version 3 of riverrun's line must be there."""
    return set(transaction.execute(queries.paused_runs(), {"ids": list(ids)}).scalars())


def ran_now(transaction: Transaction, ids: Collection[str], now: datetime) -> None:
    """Record that each of `ids` has run by request."""
    transaction.execute(queries.ran_now(), {"ids": list(ids), "now": now})


def describe(transaction: Transaction, about: Mapping[str, About]) -> None:
    """Write what each periodic job is, by id."""
    params = {
        "ids": list(about),
        "kinds": [row.kind for row in about.values()],
        "queues": [row.queue for row in about.values()],
        "schedules": [row.schedule for row in about.values()],
        "zones": [row.zone for row in about.values()],
    }
    transaction.execute(queries.describe_runs(), params)


def advance(transaction: Transaction, times: Mapping[str, datetime], now: datetime) -> None:
    """Set when each id runs next."""
    params = {"ids": list(times), "times": list(times.values()), "now": now}
    transaction.execute(queries.advance_runs(), params)


def planned(transaction: Transaction, ids: Collection[str]) -> dict[str, datetime]:
    """Return when each of `ids` runs next."""
    rows = transaction.execute(queries.next_runs(), {"ids": list(ids)})
    return {row.id: row.next_run_at for row in rows}
