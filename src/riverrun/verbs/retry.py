"""Retry: an operator's "again, now"."""

from datetime import datetime

from sqlalchemy.exc import IntegrityError

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import UniqueKeyTaken
from riverrun.jobs.row import JobRow
from riverrun.queries import retry as queries
from riverrun.verbs.read import get_in, job_row


@tried_again
def retry(tx: Tx, job_id: int, *, schema: str | None = None, now: datetime | None = None) -> JobRow:
    """Make a job available now, whatever became of it; one more attempt if all were spent.

    One that runs, or is available and due, is left as it is.

    Args:
        tx: Whose transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

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
