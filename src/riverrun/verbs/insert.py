"""Step 1 of 5, insert: the rows, in the caller's transaction."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.db.conflicts import again, tried_again
from riverrun.db.transactions import Transaction, Tx, joined, time_of
from riverrun.errors import InsertIgnored
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.json_values import json_text
from riverrun.jobs.options import InsertOpts, OnConflict
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import states_in
from riverrun.queries import insert as queries
from riverrun.verbs.draft import JobDraft, draft, drafts
from riverrun.verbs.draft_values import (
    array_text,
    batches,
    checked_now,
    columns_of,
    in_encoding,
    values_of,
)
from riverrun.verbs.notify import notify_params
from riverrun.verbs.read import job_row
from riverrun.verbs.referred import check_objects
from riverrun.wire.characters import UTF8, encodings_of, escaped
from riverrun.wire.topics import Topic, insert_payload


@attrs.frozen
class InsertResult:
    """The result of an insert.

    Attributes:
        job: The inserted job, or the existing job of which it would be a duplicate.
        skipped_as_duplicate: Whether another job holds the unique key, and nothing was inserted.
        changed: Whether the existing job was changed by the uniqueness's `on_conflict`. A running
            or final job is not changed.
    """

    job: JobRow
    skipped_as_duplicate: bool
    changed: bool = False


@tried_again
def insert(
    tx: Tx,
    args: AnyArgs,
    opts: InsertOpts | None = None,
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> InsertResult:
    """Insert one job in the caller's transaction.

    Args:
        tx: The transaction. That of a Session, scoped_session or Connection is joined; on an
            Engine one is begun and committed.
        args: An object of a class with a kind.
        opts: The options. Those that are None are taken from the args' own options, or have
            River's defaults.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        InvalidArgs: If jsonb cannot hold the args, or they are too large.
        InvalidOption: If an option is out of range.
        InsertIgnored: If a trigger has ignored the insert.
        SchemaMissing: If the tables do not exist.
    """
    job = draft(args, opts, now=now)
    with joined(tx, schema) as transaction:
        return insert_drafts(transaction, [job], schema=schema, now=now)[0]


def insert_many(
    tx: Tx,
    jobs: Iterable[object],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[InsertResult]:
    """Insert jobs in the caller's transaction. If one is refused, none is inserted.

    Args:
        tx: The transaction, as for `insert`.
        jobs: Args, or pairs of args and InsertOpts.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Returns:
        A result for each job, in the order of the jobs.

    Raises:
        InvalidOption: If there is no job, or an option is out of range.
        InvalidArgs: As for `insert`.
    """
    drafted = drafts(jobs, now=now)

    def insert_all() -> list[InsertResult]:
        with joined(tx, schema) as transaction:
            return insert_drafts(transaction, drafted, schema=schema, now=now)

    return again(tx, insert_all)


def insert_drafts(
    transaction: Transaction,
    drafted: Sequence[JobDraft],
    *,
    schema: str | None = None,
    now: datetime | None = None,
    notify: Iterable[str] = (),
) -> list[InsertResult]:
    """Insert drafts, and return a result for each, in the same order.

    Args:
        transaction: The transaction.
        drafted: The drafts.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
        notify: Queues whose clients the first statement notifies, if it inserts any job.
    """
    moment = checked_now(now)
    payloads = [insert_payload(name) for name in notify]
    results: list[InsertResult] = []
    check_objects(transaction, drafted)
    drafted = in_encoding(drafted, encodings_of(transaction.connection))
    for batch in batches(drafted):
        if any(job.mark for job in batch):
            results += _insert_unique(transaction, batch, schema, moment, payloads)
        else:
            rows = insert_rows(transaction, batch, schema, moment, payloads)
            results += [
                InsertResult(_inserted(job, row[0], time_of(row[1])), False)
                for job, row in zip(batch, rows, strict=True)
            ]
        payloads = []
    return results


def insert_rows(
    transaction: Transaction,
    batch: Sequence[JobDraft],
    schema: str | None,
    now: datetime | None,
    payloads: Sequence[str] = (),
    *,
    unique: bool = False,
) -> Sequence[Any]:
    """Insert the drafts of one batch, and return the rows of the statement.

    Raises:
        InsertIgnored: If there are fewer rows than drafts, because of a trigger.
    """
    notify = bool(payloads)
    params: dict[str, Any]
    rows: Sequence[Any]
    where: dict[str, Any] = {"schema": schema if unique else None, "named": schema is not None}
    if len(batch) == 1:
        values = values_of(batch[0], now)
        statement = queries.insert_job(tuple(values), **where, unique=unique, notify=notify)
        params = {f"job_{name}": value for name, value in values.items()}
    else:
        columns = columns_of(batch, now)
        statement = queries.insert_jobs(tuple(columns), **where, unique=unique, notify=notify)
        params = {f"jobs_{name}": array_text(values) for name, values in columns.items()}
    if notify:
        params |= notify_params(Topic.insert, payloads, schema)
    if unique:
        # With names, as `job_row` needs them.
        rows = transaction.execute(statement, params).all()
    else:
        rows = transaction.rows(statement, params)
    if len(rows) != len(batch):
        raise InsertIgnored(len(batch), len(rows))
    return rows


def _insert_unique(
    transaction: Transaction,
    batch: Sequence[JobDraft],
    schema: str | None,
    now: datetime | None,
    payloads: Sequence[str],
) -> list[InsertResult]:
    # One statement cannot change the same row twice, so duplicates within the batch are left out.
    first: dict[bytes, int] = {}
    places = []
    distinct: list[JobDraft] = []
    for job in batch:
        key = job.mark.key if job.mark else None
        place = len(distinct) if key is None else first.setdefault(key, len(distinct))
        places.append(place)
        if place == len(distinct):
            distinct.append(job)
    rows = insert_rows(transaction, distinct, schema, now, payloads, unique=True)
    inserted = [
        InsertResult(job_row(row), True)
        if row.skipped
        else InsertResult(_inserted(job, row.id, row.created_at, row.unique_states), False)
        for job, row in zip(distinct, rows, strict=True)
    ]
    seen: set[int] = set()
    results: list[InsertResult] = []
    for place in places:
        result = inserted[place]
        results.append(InsertResult(result.job, True) if place in seen else result)
        seen.add(place)
    return _resolved(transaction, batch, results, now)


def _inserted(
    job: JobDraft, job_id: int, created_at: datetime, unique_states: Any = None
) -> JobRow:
    """Return the row of an inserted job. The database returned only what it has set."""
    return JobRow(
        id=job_id,
        kind=job.kind,
        # Decoded again, because the draft's args may contain the caller's own objects.
        args=json.loads(job.args_text),
        state=job.state,
        queue=job.queue,
        attempt=0,
        max_attempts=job.max_attempts,
        priority=job.priority,
        created_at=created_at,
        scheduled_at=job.scheduled_at or created_at,
        metadata={} if job.metadata_text == "{}" else json.loads(job.metadata_text),
        tags=job.tags,
        unique_key=job.mark.key if job.mark else None,
        unique_states=None if unique_states is None else states_in(unique_states),
    )


def _resolved(
    transaction: Transaction,
    batch: Sequence[JobDraft],
    results: list[InsertResult],
    now: datetime | None,
) -> list[InsertResult]:
    """Change existing jobs by the `on_conflict` of their duplicates; the last duplicate wins."""
    changes: dict[int, dict[str, Any]] = {}
    for job, result in zip(batch, results, strict=True):
        action = job.mark.on_conflict if job.mark else OnConflict.skip
        if result.skipped_as_duplicate and action is not OnConflict.skip:
            change = changes.setdefault(result.job.id, {"id": result.job.id})
            if action is not OnConflict.reschedule:
                change |= {
                    "args": json.loads(job.args_text),
                    "metadata": json.loads(job.metadata_text),
                    "priority": job.priority,
                    "tags": job.tags,
                }
            if action is not OnConflict.replace:
                at = job.scheduled_at and job.scheduled_at.isoformat()
                change |= {"reschedule": 1, "scheduled_at": at}
    if not changes:
        return results
    ordered = [changes[job_id] for job_id in sorted(changes)]
    text = json_text(ordered)
    if encodings_of(transaction.connection) != UTF8:
        text = escaped(text)
    params = {"changes": text, "now": now}
    rows = transaction.execute(queries.change_waiting(), params)
    changed = {row.id: job_row(row) for row in rows}
    return [
        InsertResult(changed[result.job.id], result.skipped_as_duplicate, True)
        if result.job.id in changed
        else result
        for result in results
    ]
