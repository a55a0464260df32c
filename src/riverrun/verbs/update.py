"""Update the metadata of a job."""

from collections.abc import Mapping
from typing import Any

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import JobNotFound
from riverrun.jobs.checks import check_job_id
from riverrun.jobs.json_values import json_text
from riverrun.jobs.row import JobRow
from riverrun.outcome import check_metadata, check_output
from riverrun.queries import update as queries
from riverrun.verbs.read import job_row

_NOTHING = object()


@tried_again
def update(
    tx: Tx,
    job_id: int,
    *,
    metadata: Mapping[str, Any] | None = None,
    output: object = _NOTHING,
    schema: str | None = None,
) -> JobRow:
    """Merge `metadata` into a job's, and set its recorded output, whatever its state.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        metadata: The keys to set, at most 32 MiB. Other keys stay as they are.
        output: A value that JSON can hold, at most 32 MB. Default: the output is not changed.
        schema: The schema of River's tables. Default: the search path's.

    Returns:
        The job after the change.

    Raises:
        InvalidOption: If `job_id` is not an id, or JSON cannot hold the metadata or the output, or
            one of these is too large.
        JobNotFound: If there is no such job.
    """
    merged = dict(check_metadata(metadata or {}))
    if output is not _NOTHING:
        merged["output"] = check_output(output)
    params = {"job_id": check_job_id(job_id), "merged": json_text(merged)}
    with joined(tx, schema) as transaction:
        row = transaction.execute(queries.update_job(), params).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_row(row)
