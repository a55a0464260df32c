"""Delete jobs, except running ones."""

from typing import Any

from sqlalchemy import CursorResult

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidOption, JobRunning
from riverrun.jobs.checks import check_job_id
from riverrun.jobs.listing import JobListParams, check_params
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from riverrun.queries import delete as queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.chosen import Changed, change_chosen
from riverrun.verbs.read import get_in, job_row


@tried_again
def delete(tx: Tx, job_id: int, *, schema: str | None = None) -> JobRow:
    """Delete a job, and return it as it was before.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If `job_id` is not an id.
        JobNotFound: If there is no such job.
        JobRunning: If it is running.
    """
    with joined(tx, schema) as transaction:
        row = transaction.execute(
            queries.delete_job(), {"job_id": check_job_id(job_id)}
        ).one_or_none()
        if row is None:
            raise JobRunning(get_in(transaction, job_id).id)
        return job_row(row)


@tried_again
def delete_many(
    tx: Tx, params: JobListParams, *, unsafe_all: bool = False, schema: str | None = None
) -> list[JobRow]:
    """Delete the jobs that `params` select, at most its limit, and return them as they were.

    Running jobs, and jobs that another transaction has locked, are skipped.

    Args:
        tx: The transaction, as for `insert`.
        params: The filters and the limit.
        unsafe_all: Whether `params` may have no filter. One that every job matches, such as
            `tags_all=[]`, is none.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If there is no filter, and `unsafe_all` is False.
    """
    if not check_params(params).filters and not unsafe_all:
        expected = "at least one filter, or unsafe_all=True beside it"
        raise InvalidOption("params", params, expected)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.delete_jobs(params), {})
        return sorted(map(job_row, rows), key=lambda job: job.id)


def delete_where(tx: Tx, *criteria: Any, dry_run: bool = False, schema: str | None = None) -> int:
    """Delete all jobs for which criteria are true, except running ones; return how many.

        delete_where(session, Job.args_of(SendReceipt).order.in_(gone))

    The session is not flushed. Jobs that it has loaded are expired. Using a deleted one raises
    ObjectDeletedError.

    Args:
        tx: The transaction. In that of a Session, scoped_session or Connection one statement
            changes all jobs; on an Engine they are changed in batches of 1,000, each in a
            transaction of its own. Both wait for rows that another transaction has locked.
        *criteria: SQLAlchemy criteria over Job, joined by AND. They may name other tables, which
            are then used in an EXISTS. `true()` selects all jobs.
        dry_run: Whether only to count. Default: False.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If there are no criteria, or they do not name Job.
    """
    job = Job.in_schema(schema)
    which = chosen(job, criteria, queries.not_running(job), schema=schema)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.delete_chosen(which, by_ids=bool(params))
        result = transaction.execute(statement, params)
        assert isinstance(result, CursorResult)  # noqa: S101  every DELETE returns one
        return Changed(count=result.rowcount)

    return change_chosen(tx, which, change, dry_run=dry_run, attributes=None).count
