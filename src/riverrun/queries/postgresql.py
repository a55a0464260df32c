"""The statements as PostgreSQL takes them.

Each is built once and cached; what varies is bound. `now` is a bind that only tests set: rows live
by the database's clock.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Insert,
    Integer,
    Select,
    SmallInteger,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    table,
    true,
    type_coerce,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, JSONB, array, insert
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from riverrun.columns import JobStateType, Timestamp
from riverrun.models import Job
from riverrun.states import FINAL_STATES, JobState

ATTEMPTED_BY_MAX = 100
"""Clients a job remembers; the oldest fall out. Source: River 0.51, JobGetAvailable."""

ATTEMPT_MAX = 32_767
"""As many attempts as a smallint counts."""

CHANNEL_MAX = 63
"""Bytes of a channel's name that PostgreSQL takes."""

_LISTS = frozenset({"attempted_by", "errors", "tags"})
JOB_COLUMNS = tuple(Job.__mapper__.column_attrs.keys())
NOW = func.coalesce(cast(bindparam("now"), Timestamp), func.now())
FIRST_TIME = datetime(1, 1, 2, tzinfo=UTC)
LAST_TIME = datetime(9999, 12, 30, tzinfo=UTC)
"""What is read of a time that Python cannot tell in every zone, such as 'infinity'."""

_FIRST, _LAST = (
    literal_column(f"timestamptz '{time.isoformat()}'", Timestamp)
    for time in (FIRST_TIME, LAST_TIME)
)


def state_literal(state: JobState) -> ColumnElement[Any]:
    """Return `state` as a literal: the planner then knows which part of the index it will read."""
    return cast(literal_column(f"'{state.value}'"), JobStateType)


def job_columns() -> list[Any]:
    """Return every column of a job, as `job_row` reads them."""
    # Labelled: a Session names a column by its attribute, a Connection by its column.
    return [_read(name).label(name) for name in JOB_COLUMNS]


def _read(name: str) -> Any:
    column = getattr(Job, name)
    if name == "errors":
        column = cast(column, ARRAY(Text))
    # As lists the driver has them already; SQLAlchemy would build each anew.
    return type_coerce(column, NullType) if name in _LISTS else readable(column)


def readable(column: Any) -> Any:
    """Return a column as it can be read of every row, whoever wrote it.

    Of one row that Python has no value for, as a time before its first year or a state that a later
    River knows, the driver or SQLAlchemy would give up the whole result.
    """
    match column.type:
        case JSONB() | ENUM():
            # JSON as text also for speed: to parse it here costs half of the driver's hook.
            return cast(column, Text)
        case DateTime():
            return case((column < _FIRST, _FIRST), (column > _LAST, _LAST), else_=column)
    return column


class _InMask(FunctionElement[bool]):
    """River's function, in a schema of any name: SQLAlchemy's own functions do not quote all."""

    name = "river_job_state_in_bitmask"
    type = Boolean()
    inherit_cache = True

    def __init__(self, mask: Any, state: Any, *, schema: str | None) -> None:
        # As an argument, so that a compiled statement is found again by it, too.
        super().__init__(mask, state, literal_column(schema or ""))


@compiles(_InMask)
def _compile_in_mask(element: _InMask, compiler: SQLCompiler, **options: Any) -> str:
    mask, state, schema = element.clauses
    place = schema.name and f"{compiler.preparer.quote_schema(schema.name)}."
    arguments = ", ".join(compiler.process(each, **options) for each in (mask, state))
    return f"{place}{element.name}({arguments})"


def in_mask(mask: Any, state: Any, schema: str | None) -> ColumnElement[bool]:
    """Return whether `state` is among those of a unique mask."""
    return _InMask(mask, state, schema=schema)


def _records(name: str, *columns: Any) -> Any:
    """Return the bind `name`, JSON text of an array of objects, as rows with `columns`."""
    source = func.jsonb_to_recordset(cast(bindparam(name, type_=Text), JSONB))
    return source.table_valued(*columns, name=name).render_derived(name=name, with_types=True)


