"""Retry: an operator's "again, now"."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import UniqueKeyTaken
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from riverrun.queries import retry as queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.chosen import Changed, change_chosen
from riverrun.verbs.read import get_in, job_row


@tried_again
def retry(tx: Tx, job_id: int, *, schema: str | None = None, now: datetime | None = None) -> JobRow:
    """Make a job available now, whatever became of it; one more attempt if all were spent.

    One that runs, or is available and due, is left as it is.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        The job as it then is.

    Raises:
        JobNotFound: If there is no such job.
        UniqueKeyTaken: If another job has taken its unique key; roll the transaction back.
    """
    with joined(tx, schema) as transaction:
        try:
            done = transaction.execute(queries.retry_job(), {"job_id": job_id, "now": now})
        except IntegrityError as error:
            # The one constraint that a retry can meet: its key is free only while it is final.
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
    """Make all jobs available now that criteria are true of, as `retry` does one; return how many.

        retry_where(engine, Job.kind_is(SendReceipt), Job.state == JobState.discarded)

    Left as they are: jobs that run, or are available and due, and jobs whose unique key another job
    has taken. Of several that had one key, one is retried: the newest. Nothing is flushed; jobs
    that the session has loaded expire.

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
            key at the same time; roll it back, and try again.
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
    """As `retry_where`; return also the queues in which jobs are available."""
    job = Job.in_schema(schema)
    which = chosen(job, criteria, queries.not_due(job), schema=schema, unique=True)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.retry_chosen(which, by_ids=bool(params))
        names = transaction.execute(statement, {**params, "now": now}).scalars().all()
        return Changed(count=len(names), queues=frozenset(names))

    attributes = ("state", "scheduled_at", "finalized_at", "max_attempts", "metadata_")
    return change_chosen(tx, which, change, dry_run=dry_run, attributes=attributes)
