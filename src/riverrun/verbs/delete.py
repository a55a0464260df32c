"""Delete: a job's row, by an operator's wish; never one that runs."""

from typing import Any

from sqlalchemy import CursorResult

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidOption, JobRunning
from riverrun.jobs.listing import JobListParams
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from riverrun.queries import delete as queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.chosen import Changed, change_chosen
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


def delete_where(tx: Tx, *criteria: Any, dry_run: bool = False, schema: str | None = None) -> int:
    """Delete all jobs that criteria are true of, none that runs; return how many.

        delete_where(session, Job.args_of(SendReceipt).order.in_(gone))

    Nothing is flushed. Jobs that the session has loaded expire: a deleted one's next use raises
    ObjectDeletedError.

    Args:
        tx: Whose transaction: of a Session, scoped_session or Connection all jobs are changed in
            it by one statement; with an Engine in batches of 1,000, each a transaction of its own.
            Both wait for a row that another transaction has locked.
        *criteria: SQLAlchemy criteria over Job, joined by AND. Other tables may be named; what they
            say is asked in an EXISTS. `true()` is for all jobs.
        dry_run: Whether only to count. Default: False.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If the criteria are none, or do not name Job.
    """
    job = Job.in_schema(schema)
    which = chosen(job, criteria, queries.not_running(job), schema=schema)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.delete_chosen(which, by_ids=bool(params))
        result = transaction.execute(statement, params)
        assert isinstance(result, CursorResult)  # noqa: S101  as of every DELETE
        return Changed(count=result.rowcount)

    return change_chosen(tx, which, change, dry_run=dry_run, attributes=None).count