_INSERTED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "args": (Text, lambda value: cast(value, JSONB)),
    "kind": (Text, lambda value: value),
    "max_attempts": (SmallInteger, lambda value: value),
    "metadata": (Text, lambda value: cast(value, JSONB)),
    "priority": (SmallInteger, lambda value: value),
    "queue": (Text, lambda value: value),
    "created_at": (Text, lambda value: cast(value, Timestamp)),
    "scheduled_at": (Text, lambda value: func.coalesce(cast(value, Timestamp), func.now())),
    "state": (Text, lambda value: cast(value, JobStateType)),
    "tags": (Text, lambda value: cast(value, Job.tags.type)),
    "unique_key": (Text, lambda value: func.decode(value, "hex")),
    "unique_states": (Text, lambda value: cast(value, Job.unique_states.type)),
}
"""What an insert may give: the type in which a column is bound, and what becomes of the bind."""


@lru_cache(maxsize=1024)
def insert_job(columns: Sequence[str], *, schema: str | None, unique: bool) -> Insert:
    """Insert the job whose `columns` are binds `job_args`, ...; the table's defaults are the rest.

    Returns what only the database knows: of a `unique` job, which may be a duplicate, all; see
    `insert_jobs`. River: JobInsertFastMany.
    """
    statement = insert(Job).values(
        {
            # By table column: an attribute of a mapped class cannot be named metadata.
            Job.__table__.c[name]: _INSERTED[name][1](
                bindparam(f"job_{name}", type_=_INSERTED[name][0])
            )
            for name in columns
        }
    )
    return _returning(statement, schema=schema, unique=unique)


@lru_cache(maxsize=1024)
def insert_jobs(columns: Sequence[str], *, schema: str | None, unique: bool) -> Insert:
    """Insert the jobs whose `columns` are binds `jobs_args`, ..., each the text of an array.

    Of `unique` jobs, one whose key is taken returns the job that has it, and locks that. Index:
    river_job_unique_idx. River: JobInsertFastMany.
    """
    rows = (
        func.unnest(
            *(
                cast(bindparam(f"jobs_{name}", type_=Text), ARRAY(_INSERTED[name][0]))
                for name in columns
            )
        )
        .table_valued(*columns, with_ordinality="n", name="jobs")
        .render_derived(name="jobs")
    )
    source = select(*(_INSERTED[name][1](rows.c[name]) for name in columns)).order_by(rows.c.n)
    statement = insert(Job).from_select(list(columns), source)
    return _returning(statement, schema=schema, unique=unique)


def _returning(statement: PostgresInsert, *, schema: str | None, unique: bool) -> Insert:
    # Raw: the parameters are binds of the statement, not rows for the ORM to insert.
    statement = statement.execution_options(dml_strategy="raw")
    if not unique:
        return statement.returning(Job.id, Job.created_at)
    statement = statement.on_conflict_do_update(
        index_elements=[Job.unique_key],
        index_where=and_(
            Job.unique_key.is_not(None),
            Job.unique_states.is_not(None),
            in_mask(Job.unique_states, Job.state, schema),
        ),
        # Something must be set for the row to come back; its kind may be another's.
        set_={"kind": Job.kind},
    )
    # A row that was inserted by this very statement has no deleting transaction.
    return statement.returning(*job_columns(), literal_column("xmax::text <> '0'").label("skipped"))


