"""Step 1 of 5: insert. Before: the host's own work in the same transaction. After: notify."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import psycopg
from psycopg import sql

from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.job import JobRow, encode, encode_text, kind_of
from riverrun.models import Job
from riverrun.options import (
    MAX_ATTEMPTS_DEFAULT,
    PRIORITY_DEFAULT,
    QUEUE_DEFAULT,
    InsertOpts,
    OnConflict,
    UniqueMark,
    check_aware,
    json_problem,
    json_text,
)
from riverrun.queries import postgresql as queries
from riverrun.sessions import Transaction, Where, joined
from riverrun.states import JobState, mask_of
from riverrun.verbs.read import job_row

_NOTHING_SAID = InsertOpts()
_BATCH_JOBS = 5_000
_BATCH_CHARS = 8_000_000


@attrs.frozen
class InsertResult:
    """What an insert came to.

    Attributes:
        job: The job inserted, or the one that stood in its way.
        skipped_as_duplicate: Whether another job holds its unique key, and nothing was inserted.
        changed: Whether that job was changed then, as the uniqueness's `on_conflict` asks for; not
            if it runs or is final.
    """

    job: JobRow
    skipped_as_duplicate: bool
    changed: bool = False


@attrs.frozen(kw_only=True)
class JobDraft:
    """A job about to be inserted, checked, with every option decided."""

    kind: str
    args: object
    encoded: Any
    args_text: str
    queue: str
    priority: int
    max_attempts: int
    scheduled_at: datetime | None
    tags: tuple[str, ...]
    metadata_text: str
    state: JobState
    mark: UniqueMark | None = None

    def with_metadata(self, metadata: Mapping[str, Any]) -> "JobDraft":
        """Return this job with `metadata` merged into its own.

        Raises:
            InvalidOption: If JSON cannot hold it.
        """
        if problem := json_problem(metadata):
            raise InvalidOption("metadata", metadata, f"a JSON object; {problem}")
        merged = {**json.loads(self.metadata_text), **metadata}
        return attrs.evolve(self, metadata_text=json_text(merged))

    def with_args(self, encoded: Mapping[str, Any]) -> "JobDraft":
        """Return this job with `encoded` stored as its args; its unique key stays.

        Raises:
            InvalidArgs: If JSON cannot hold them, or they are too large.
        """
        if problem := json_problem(encoded):
            raise InvalidArgs(self.kind, problem)
        return attrs.evolve(self, encoded=encoded, args_text=encode_text(self.kind, encoded))


def insert(
    where: Where,
    args: object,
    opts: InsertOpts | None = None,
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> InsertResult:
    """Insert one job in the caller's transaction.

    Args:
        where: Whose transaction: a Session, scoped_session or Connection is joined; an Engine
            begins and commits one of its own.
        args: An object of a class with a kind.
        opts: How; what they leave open the args' own options and River's defaults decide.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

    Raises:
        InvalidArgs: If jsonb cannot hold the args, or they are too large.
        InvalidOption: If an option is out of range.
        SchemaMissing: If the tables are not there.
    """
    ready = draft(args, opts, now=now)
    with joined(where, schema) as transaction:
        return insert_drafts(transaction, [ready], schema=schema, now=now)[0]


def insert_many(
    where: Where,
    jobs: Iterable[object],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[InsertResult]:
    """Insert jobs in the caller's transaction; all, or, if one is refused, none.

    Args:
        where: Whose transaction, as for `insert`.
        jobs: Args, or pairs of args and InsertOpts.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

    Returns:
        A result for each job, in their order.

    Raises:
        InvalidOption: If there is no job, or an option is out of range.
        InvalidArgs: As for `insert`.
    """
    ready = drafts(jobs, now=now)
    with joined(where, schema) as transaction:
        return insert_drafts(transaction, ready, schema=schema, now=now)


def insert_many_fast(
    where: Where,
    jobs: Iterable[object],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert jobs as `insert_many` does, by COPY where the driver can, and return how many.

    Jobs with a unique mark go by INSERT: COPY fails on the first duplicate.

    Args:
        where: Whose transaction, as for `insert`.
        jobs: Args, or pairs of args and InsertOpts.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.

    Returns:
        How many were inserted; duplicates are not.

    Raises:
        InvalidOption: If there is no job, or an option is out of range.
        InvalidArgs: As for `insert`.
    """
    ready = drafts(jobs, now=now)
    with joined(where, schema) as transaction:
        return copy_drafts(transaction, ready, schema=schema, now=now)


