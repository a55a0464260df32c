"""Delete: a job's row, by an operator's wish; never one that runs."""

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import InvalidOption, JobRunning
from riverrun.jobs.listing import JobListParams
from riverrun.jobs.row import JobRow
from riverrun.queries import delete as queries
from riverrun.verbs.read import get_in, job_row


@tried_again
def delete(tx: Tx, job_id: int, *, schema: str | None = None) -> JobRow:
    """Delete a job, and return it as it was.

    Args:
        tx: Whose transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables; the search path's unless said.

    Raises:
        JobNotFound: If there is no such job.
        JobRunning: If it runs.
    """
    with joined(tx, schema) as transaction:
        row = transaction.execute(queries.delete_job(), {"job_id": job_id}).one_or_none()
        if row is None:
            raise JobRunning(get_in(transaction, job_id).id)
        return job_row(row)


@tried_again
def delete_many(
    tx: Tx, params: JobListParams, *, unsafe_all: bool = False, schema: str | None = None
) -> list[JobRow]:
    """Delete the jobs that `params` ask for, at most its limit, and return them as they were.

    Jobs that run are left, and so are those that another transaction has locked.

    Args:
        tx: Whose transaction, as for `insert`.
        params: Which jobs.
        unsafe_all: Whether `params` may be without any filter.
        schema: The schema of River's tables; the search path's unless said.

    Raises:
        InvalidOption: If there is no filter, and `unsafe_all` was not said.
    """
    if not params.filters and not unsafe_all:
        expected = "at least one filter, or unsafe_all=True beside it"
        raise InvalidOption("params", params, expected)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.delete_jobs(params), {})
        return sorted(map(job_row, rows), key=lambda job: job.id)