@lru_cache
def change_waiting() -> Update:
    """Change jobs that wait, as the records in bind `changes` say; a null leaves as it is.

    Locks the rows by id; an insert that met them has done so already. Index: river_job_pkey.
    """
    rows = _records(
        "changes",
        column("id", BigInteger),
        column("args", JSONB),
        column("metadata", JSONB),
        column("priority", SmallInteger),
        column("tags", ARRAY(Text)),
        column("reschedule", Integer),
        column("scheduled_at", Timestamp),
    )
    waiting = Job.state.in_(
        [
            state_literal(state)
            for state in (
                JobState.available,
                JobState.pending,
                JobState.retryable,
                JobState.scheduled,
            )
        ]
    )
    moved = and_(rows.c.reschedule == 1, Job.state != state_literal(JobState.pending))
    return (
        update(Job)
        .where(Job.id == rows.c.id, waiting)
        .values(
            args=func.coalesce(rows.c.args, Job.args),
            metadata_=func.coalesce(Job.metadata_.op("||")(rows.c.metadata), Job.metadata_),
            priority=func.coalesce(rows.c.priority, Job.priority),
            tags=func.coalesce(cast(rows.c.tags, Job.tags.type), Job.tags),
            scheduled_at=case(
                (rows.c.reschedule == 1, func.coalesce(rows.c.scheduled_at, NOW)),
                else_=Job.scheduled_at,
            ),
            state=case(
                (and_(moved, rows.c.scheduled_at.is_(None)), state_literal(JobState.available)),
                (moved, state_literal(JobState.scheduled)),
                else_=Job.state,
            ),
        )
        .returning(*job_columns())
    )


CLAIMED = (
    "id",
    "kind",
    "args",
    "attempt",
    "max_attempts",
    "priority",
    "created_at",
    "scheduled_at",
    "attempted_at",
    "attempted_by",
    "errors",
    "metadata_",
    "tags",
)
"""What a claim returns, in this order."""


@lru_cache
def claim_jobs() -> Update:
    """Claim up to `limit` available jobs of `queue` for `client_id`.

    Locks what it claims and skips what others have locked. Index:
    river_job_prioritized_fetching_index. River: JobGetAvailable.
    """
    claimable = (
        select(Job.id)
        .where(
            Job.state == state_literal(JobState.available),
            Job.queue == bindparam("queue_name", type_=Text),
            Job.scheduled_at <= NOW,
        )
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("claimable")
    )
    return _claim(claimable)


@lru_cache
def queues_waiting() -> Select[Any]:
    """Read which queues of bind `names`, an array, have a job that `claim_jobs` might claim.

    Locks nothing. Index: river_job_prioritized_fetching_index, once for each queue: by its order,
    for a planner that only looks for one row may take any way to it.
    """
    asked = (
        func.unnest(bindparam("names", type_=ARRAY(Text)))
        .table_valued(column("name", Text))
        .render_derived(name="asked")
    )
    first = (
        select(Job.id)
        .where(
            Job.state == state_literal(JobState.available),
            Job.queue == asked.c.name,
            Job.scheduled_at <= func.now(),
        )
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(1)
        .lateral("first")
    )
    return select(asked.c.name).join_from(asked, first, true())


@lru_cache
def claim_job() -> Update:
    """Claim the job `job_id` for `client_id` if it waits, whenever it is due.

    Locks its row. Index: river_job_pkey.
    """
    waits = {JobState.available, JobState.pending, JobState.retryable, JobState.scheduled}
    claimable = (
        select(Job.id)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.state.in_([state_literal(state) for state in sorted(waits)]),
        )
        .with_for_update(skip_locked=True)
        .cte("claimable")
    )
    return _claim(claimable)


def _claim(claimable: CTE) -> Update:
    client_id = cast(bindparam("client_id"), Text)
    length = func.array_length(Job.attempted_by, 1)
    kept = case(
        # Nothing can be appended to it, and the claims of all others must not fail for that.
        (func.array_ndims(Job.attempted_by) > 1, None),
        (
            length >= ATTEMPTED_BY_MAX,
            Job.attempted_by[length - (ATTEMPTED_BY_MAX - 2) : length],
        ),
        else_=Job.attempted_by,
    )
    return (
        update(Job)
        # Not a join: how many are locked is not known when the plan is made, and by what the
        # planner supposes it would read all of a table of 50,000 rows for a thousand.
        .where(Job.id == func.any(func.array(select(claimable.c.id).scalar_subquery())))
        .values(
            state=state_literal(JobState.running),
            attempt=func.least(Job.attempt, ATTEMPT_MAX - 1) + 1,
            attempted_at=NOW,
            attempted_by=func.array_append(kept, client_id),
        )
        .returning(
            *(
                Job.attempted_at if name == "attempted_at" else _read(name).label(name)
                for name in CLAIMED
            )
        )
    )


