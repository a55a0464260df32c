"""Retry jobs: make them available now."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import UniqueKeyTaken
from riverrun.jobs.checks import check_job_id
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from riverrun.queries import retry as queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.chosen import Changed, change_chosen
from riverrun.verbs.read import get_in, job_row


@tried_again
def retry(tx: Tx, job_id: int, *, schema: str | None = None, now: datetime | None = None) -> JobRow:
    """Make a job available now, whatever its state. If all attempts are used up, it gets one more.

    A job that is running, or available and due, is not changed.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The job after the change.

    Raises:
        InvalidOption: If `job_id` is not an id.
        JobNotFound: If there is no such job.
        UniqueKeyTaken: If another job has taken its unique key; roll the transaction back.
    """
    with joined(tx, schema) as transaction:
        params = {"job_id": check_job_id(job_id), "now": now}
        try:
            done = transaction.execute(queries.retry_job(), params)
        except IntegrityError as error:
            # The only constraint that a retry can violate: another job took the unique key.
            raise UniqueKeyTaken(job_id) from error
        row = done.one_or_none()
        return get_in(transaction, job_id) if row is None else job_row(row)


def retry_where(
    tx: Tx,
    *criteria: Any,
    dry_run: bool = False,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Make all jobs for which criteria are true available now, as `retry` does; return how many.

        retry_where(engine, Job.kind_is(SendReceipt), Job.state == JobState.discarded)

    Jobs that are running, or available and due, and jobs whose unique key another job holds, are
    not changed. Of several jobs with the same unique key the newest is retried. The session is not
    flushed, and jobs that it has loaded are expired.

    Args:
        tx: The transaction. In that of a Session, scoped_session or Connection one statement
            changes all jobs; on an Engine they are changed in batches of 1,000, each in a
            transaction of its own. Both wait for rows that another transaction has locked.
        *criteria: SQLAlchemy criteria over Job, joined by AND. They may name other tables, which
            are then used in an EXISTS. `true()` selects all jobs.
        dry_run: Whether only to count. Default: False.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        InvalidOption: If there are no criteria, or they do not name Job.
        sqlalchemy.exc.IntegrityError: In the caller's transaction, if another job takes a unique
            key at the same time. Roll the transaction back, and try again.
    """
    return retry_chosen(tx, criteria, dry_run=dry_run, schema=schema, now=now).count


def retry_chosen(
    tx: Tx,
    criteria: Sequence[Any],
    *,
    dry_run: bool,
    schema: str | None,
    now: datetime | None,
) -> Changed:
    """Do what `retry_where` does, and also return the queues with available jobs."""
    job = Job.in_schema(schema)
    which = chosen(job, criteria, queries.not_due(job), schema=schema, unique=True)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.retry_chosen(which, by_ids=bool(params))
        names = transaction.execute(statement, {**params, "now": now}).scalars().all()
        return Changed(count=len(names), queues=frozenset(names))

    attributes = ("state", "scheduled_at", "finalized_at", "max_attempts", "metadata_")
    return change_chosen(tx, which, change, dry_run=dry_run, attributes=attributes)
