"""Step 1 of 5: insert. Before: the host's own work in the same transaction. After: notify."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import attrs
import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from riverrun.again import again, tried_again
from riverrun.characters import UTF8, encodings_of, escaped
from riverrun.clock import Duration, seconds
from riverrun.driver import OwnCursor
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.job import AnyArgs, JobRow, encode_of_kind, encode_text, kind_of
from riverrun.json_types import is_struct
from riverrun.models import Job
from riverrun.options import (
    MAX_ATTEMPTS_DEFAULT,
    PRIORITY_DEFAULT,
    QUEUE_DEFAULT,
    InsertOpts,
    OnConflict,
    UniqueMark,
    Uniqueness,
    check_aware,
    json_problem,
    json_text,
    metadata_text,
)
from riverrun.queries import insert as queries
from riverrun.sessions import Transaction, Where, joined
from riverrun.states import JobState, mask_of
from riverrun.verbs.read import job_row

_NOTHING_SAID = InsertOpts()
_NO_TYPES: Mapping[str, Any] = {}
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


@attrs.frozen(kw_only=True, slots=False)  # Without slots a frozen object is made sooner.
class JobDraft:
    """A job about to be inserted, checked, with every option decided.

    Attributes:
        kind: Names the worker.
        args: What was handed to the insert.
        encoded: That as the JSON object to store.
        args_text: That as text.
        queue: Where it will wait.
        priority: From 1, the first, to 4.
        max_attempts: How often it is tried.
        scheduled_at: Not before, aware; None for now.
        tags: As they will be stored.
        metadata_text: A JSON object as text; `with_metadata` merges into it.
        state: `available`, `scheduled` or `pending`.
        mark: What counts as the same job; None if nothing does.
    """

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
            InvalidOption: If JSON cannot hold it, or it is larger than 32 MiB.
        """
        metadata_text(metadata)
        merged = {**json.loads(self.metadata_text), **metadata}
        return attrs.evolve(self, metadata_text=metadata_text(merged))

    def with_args(self, encoded: Mapping[str, Any]) -> "JobDraft":
        """Return this job with `encoded` stored as its args; its unique key stays.

        Raises:
            InvalidArgs: If JSON cannot hold them, or they are too large.
        """
        if problem := json_problem(encoded):
            raise InvalidArgs(self.kind, problem)
        return attrs.evolve(self, encoded=encoded, args_text=encode_text(self.kind, encoded))