def _pairs(name: str) -> Any:
    """Return binds `ids` and `attempts`, the texts of two arrays, as rows."""
    return (
        func.unnest(
            # As text, which needs no adapting item by item.
            cast(bindparam("ids", type_=Text), ARRAY(BigInteger)),
            cast(bindparam("attempts", type_=Text), ARRAY(Integer)),
        )
        .table_valued(column("id", BigInteger), column("attempt", Integer))
        .render_derived(name=name)
    )


@lru_cache
def complete_jobs(*, skip_locked: bool) -> Update:
    """Complete the jobs in binds `ids` and `attempts`, two arrays, where they still run.

    Locks their rows in the order of the arrays, or only those that nobody else has locked. Index:
    river_job_pkey. River: JobSetStateIfRunningMany, for the case that a worker returned and said
    nothing more.
    """
    return (
        update(Job)
        .where(*_still_run(skip_locked=skip_locked))
        .values(state=state_literal(JobState.completed), finalized_at=NOW)
        .returning(Job.id)
    )


def _still_run(*, skip_locked: bool) -> list[ColumnElement[bool]]:
    done = _pairs("done")
    fence = [
        Job.id == done.c.id,
        Job.attempt == done.c.attempt,
        Job.state == state_literal(JobState.running),
    ]
    if not skip_locked:
        return fence
    # No key changes: a row that refers to the job, in an open transaction, does not matter.
    place: ColumnElement[Any] = literal_column("ctid")
    held = (
        select(place.label("place"))
        .where(*fence)
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("held")
    )
    # By its place a row that was just locked is found without the index once more. One that was
    # changed between the look and the lock is at another place, and is written at the next try.
    return [place == func.any(func.array(select(held.c.place).scalar_subquery()))]


@lru_cache
def unwritten_jobs() -> Select[Any]:
    """Read which of binds `ids` are there, whether at `attempts` they run, and are not locked.

    Locks what is free for a moment, and skips the rest. Index: river_job_pkey.
    """
    asked, again = _pairs("asked"), _pairs("again")
    free = (
        select(Job.id)
        .join(again, Job.id == again.c.id)
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("free")
    )
    runs = and_(Job.state == state_literal(JobState.running), Job.attempt == asked.c.attempt)
    columns: tuple[Any, ...] = (Job.id, runs.label("runs"), Job.id.in_(select(free.c.id)))
    return select(*columns).join(asked, Job.id == asked.c.id)