def draft(
    args: object,
    opts: InsertOpts | None = None,
    *,
    max_attempts: int = MAX_ATTEMPTS_DEFAULT,
    now: datetime | None = None,
) -> JobDraft:
    """Return the job that `args` and `opts` make, checked; nothing is inserted.

    Args:
        args: An object of a class with a kind.
        opts: What was said for this insert.
        max_attempts: For a job for which nobody said it.
        now: The process's time, aware, for periods of uniqueness.
    """
    if opts is not None and not isinstance(opts, InsertOpts):
        raise InvalidOption("opts", opts, "an InsertOpts")
    kind = kind_of(args)
    encoded = encode(args)
    said = opts or _NOTHING_SAID
    own = getattr(args, "insert_opts", None)
    if own is not None:
        said = said.over(own)
    if said.pending:
        state = JobState.pending
    else:
        state = JobState.available if said.scheduled_at is None else JobState.scheduled
    if said.metadata and (problem := json_problem(said.metadata)):
        raise InvalidOption("metadata", said.metadata, f"a JSON object; {problem}")
    ready = JobDraft(
        kind=kind,
        args=args,
        encoded=encoded,
        args_text=encode_text(kind, encoded),
        queue=said.queue or QUEUE_DEFAULT,
        priority=said.priority or PRIORITY_DEFAULT,
        max_attempts=said.max_attempts or max_attempts,
        scheduled_at=said.scheduled_at,
        tags=tuple(said.tags or ()),
        metadata_text=json_text(said.metadata) if said.metadata else "{}",
        state=state,
    )
    if said.unique is None:
        return ready
    return attrs.evolve(ready, mark=said.unique(ready, now or datetime.now(UTC)))


def drafts(
    jobs: Iterable[object], *, max_attempts: int = MAX_ATTEMPTS_DEFAULT, now: datetime | None = None
) -> list[JobDraft]:
    """Return the drafts of `jobs`: args, or pairs of args and InsertOpts.

    Raises:
        InvalidArgs, InvalidOption: If one is refused, and which; or if there is none.
    """
    ready = []
    for index, item in enumerate(jobs):
        args, opts = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        try:
            ready.append(draft(args, opts, max_attempts=max_attempts, now=now))
        except (InvalidArgs, InvalidOption) as error:
            error.add_note(f"job {index} of the batch; none was inserted")
            raise
    if not ready:
        raise InvalidOption("jobs", [], "at least one job")
    return ready


