"""Cancel: never again, by an operator's wish."""

from collections.abc import Sequence
from datetime import datetime

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.row import JobRow
from riverrun.queries import cancel as queries
from riverrun.verbs.notify import notify_in
from riverrun.verbs.read import get_in, job_row
from riverrun.wire.topics import Topic, cancel_payload


@tried_again
def cancel(
    tx: Tx, job_id: int, *, schema: str | None = None, now: datetime | None = None
) -> JobRow:
    """Cancel a job.

    One that waits is cancelled at once. One that runs is marked, and the client that runs it told
    when the transaction commits; it is cancelled when its worker ends without success. A final one
    is left as it is.

    Args:
        tx: Whose transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

    Returns:
        The job as it then is.

    Raises:
        JobNotFound: If there is no such job.
    """
    with joined(tx, schema) as transaction:
        params = {"job_id": job_id, "now": now}
        row = transaction.execute(queries.cancel_job(), params).one_or_none()
        if row is None:
            return get_in(transaction, job_id)
        job = job_row(row)
        payload = cancel_payload(job.id, job.queue)
        notify_in(transaction, Topic.control, [payload], schema=schema)
        return job


@tried_again
def read_cancelled(tx: Tx, job_ids: Sequence[int], *, schema: str | None = None) -> list[int]:
    """Return which of `job_ids` run and were asked to cancel."""
    with joined(tx, schema) as transaction:
        found = transaction.execute(queries.cancelled_jobs(), {"ids": list(job_ids)})
        return list(found.scalars())