@lru_cache
def record_outcomes(*, skip_locked: bool) -> Update:
    """Write the outcomes in bind `outcomes` where the jobs still run at the same attempt.

    A job that somebody asked to cancel meanwhile, and that would run again, is cancelled instead.
    Staged metadata is merged also where the job no longer runs, if `merge_anyway`. Locks the rows
    by id, or only those that nobody else has locked. Index: river_job_pkey. River:
    JobSetStateIfRunningMany.
    """
    rows = _records(
        "outcomes",
        column("id", BigInteger),
        column("attempt", Integer),
        column("state", Text),
        column("scheduled_at", Timestamp),
        column("error", JSONB),
        column("metadata", JSONB),
        column("give_back", Integer),
        column("merge_anyway", Integer),
    )
    held = (
        select(Job.id)
        .join(rows, Job.id == rows.c.id)
        .order_by(Job.id)
        .with_for_update(of=Job, key_share=True, skip_locked=skip_locked)
        .cte("held")
    )
    fenced = and_(Job.state == state_literal(JobState.running), Job.attempt == rows.c.attempt)
    again = rows.c.state.in_(
        [literal_column(f"'{state}'") for state in ("available", "retryable", "scheduled")]
    )
    # To an array of arrays, which only a stranger writes, nothing can be appended.
    before = case(
        (func.array_ndims(Job.errors) > 1, array([func.to_jsonb(Job.errors)])), else_=Job.errors
    )
    unwanted = and_(fenced, again, Job.metadata_.has_key("cancel_attempted_at"))
    final = rows.c.state.in_([literal_column(f"'{state}'") for state in sorted(FINAL_STATES)])
    return (
        update(Job)
        .where(
            Job.id == held.c.id,
            Job.id == rows.c.id,
            or_(fenced, and_(rows.c.merge_anyway == 1, rows.c.metadata.is_not(None))),
        )
        .values(
            state=case(
                (unwanted, state_literal(JobState.cancelled)),
                (fenced, cast(rows.c.state, JobStateType)),
                else_=Job.state,
            ),
            attempt=case(
                (unwanted, Job.attempt),
                (fenced, func.greatest(Job.attempt - func.coalesce(rows.c.give_back, 0), 0)),
                else_=Job.attempt,
            ),
            scheduled_at=case(
                (unwanted, Job.scheduled_at),
                (fenced, func.coalesce(rows.c.scheduled_at, Job.scheduled_at)),
                else_=Job.scheduled_at,
            ),
            finalized_at=case((or_(unwanted, and_(fenced, final)), NOW), else_=Job.finalized_at),
            errors=case(
                (
                    and_(fenced, rows.c.error.is_not(None)),
                    func.array_append(before, rows.c.error),
                ),
                else_=Job.errors,
            ),
            metadata_=func.coalesce(Job.metadata_.op("||")(rows.c.metadata), Job.metadata_),
        )
        .returning(Job.id, readable(Job.state).label("state"))
    )


@lru_cache
def merge_metadata() -> Update:
    """Merge bind `merged` into the metadata of a job that runs at `attempt_number`.

    Locks the row. Index: river_job_pkey. River: JobUpdate, which is not fenced.
    """
    merged = cast(bindparam("merged", type_=Text), JSONB)
    return (
        update(Job)
        .where(
            Job.id == bindparam("job_id", type_=BigInteger),
            Job.attempt == bindparam("attempt_number", type_=Integer),
            Job.state == state_literal(JobState.running),
        )
        .values(metadata_=Job.metadata_.op("||")(merged))
        .returning(Job.id)
    )


@lru_cache
def clock() -> Select[Any]:
    """Read the database's time."""
    return select(func.now())


@lru_cache
def due_jobs() -> Select[Any]:
    """Choose up to `limit` retryable and scheduled jobs due before now + `ahead_s`.

    None with an id in bind `skipped`. Locks them and skips what others have locked. Index:
    river_job_prioritized_fetching_index.
    """
    waiting = Job.state.in_([state_literal(JobState.retryable), state_literal(JobState.scheduled)])
    horizon = NOW + func.make_interval(0, 0, 0, 0, 0, 0, cast(bindparam("ahead_s"), Float))
    names = ("id", "unique_key", "unique_states", "state", "priority", "scheduled_at")
    columns: list[Any] = [getattr(Job, name) for name in names]
    return (
        select(*columns)
        .where(
            waiting,
            Job.scheduled_at <= horizon,
            Job.id != func.all(bindparam("skipped", type_=ARRAY(BigInteger))),
        )
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache
def schedule_jobs(*, schema: str | None, these: bool = False) -> Update:
    """Make the `due_jobs` available, or those with bind `ids` that still are among them.

    One whose unique key another job holds is discarded. River: JobSchedule.
    """
    chosen = due_jobs()
    if these:
        chosen = chosen.where(Job.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))
    due = chosen.cte("due")
    holder = aliased(Job)
    taken = exists().where(
        holder.unique_key == due.c.unique_key,
        holder.id != due.c.id,
        holder.unique_states.is_not(None),
        in_mask(holder.unique_states, holder.state, schema),
    )
    holds = in_mask(due.c.unique_states, due.c.state, schema)
    turn = func.row_number().over(
        partition_by=due.c.unique_key,
        order_by=(holds.desc().nulls_last(), due.c.priority, due.c.scheduled_at, due.c.id),
    )
    ranked = select(
        due.c.id,
        and_(
            due.c.unique_key.is_not(None), due.c.unique_states.is_not(None), or_(turn > 1, taken)
        ).label("conflict"),
        in_mask(due.c.unique_states, state_literal(JobState.discarded), schema).label(
            "holds_discarded"
        ),
    ).cte("ranked")
    mark = func.jsonb_build_object("unique_key_conflict", "scheduler_discarded")
    return (
        update(Job)
        .where(Job.id == ranked.c.id)
        .values(
            state=case(
                (ranked.c.conflict, state_literal(JobState.discarded)),
                else_=state_literal(JobState.available),
            ),
            finalized_at=case((ranked.c.conflict, NOW), else_=None),
            metadata_=case((ranked.c.conflict, Job.metadata_.op("||")(mark)), else_=Job.metadata_),
            # Where discarded jobs hold their key too, the index would refuse this one for ever.
            unique_states=case(
                (and_(ranked.c.conflict, ranked.c.holds_discarded), None), else_=Job.unique_states
            ),
        )
        .returning(
            Job.id,
            Job.queue,
            readable(Job.state).label("state"),
            (Job.scheduled_at <= NOW + func.make_interval(0, 0, 0, 0, 0, 0, 0.005)).label("due"),
        )
    )


