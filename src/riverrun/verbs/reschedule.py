"""Reschedule waiting jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, func, literal

from riverrun.clock import Duration
from riverrun.db.transactions import Transaction, Tx
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware, check_timedelta
from riverrun.jobs.columns import Timestamp
from riverrun.models import Job
from riverrun.queries import reschedule as queries
from riverrun.queries.chosen import adapted, chosen
from riverrun.verbs.chosen import Changed, change_chosen


def reschedule_where(
    tx: Tx,
    *criteria: Any,
    scheduled_at: datetime | SQLColumnExpression[datetime] | None = None,
    delay: Duration | None = None,
    dry_run: bool = False,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Reschedule all waiting jobs for which criteria are true; return how many.

        reschedule_where(session, Job.queue == "mail", delay=3600)
        reschedule_where(
            session, Job.queue == "mail", scheduled_at=Job.scheduled_at + timedelta(hours=1)
        )

    A job that is due at the new time becomes available. Any other job becomes scheduled, or stays
    retryable. A pending job stays pending. Running and final jobs, and retryable jobs whose unique
    key another job holds, are not changed. The session is not flushed, and jobs that it has loaded
    are expired.

    Args:
        tx: The transaction. In that of a Session, scoped_session or Connection one statement
            changes all jobs; on an Engine they are changed in batches of 1,000, each in a
            transaction of its own. Both wait for rows that another transaction has locked.
        *criteria: SQLAlchemy criteria over Job, joined by AND. They may name other tables, which
            are then used in an EXISTS. `true()` selects all jobs.
        scheduled_at: The time, aware, or an expression over Job's columns.
        delay: Seconds or a timedelta from now, in place of `scheduled_at`.
        dry_run: Whether only to count. Default: False.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        InvalidOption: If there are no criteria, or they do not name Job; if not exactly one of
            `scheduled_at` and `delay` is given.
        sqlalchemy.exc.IntegrityError: For the same reason as from `retry_where`.
    """
    return reschedule_chosen(
        tx,
        criteria,
        scheduled_at=scheduled_at,
        delay=delay,
        dry_run=dry_run,
        schema=schema,
        now=now,
    ).count


def reschedule_chosen(
    tx: Tx,
    criteria: Sequence[Any],
    *,
    scheduled_at: Any,
    delay: Duration | None,
    dry_run: bool,
    schema: str | None,
    now: datetime | None,
) -> Changed:
    """Do what `reschedule_where` does, and also return the queues with available jobs."""
    job = Job.in_schema(schema)
    at = adapted(_time(scheduled_at, delay, now), job)
    which = chosen(job, criteria, queries.waiting(job), schema=schema, unique=True)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.reschedule_chosen(which, at, by_ids=bool(params))
        names = transaction.execute(statement, {**params, "now": now}).scalars().all()
        available = frozenset(name for name in names if name is not None)
        return Changed(count=len(names), queues=available)

    attributes = ("state", "scheduled_at")
    return change_chosen(tx, which, change, dry_run=dry_run, attributes=attributes)


def _time(scheduled_at: Any, delay: Duration | None, now: datetime | None) -> Any:
    if (scheduled_at is None) is (delay is None):
        expected = "one of scheduled_at and delay"
        raise InvalidOption("scheduled_at", scheduled_at, expected)
    if delay is not None:
        span = check_timedelta("delay", delay, 0.0)
        since = func.now() if now is None else literal(now, Timestamp)
        return since + span
    clause = getattr(scheduled_at, "__clause_element__", lambda: scheduled_at)()
    if isinstance(clause, ColumnElement):
        return clause
    return literal(check_aware("scheduled_at", scheduled_at), Timestamp)
