"""Cancel jobs, so that they do not run again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.jobs.checks import check_job_id
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from riverrun.queries import cancel as queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.chosen import Changed, change_chosen
from riverrun.verbs.notify import notify_in
from riverrun.verbs.read import get_in, job_row
from riverrun.wire.topics import Topic, cancel_payload


@tried_again
def cancel(
    tx: Tx, job_id: int, *, schema: str | None = None, now: datetime | None = None
) -> JobRow:
    """Cancel a job.

    A waiting job is cancelled at once. A running job is marked, and the client that runs it is
    notified when the transaction commits; the job is cancelled when its worker ends without
    success. A final job is not changed.

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
    """
    with joined(tx, schema) as transaction:
        params = {"job_id": check_job_id(job_id), "now": now}
        row = transaction.execute(queries.cancel_job(), params).one_or_none()
        if row is None:
            return get_in(transaction, job_id)
        job = job_row(row)
        payload = cancel_payload(job.id, job.queue)
        notify_in(transaction, Topic.control, [payload], schema=schema)
        return job


def cancel_where(
    tx: Tx,
    *criteria: Any,
    dry_run: bool = False,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Cancel all jobs for which criteria are true, as `cancel` does; return how many.

        cancel_where(session, Job.args_of(SendReceipt).order == Order.id, Order.status == "void")

    Final jobs are not changed. The session is not flushed: flush the changes that the criteria
    need. Jobs that the session has loaded are expired.

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
    """
    job = Job.in_schema(schema)
    which = chosen(job, criteria, queries.not_final(job), schema=schema)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.cancel_chosen(which, by_ids=bool(params))
        rows = transaction.execute(statement, {**params, "now": now}).all()
        payloads = [cancel_payload(row.id, row.queue) for row in rows if row.id is not None]
        if payloads:
            notify_in(transaction, Topic.control, payloads, schema=schema)
        return Changed(count=len(rows))

    attributes = ("state", "finalized_at", "metadata_")
    return change_chosen(tx, which, change, dry_run=dry_run, attributes=attributes).count


@tried_again
def read_cancelled(tx: Tx, job_ids: Sequence[int], *, schema: str | None = None) -> list[int]:
    """Return which of `job_ids` are running and marked as cancelled."""
    with joined(tx, schema) as transaction:
        found = transaction.execute(queries.cancelled_jobs(), {"ids": list(job_ids)})
        return list(found.scalars())