def insert_drafts(
    transaction: Transaction,
    ready: Sequence[JobDraft],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> list[InsertResult]:
    """Insert what was drafted and return a result for each, in their order."""
    statement = queries.insert_jobs(schema=schema, returning=True)
    results: list[InsertResult] = []
    for batch in _batches(ready):
        # One statement cannot meet the same row twice, so a batch is freed of its own duplicates.
        first: dict[bytes, int] = {}
        places = []
        distinct: list[JobDraft] = []
        for job in batch:
            # A key holds only in the states of its mask.
            key = job.mark.key if job.mark and job.state in job.mark.states else None
            place = len(distinct) if key is None else first.setdefault(key, len(distinct))
            places.append(place)
            if place == len(distinct):
                distinct.append(job)
        rows = transaction.execute(statement, {"jobs": _records(distinct), "now": _aware(now)})
        inserted = [InsertResult(job_row(row), bool(row.skipped)) for row in rows]
        seen: set[int] = set()
        of_batch: list[InsertResult] = []
        for place in places:
            result = inserted[place]
            of_batch.append(InsertResult(result.job, True) if place in seen else result)
            seen.add(place)
        results += _resolved(transaction, batch, of_batch, now)
    return results


def _resolved(
    transaction: Transaction,
    batch: Sequence[JobDraft],
    results: list[InsertResult],
    now: datetime | None,
) -> list[InsertResult]:
    """Do to the jobs in the way what their duplicates ask for; the last one of each job counts."""
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
    params = {"changes": json_text(ordered), "now": _aware(now)}
    rows = transaction.execute(queries.change_waiting(), params)
    changed = {row.id: job_row(row) for row in rows}
    return [
        InsertResult(changed[result.job.id], result.skipped_as_duplicate, True)
        if result.job.id in changed
        else result
        for result in results
    ]


def copy_drafts(
    transaction: Transaction,
    ready: Sequence[JobDraft],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert what was drafted, by COPY where that is possible, and return how many."""
    driver = transaction.connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection) or any(job.mark for job in ready):
        if any(job.mark for job in ready):
            return sum(
                not result.skipped_as_duplicate
                for result in insert_drafts(transaction, ready, schema=schema, now=now)
            )
        statement = queries.insert_jobs(schema=schema, returning=False)
        for batch in _batches(ready):
            transaction.execute(statement, {"jobs": _records(batch), "now": _aware(now)})
        return len(ready)
    # A time left to the database is a column left out, and COPY's columns are the same for all.
    transaction.begin()
    try:
        for planned in (False, True):
            group = [job for job in ready if (job.scheduled_at is not None) is planned]
            if group:
                _copy(driver, group, planned=planned, schema=schema, now=_aware(now))
    except psycopg.ProgrammingError as error:
        if missing := transaction.missing(error):
            raise missing from error
        raise
    return len(ready)


def _copy(
    driver: psycopg.Connection[Any],
    group: Sequence[JobDraft],
    *,
    planned: bool,
    schema: str | None,
    now: datetime | None,
) -> None:
    columns = ["args", "kind", "max_attempts", "metadata", "priority", "queue", "state", "tags"]
    if planned or now:
        columns.append("scheduled_at")
    if now:
        columns.append("created_at")
    table = sql.Identifier(*([schema] if schema else []), Job.__tablename__)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in _batches(group):
            copy.write("".join(_line(job, planned=planned, now=now) for job in batch))


def _line(job: JobDraft, *, planned: bool, now: datetime | None) -> str:
    """Return `job` in COPY's text format; of its fields only JSON may hold what that escapes."""
    fields = [
        job.args_text.replace("\\", "\\\\"),
        job.kind,
        str(job.max_attempts),
        job.metadata_text.replace("\\", "\\\\"),
        str(job.priority),
        job.queue,
        job.state.value,
        "{" + ",".join(f'"{tag}"' for tag in job.tags) + "}",
    ]
    if planned or now:
        fields.append(str(job.scheduled_at or now))
    if now:
        fields.append(str(now))
    return "\t".join(fields) + "\n"


def _batches(ready: Sequence[JobDraft]) -> Iterator[list[JobDraft]]:
    batch: list[JobDraft] = []
    chars = 0
    for job in ready:
        if batch and (len(batch) == _BATCH_JOBS or chars + len(job.args_text) > _BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(job)
        chars += len(job.args_text)
    yield batch


def _records(batch: Sequence[JobDraft]) -> str:
    texts = []
    for n, job in enumerate(batch):
        rest = {
            "n": n,
            "kind": job.kind,
            "max_attempts": job.max_attempts,
            "priority": job.priority,
            "queue": job.queue,
            "scheduled_at": job.scheduled_at and job.scheduled_at.isoformat(),
            "state": job.state.value,
            "tags": job.tags,
            "unique_key": job.mark and job.mark.key.hex(),
            "unique_states": job.mark and f"{mask_of(job.mark.states):08b}",
        }
        head = json_text(rest)[:-1]
        texts.append(f'{head},"metadata":{job.metadata_text},"args":{job.args_text}}}')
    return "[" + ",".join(texts) + "]"


def _aware(now: datetime | None) -> datetime | None:
    return None if now is None else check_aware("now", now)
