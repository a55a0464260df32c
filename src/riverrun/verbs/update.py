"""Update: what an operator may change of a job, its metadata."""

from collections.abc import Mapping
from typing import Any

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import JobNotFound
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
    """Merge `metadata`, and `output` as the job's recorded one, into a job, whatever its state.

    Args:
        tx: The transaction, as for `insert`.
        job_id: The job.
        metadata: What to merge, at most 32 MiB; keys that it does not name stay.
        output: What JSON can hold, at most 32 MB; left as it is unless said.
        schema: The schema of River's tables. Default: the search path's.

    Returns:
        The job as it then is.

    Raises:
        InvalidOption: If JSON cannot hold it, or metadata or output are too large.
        JobNotFound: If there is no such job.
    """
    merged = dict(check_metadata(metadata or {}))
    if output is not _NOTHING:
        merged["output"] = check_output(output)
    params = {"job_id": job_id, "merged": json_text(merged)}
    with joined(tx, schema) as transaction:
        row = transaction.execute(queries.update_job(), params).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_row(row)