@tried_again
def insert(
    where: Where,
    args: AnyArgs,
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

    def insert_all() -> list[InsertResult]:
        with joined(where, schema) as transaction:
            return insert_drafts(transaction, ready, schema=schema, now=now)

    return again(where, insert_all)


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

    def copy_all() -> int:
        with joined(where, schema) as transaction:
            return copy_drafts(transaction, ready, schema=schema, now=now)

    return again(where, copy_all)


def draft(
    args: object,
    opts: InsertOpts | None = None,
    *,
    max_attempts: int = MAX_ATTEMPTS_DEFAULT,
    now: datetime | None = None,
    types: Mapping[str, Any] = _NO_TYPES,
) -> JobDraft:
    """Return the job that `args` and `opts` make, checked; nothing is inserted.

    Args:
        args: An object of a class with a kind.
        opts: What was said for this insert.
        max_attempts: For a job for which nobody said it.
        now: The process's time, aware, for periods of uniqueness.
        types: By kind, what its worker takes, where that is more than the class of its args: a
            generic class with its parameters.
    """
    return _draft(args, _decide(opts, _own(args), now), max_attempts, now, types)


@attrs.frozen
class _Decided:
    """What options come to, for every job they are said for."""

    max_attempts: int | None
    unique: Uniqueness | None
    rest: dict[str, Any]


def _own(args: object) -> InsertOpts | None:
    return getattr(args, "insert_opts", None)


def _decide(opts: InsertOpts | None, own: InsertOpts | None, now: datetime | None) -> _Decided:
    if opts is not None and not isinstance(opts, InsertOpts):
        raise InvalidOption("opts", opts, "an InsertOpts")
    said = opts or _NOTHING_SAID
    if own is not None:
        said = said.over(own)
    scheduled_at = said.scheduled_at
    if said.delay:
        scheduled_at = _later(said.delay, now or datetime.now(UTC))
    if said.pending:
        state = JobState.pending
    else:
        state = JobState.available if scheduled_at is None else JobState.scheduled
    return _Decided(
        said.max_attempts,
        said.unique,
        {
            "queue": said.queue or QUEUE_DEFAULT,
            "priority": said.priority or PRIORITY_DEFAULT,
            "scheduled_at": scheduled_at,
            "tags": tuple(said.tags or ()),
            "metadata_text": metadata_text(said.metadata) if said.metadata else "{}",
            "state": state,
        },
    )


def _later(delay: Duration, now: datetime) -> datetime:
    try:
        return now + timedelta(seconds=seconds(delay))
    except OverflowError:
        raise InvalidOption("delay", delay, "one that ends before the year 10000") from None


def _draft(
    args: object,
    decided: _Decided,
    max_attempts: int,
    now: datetime | None,
    types: Mapping[str, Any],
) -> JobDraft:
    kind = kind_of(args)
    encoded = encode_of_kind(kind, args, types.get(kind))
    ready = JobDraft(
        kind=kind,
        args=args,
        encoded=encoded,
        args_text=encode_text(kind, encoded),
        max_attempts=decided.max_attempts or max_attempts,
        **decided.rest,
    )
    if decided.unique is None:
        return ready
    return attrs.evolve(ready, mark=decided.unique(ready, now or datetime.now(UTC)))


def jobs_of(jobs: object) -> list[Any]:
    """Return the jobs of a batch.

    Raises:
        InvalidOption: If it is no iterable of args, or of pairs of args and InsertOpts.
    """
    expected = "a list of args, or of pairs of args and InsertOpts"
    if isinstance(jobs, Session | scoped_session | Connection | Engine):
        raise InvalidOption("jobs", jobs, f"{expected}, after the transaction")
    if is_struct(type(jobs)) or isinstance(jobs, str | Mapping) or not isinstance(jobs, Iterable):
        raise InvalidOption("jobs", jobs, expected)
    return list(jobs)


def drafts(
    jobs: Iterable[object],
    *,
    max_attempts: int = MAX_ATTEMPTS_DEFAULT,
    now: datetime | None = None,
    types: Mapping[str, Any] = _NO_TYPES,
) -> list[JobDraft]:
    """Return the drafts of `jobs`: args, or pairs of args and InsertOpts.

    Raises:
        InvalidArgs, InvalidOption: If one is refused, and which; or if there is none.
    """
    ready = []
    # Options are mostly said once for many jobs. Kept beside what they came to: an id is an
    # object's while that lives.
    known: dict[tuple[int, int], tuple[object, _Decided]] = {}
    for index, item in enumerate(jobs_of(jobs)):
        args, opts = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        own = _own(args)
        try:
            found = known.get((id(opts), id(own)))
            if found is None:
                found = known[id(opts), id(own)] = ((opts, own), _decide(opts, own, now))
            ready.append(_draft(args, found[1], max_attempts, now, types))
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
    moment = _aware(now)
    results: list[InsertResult] = []
    ready = _in_encoding(ready, encodings_of(transaction.connection))
    for batch in _batches(ready):
        if any(job.mark for job in batch):
            results += _insert_unique(transaction, batch, schema, moment)
        else:
            rows = _insert(transaction, batch, schema, moment)
            results += [
                InsertResult(_inserted(job, job_id, created_at), False)
                for job, (job_id, created_at) in zip(batch, rows, strict=True)
            ]
    return results


def _in_encoding(ready: Sequence[JobDraft], encodings: tuple[str, ...]) -> Sequence[JobDraft]:
    """Return jobs that can be sent where text is not UTF-8 all the way, their JSON in ASCII.

    Checked here: the database's own refusal would end the host's transaction.

    Raises:
        InvalidArgs, InvalidOption: If the database's encoding, or for tags the connection's, has no
            such character.
    """
    if encodings == UTF8:
        return ready
    for job in ready:
        if problem := _lacking(job.args_text, encodings[-1]):
            raise InvalidArgs(job.kind, f"the database, in {encodings[-1]}, has no {problem}")
        # JSON can be sent in ASCII, and the database makes characters of it.
        texts = {"metadata": (job.metadata_text, encodings[-1:]), "kind": (job.kind, encodings)}
        for name, (text, needed) in {**texts, "tags": (" ".join(job.tags), encodings)}.items():
            for encoding in needed:
                if problem := _lacking(text, encoding):
                    expected = f"characters that {encoding} has, the encoding used; not {problem}"
                    raise InvalidOption(name, text, expected)
    return [
        attrs.evolve(
            job, args_text=escaped(job.args_text), metadata_text=escaped(job.metadata_text)
        )
        for job in ready
    ]


def _lacking(text: str, encoding: str) -> str | None:
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        return repr(text[error.start])
    return None


def _insert(
    transaction: Transaction,
    batch: Sequence[JobDraft],
    schema: str | None,
    now: datetime | None,
    *,
    unique: bool = False,
) -> Sequence[Any]:
    if len(batch) == 1:
        values = _values(batch[0], now)
        statement = queries.insert_job(tuple(values), schema=schema, unique=unique)
        params = {f"job_{name}": value for name, value in values.items()}
    else:
        columns = _columns(batch, now)
        statement = queries.insert_jobs(tuple(columns), schema=schema, unique=unique)
        params = {f"jobs_{name}": _array(values) for name, values in columns.items()}
    return transaction.execute(statement, params).all()


def _insert_unique(
    transaction: Transaction, batch: Sequence[JobDraft], schema: str | None, now: datetime | None
) -> list[InsertResult]:
    # One statement cannot meet the same row twice, so a batch is freed of its own duplicates.
    first: dict[bytes, int] = {}
    places = []
    distinct: list[JobDraft] = []
    for job in batch:
        key = job.mark.key if job.mark else None
        place = len(distinct) if key is None else first.setdefault(key, len(distinct))
        places.append(place)
        if place == len(distinct):
            distinct.append(job)
    rows = _insert(transaction, distinct, schema, now, unique=True)
    inserted = [InsertResult(job_row(row), bool(row.skipped)) for row in rows]
    seen: set[int] = set()
    results: list[InsertResult] = []
    for place in places:
        result = inserted[place]
        results.append(InsertResult(result.job, True) if place in seen else result)
        seen.add(place)
    return _resolved(transaction, batch, results, now)


def _inserted(job: JobDraft, job_id: int, created_at: datetime) -> JobRow:
    """Return the row that `job` has become; all else of it was known."""
    return JobRow(
        id=job_id,
        kind=job.kind,
        # Anew: what was drafted may hold parts of the caller's own.
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
    )


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


def copy_drafts(
    transaction: Transaction,
    ready: Sequence[JobDraft],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert what was drafted, by COPY where that is possible, and return how many."""
    ready = _in_encoding(ready, encodings_of(transaction.connection))
    driver = transaction.connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection) or any(job.mark for job in ready):
        if any(job.mark for job in ready):
            return sum(
                not result.skipped_as_duplicate
                for result in insert_drafts(transaction, ready, schema=schema, now=now)
            )
        for batch in _batches(ready):
            _insert(transaction, batch, schema, _aware(now))
        return len(ready)
    transaction.begin()
    try:
        # A time left to the database is a column left out, and COPY's columns are the same for all.
        for planned in (False, True):
            group = [job for job in ready if (job.scheduled_at is not None) is planned]
            for batch in _batches(group):
                _copy(driver, _columns(batch, _aware(now)), schema)
    except psycopg.Error as error:
        # As the same error of a statement that SQLAlchemy executes.
        told = transaction.missing(error) or DBAPIError.instance("COPY", None, error, psycopg.Error)
        raise told from error
    return len(ready)


def _copy(
    driver: psycopg.Connection[Any], columns: Mapping[str, list[Any]], schema: str | None
) -> None:
    table = sql.Identifier(*([schema] if schema else []), Job.__tablename__)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    # Of what COPY's text format escapes only JSON may hold anything: a backslash.
    texts = [
        [value.replace("\\", "\\\\") for value in values]
        if name in ("args", "metadata")
        else map(str, values)
        for name, values in columns.items()
    ]
    with OwnCursor(driver) as cursor, cursor.copy(statement) as copy:
        copy.write("\n".join(map("\t".join, zip(*texts, strict=True))) + "\n")


def _batches(ready: Sequence[JobDraft]) -> Iterator[Sequence[JobDraft]]:
    if len(ready) == 1:
        yield ready
        return
    batch: list[JobDraft] = []
    chars = 0
    for job in ready:
        if batch and (len(batch) == _BATCH_JOBS or chars + len(job.args_text) > _BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(job)
        chars += len(job.args_text)
    if batch:
        yield batch


# How a column is written, and the table's default for it: what all jobs leave at that is not sent.
_COLUMNS: dict[str, tuple[Callable[[JobDraft], Any], Any]] = {
    "args": (attrgetter("args_text"), None),
    "kind": (attrgetter("kind"), None),
    "max_attempts": (attrgetter("max_attempts"), MAX_ATTEMPTS_DEFAULT),
    "metadata": (attrgetter("metadata_text"), "{}"),
    "priority": (attrgetter("priority"), PRIORITY_DEFAULT),
    "queue": (attrgetter("queue"), QUEUE_DEFAULT),
    "scheduled_at": (lambda job: job.scheduled_at and job.scheduled_at.isoformat(), None),
    "state": (attrgetter("state._value_"), JobState.available.value),
    "tags": (lambda job: _array(job.tags), "{}"),
    "unique_key": (lambda job: job.mark and job.mark.key.hex(), None),
    "unique_states": (lambda job: job.mark and f"{mask_of(job.mark.states):08b}", None),
}


def _values(job: JobDraft, now: datetime | None) -> dict[str, Any]:
    """Return by column what a job's row is given."""
    values = {
        name: value for name, (read, default) in _COLUMNS.items() if (value := read(job)) != default
    }
    if now:
        values = {"scheduled_at": str(now), **values, "created_at": str(now)}
    return values


def _columns(batch: Sequence[JobDraft], now: datetime | None) -> dict[str, list[Any]]:
    """Return by column what the jobs' rows are given."""
    columns = {}
    for name, (read, default) in _COLUMNS.items():
        values = list(map(read, batch))
        if values.count(default) < len(values):
            columns[name] = values
    if now:
        planned = columns.get("scheduled_at", [None] * len(batch))
        columns["scheduled_at"] = [value or str(now) for value in planned]
        columns["created_at"] = [str(now)] * len(batch)
    return columns


def _array(items: Iterable[object]) -> str:
    """Return the text of an array as PostgreSQL reads it."""
    return "{" + ",".join(map(_element, items)) + "}"


def _element(item: object) -> str:
    if isinstance(item, str):
        return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if item is None else str(item)


def _aware(now: datetime | None) -> datetime | None:
    return None if now is None else check_aware("now", now)