@lru_cache
def schema_of_tables() -> Select[Any]:
    """Read the schema of River's tables: bind `schema`, or where the search path finds them."""
    return select(_place())


@lru_cache
def channels() -> Select[Any]:
    """Read the channels of bind `topics`, an array of text, beside each one's topic.

    On a search path whose first schema is not that of the tables there are two of each: River's
    clients name theirs by the first.
    """
    topics = (
        func.unnest(bindparam("topics", type_=ARRAY(Text)))
        .table_valued(column("topic", Text))
        .render_derived(name="topics")
    )
    places = _places()
    channel = _channel(places.c.place, topics.c.topic)
    return select(channel, topics.c.topic).select_from(topics).join(places, true())


@lru_cache
def notify() -> Select[Any]:
    """Send `payloads`, an array of text, on the channels of `topic`; see `channels`.

    Sent when the transaction commits.
    """
    payloads = (
        func.unnest(bindparam("payloads", type_=ARRAY(Text)))
        .table_valued(column("payload", Text))
        .render_derived(name="payloads")
    )
    places = _places()
    channel = _channel(places.c.place, bindparam("topic", type_=Text))
    sent = func.pg_notify(channel, payloads.c.payload)
    return select(sent).select_from(payloads).join(places, true())


def _place() -> ColumnElement[str]:
    tables = table("pg_class", column("oid"), column("relnamespace"), schema="pg_catalog")
    schemas = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
    found = (
        select(cast(schemas.c.nspname, Text))
        .join_from(tables, schemas, schemas.c.oid == tables.c.relnamespace)
        .where(tables.c.oid == func.to_regclass(Job.__tablename__))
        .scalar_subquery()
    )
    return func.coalesce(cast(bindparam("schema"), Text), found, func.current_schema())


def _places() -> Any:
    first = func.coalesce(cast(bindparam("schema"), Text), func.current_schema())
    each = union(
        select(_place().label("place")), select(cast(first, Text).label("place"))
    ).subquery("each")
    return select(each.c.place).where(each.c.place.is_not(None)).subquery("places")


def _channel(place: ColumnElement[Any], topic: ColumnElement[Any]) -> ColumnElement[str]:
    named = func.concat(place, ".", topic)
    # Longer names are none for PostgreSQL. River has no clients there: it refuses such a schema.
    digest = func.encode(func.sha256(func.convert_to(place, "UTF8")), "hex")
    short = func.concat(func.left(digest, 32), ".", topic)
    return case((func.octet_length(named) > CHANNEL_MAX, short), else_=named)
