"""Read jobs, one or lists of them, and turn rows into frozen JobRows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import Row

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import JobNotFound
from riverrun.jobs.checks import check_job_id
from riverrun.jobs.listing import (
    JobBrief,
    JobBriefList,
    JobCursor,
    JobList,
    JobListParams,
    JobOrder,
    check_params,
    cursor_text,
)
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import state_of, states_in
from riverrun.queries import read as queries

# It takes half the time of json.loads(), which looks for spaces around the value. Jsonb has none.
_decode = json.JSONDecoder().raw_decode


@tried_again
def get(tx: Tx, job_id: int, *, schema: str | None = None) -> JobRow:
    """Return the job with the id `job_id`.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If `job_id` is not an id.
        JobNotFound: If there is no such job.
    """
    with joined(tx, schema) as transaction:
        return get_in(transaction, job_id)


@tried_again
def list_jobs(tx: Tx, params: JobListParams | None = None, *, schema: str | None = None) -> JobList:
    """Return a list of jobs.

    Args:
        tx: The transaction, as for `insert`.
        params: The filters and the order. Default: the first 100 jobs by id.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If `params` is no JobListParams.
    """
    given = JobListParams() if params is None else check_params(params)
    with joined(tx, schema) as transaction:
        last = _window_end(transaction, given)
        rows = transaction.execute(queries.list_jobs(given, _place(last)), {}).all()
    return JobList(jobs=[job_row(row) for row in rows], **_continued(rows, last, given))


@tried_again
def list_briefs(
    tx: Tx, params: JobListParams, *, errors: bool = False, schema: str | None = None
) -> JobBriefList:
    """Return a list of jobs in short form, to show in a table.

    Args:
        tx: The transaction, as for `insert`.
        params: The filters and the order.
        errors: Whether to read the last error of each job. Default: False.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        last = _window_end(transaction, params)
        statement = queries.list_briefs(params, _place(last), errors=errors)
        rows = transaction.execute(statement, {}).all()
    return JobBriefList(jobs=[job_brief(row) for row in rows], **_continued(rows, last, params))


@tried_again
def count_listed(
    tx: Tx, params: JobListParams, *, most: int = 10_000, schema: str | None = None
) -> int:
    """Return how many jobs `params` select, without its limit and cursor, but at most `most`.

    If the list has a window, only jobs of the first window are counted.

    Args:
        tx: The transaction, as for `insert`.
        params: The filters.
        most: The count at which to stop, because counting more would take long.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        last = _window_end(transaction, attrs.evolve(params, after=None))
        statement = queries.count_listed(params, most, _place(last))
        count: int = transaction.execute(statement, {}).scalar_one()
        return count


@tried_again
def key_holder(tx: Tx, job_id: int, *, schema: str | None = None) -> JobBrief | None:
    """Return the job that holds the unique key of another job now.

    It may be the job itself. None if the job has no unique key, or if no job holds it.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job whose key is asked for.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        InvalidOption: If `job_id` is not an id.
        JobNotFound: If there is no such job.
    """
    with joined(tx, schema) as transaction:
        statement = queries.get_key_holder(schema)
        row = transaction.execute(statement, {"job_id": check_job_id(job_id)}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return None if row.id is None else job_brief(row)


def _window_end(transaction: Transaction, params: JobListParams) -> Row[Any] | None:
    """Return the last job of the list's window; None if no job is beyond the window."""
    if params.searched is None:
        return None
    return transaction.execute(queries.window_end(params, params.searched), {}).one_or_none()


def _place(last: Row[Any] | None) -> JobCursor | None:
    return None if last is None else JobCursor(last.id, last.order_time)


def _continued(
    rows: Sequence[Row[Any]], end: Row[Any] | None, params: JobListParams
) -> dict[str, Any]:
    """Return how a list of `rows` continues: its cursor, whether there may be more, its window."""
    full = len(rows) == params.limit
    # A window is searched to its end unless the list is full before that.
    last = end if end is not None and not full else rows[-1] if rows else None
    cursor = None
    if last is not None:
        time = None if params.order_by is JobOrder.id else last.order_time
        cursor = cursor_text(last.id, last.kind, last.queue, params.order_by, time)
    return {"cursor": cursor, "more": full or end is not None, "window": params.searched}


def get_in(transaction: Transaction, job_id: int) -> JobRow:
    """Return the job with the id `job_id`, read in `transaction`."""
    row = transaction.execute(queries.get_job(), {"job_id": check_job_id(job_id)}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_row(row)


def job_row(row: Row[Any]) -> JobRow:
    """Return a row of `river_job` with all `job_columns` as a JobRow."""
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


_BRIEF_NAMES = [field.name for field in attrs.fields(JobBrief)]


def job_brief(row: Row[Any]) -> JobBrief:
    """Return a row with the columns of a short form as a JobBrief."""
    values = {name: getattr(row, name) for name in _BRIEF_NAMES}
    return JobBrief(**{**values, "state": state_of(row.state)})


def errors_of(texts: Sequence[Any] | None) -> tuple[Mapping[str, Any], ...]:
    """Return the errors of a row. An item that is not an object becomes one with its text."""
    return tuple(_error(text) for text in texts or ())


def json_object(text: str) -> Mapping[str, Any]:
    """Return the object in JSON text; an empty one if the text is anything else."""
    value = {} if text == "{}" else json_value(text)
    return value if isinstance(value, dict) else {}


def json_value(text: str) -> Any:
    """Return the value of JSON text; the text itself if it is nested too deeply for Python."""
    try:
        try:
            return _decode(text)[0]
        except ValueError:
            return json.loads(text, parse_int=_number)
    except RecursionError:
        return text


def _error(text: object) -> Mapping[str, Any]:
    value = json_value(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else {"error": str(text)}


def _number(digits: str) -> int | float:
    # int() refuses more than 4,300 digits, unless the process has another limit.
    try:
        return int(digits)
    except ValueError:
        return float(digits)
