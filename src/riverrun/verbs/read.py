"""Reading jobs: what operators ask, and how a row becomes a frozen JobRow."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import Row

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import JobNotFound
from riverrun.jobs.listing import (
    JobBrief,
    JobBriefList,
    JobList,
    JobListParams,
    JobOrder,
    cursor_text,
)
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import state_of, states_in
from riverrun.queries import read as queries

_decode = json.JSONDecoder().decode  # json.loads() asks first what else it might be given


@tried_again
def get(tx: Tx, job_id: int, *, schema: str | None = None) -> JobRow:
    """Return the job with the id `job_id`.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        JobNotFound: If there is none.
    """
    with joined(tx, schema) as transaction:
        return get_in(transaction, job_id)


@tried_again
def list_jobs(tx: Tx, params: JobListParams | None = None, *, schema: str | None = None) -> JobList:
    """Return the jobs that `params` ask for, the first 100 by id if nothing is said.

    Args:
        tx: The transaction, as for `insert`.
        params: Which jobs, and in which order.
        schema: The schema of River's tables. Default: the search path's.
    """
    asked = params or JobListParams()
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.list_jobs(asked), {}).all()
    return JobList(jobs=[job_row(row) for row in rows], cursor=_cursor(rows, asked))


@tried_again
def list_briefs(
    tx: Tx, params: JobListParams, *, errors: bool = False, schema: str | None = None
) -> JobBriefList:
    """Return as much of the jobs that `params` ask for as a table shows.

    Args:
        tx: The transaction, as for `insert`.
        params: Which jobs, and in which order.
        errors: Whether the last error of each is read.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.list_briefs(params, errors=errors), {}).all()
    names = [field.name for field in attrs.fields(JobBrief)]
    briefs = [
        JobBrief(**{**{name: getattr(row, name) for name in names}, "state": state_of(row.state)})
        for row in rows
    ]
    return JobBriefList(jobs=briefs, cursor=_cursor(rows, params))


@tried_again
def count_listed(
    tx: Tx, params: JobListParams, *, most: int = 10_000, schema: str | None = None
) -> int:
    """Return how many jobs `params` ask for, its limit and cursor left aside; `most` at the most.

    Args:
        tx: The transaction, as for `insert`.
        params: Which jobs.
        most: Where the count ends; beyond it a count takes long and says little.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        count: int = transaction.execute(queries.count_listed(params, most), {}).scalar_one()
        return count


def _cursor(rows: Sequence[Row[Any]], params: JobListParams) -> str | None:
    if not rows:
        return None
    last = rows[-1]
    time = None if params.order_by is JobOrder.id else last.order_time
    return cursor_text(last.id, last.kind, last.queue, params.order_by, time)


def get_in(transaction: Transaction, job_id: int) -> JobRow:
    """Return the job with the id `job_id`, read in `transaction`."""
    row = transaction.execute(queries.get_job(), {"job_id": job_id}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_row(row)


def job_row(row: Row[Any]) -> JobRow:
    """Return a row of `river_job`, all columns read, as a JobRow."""
    return JobRow(
        id=row.id,
        kind=row.kind,
        args=json_value(row.args),
        state=state_of(row.state),
        queue=row.queue,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        priority=row.priority,
        created_at=row.created_at,
        scheduled_at=row.scheduled_at,
        attempted_at=row.attempted_at,
        finalized_at=row.finalized_at,
        attempted_by=tuple(row.attempted_by or ()),
        errors=errors_of(row.errors),
        metadata=json_object(row.metadata_),
        tags=tuple(row.tags or ()),
        unique_key=row.unique_key,
        unique_states=None if row.unique_states is None else states_in(row.unique_states),
    )


def errors_of(texts: Sequence[Any] | None) -> tuple[Mapping[str, Any], ...]:
    """Return a row's errors; what is no object, which nobody writes, as one with its text."""
    return tuple(_error(text) for text in texts or ())


def json_object(text: str) -> Mapping[str, Any]:
    """Return the object that JSON text says; an empty one where it says anything else."""
    value = {} if text == "{}" else json_value(text)
    return value if isinstance(value, dict) else {}


def json_value(text: str) -> Any:
    """Return what JSON text says; the text itself if it is nested more deeply than Python goes."""
    try:
        try:
            return _decode(text)
        except ValueError:
            return json.loads(text, parse_int=_number)
    except RecursionError:
        return text


def _error(text: object) -> Mapping[str, Any]:
    value = json_value(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else {"error": str(text)}


def _number(digits: str) -> int | float:
    # int() refuses more than 4,300 digits, unless the process is told otherwise.
    try:
        return int(digits)
    except ValueError:
        return float(digits)
