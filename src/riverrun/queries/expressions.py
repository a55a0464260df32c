"""Expressions that several statements share.

A statement is built once and cached, and its variable parts are binds. Times come from the
database's clock; only tests set the bind `now`.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Integer,
    Interval,
    Text,
    bindparam,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from riverrun.jobs.columns import Timestamp
from riverrun.jobs.states import JobState
from riverrun.models import ClientRecord, Job

ATTEMPT_MAX = 32_767
"""Maximum number of attempts that the column, a smallint, can count."""


_LISTS = frozenset({"attempted_by", "errors", "tags"})


JOB_COLUMNS = tuple(Job.__mapper__.column_attrs.keys())


NOW = func.coalesce(cast(bindparam("now"), Timestamp), func.now())


FIRST_TIME = datetime(1, 1, 2, tzinfo=UTC)


LAST_TIME = datetime(9999, 12, 30, tzinfo=UTC)
"""FIRST_TIME and LAST_TIME replace times beyond them, such as 'infinity', which Python cannot hold
in every time zone."""


_FIRST, _LAST = (
    literal_column(f"timestamptz '{time.isoformat()}'", Timestamp)
    for time in (FIRST_TIME, LAST_TIME)
)


def go_time(time: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a time's text as Go writes it in JSON, like `wire.go_json.time`."""
    # to_jsonb() drops trailing zeros, and writes ISO 8601 whatever the session's DateStyle.
    text = func.to_jsonb(func.timezone(literal_column("'UTC'"), time)).op("#>>")(
        literal_column("'{}'::text[]")
    )
    return func.concat(text, literal_column("'Z'"))


def state_literal(state: JobState, job: Any = Job) -> ColumnElement[Any]:
    """Return `state` as a literal, so that the planner knows which part of an index it will read.

    Args:
        state: The state.
        job: The class of the jobs. The state's type is in the schema of its table.
    """
    return cast(literal_column(f"'{state.value}'"), job.state.type)


def job_columns() -> list[Any]:
    """Return all columns of a job, in the form that `job_row` reads."""
    # With labels, because a Session names a column by its attribute, a Connection by its column.
    return [job_column(name).label(name) for name in JOB_COLUMNS]


def job_column(name: str) -> Any:
    """Return the column `name` of a job, in the form that `job_row` reads."""
    column = getattr(Job, name)
    if name == "errors":
        column = cast(column, ARRAY(Text))
    # The driver returns lists already, and SQLAlchemy would copy each of them.
    return type_coerce(column, NullType) if name in _LISTS else readable(column)


def readable(column: Any) -> Any:
    """Return a column in a form that can be read from every row, whatever wrote the row.

    For one value that Python cannot hold, such as a time before the year 1 or a state that only a
    later River knows, the driver or SQLAlchemy would refuse the whole result.
    """
    match column.type:
        case JSONB() | ENUM():
            # For JSON also because it is faster: parsing here costs half of the driver's hook.
            return cast(column, Text)
        case DateTime():
            return case((column < _FIRST, _FIRST), (column > _LAST, _LAST), else_=column)
    return column


class _InMask(FunctionElement[bool]):
    """River's function in a schema of any name: `func` of SQLAlchemy does not quote all names."""

    name = "river_job_state_in_bitmask"
    type = Boolean()
    inherit_cache = True

    def __init__(self, mask: Any, state: Any, *, schema: str | None) -> None:
        # The schema is an argument, so that it is a part of the key of compiled statements.
        super().__init__(mask, state, literal_column(schema or ""))


@compiles(_InMask)
def _compile_in_mask(element: _InMask, compiler: SQLCompiler, **options: Any) -> str:
    mask, state, schema = element.clauses
    preparer = compiler.preparer
    # Without a schema of the client's, where a schema_translate_map of the application's leads.
    name = schema.name or preparer.schema_for_object(Job.__table__)
    place = f"{preparer.quote_schema(name)}." if name else ""
    arguments = ", ".join(compiler.process(argument, **options) for argument in (mask, state))
    return f"{place}{element.name}({arguments})"


def in_mask(mask: Any, state: Any, schema: str | None) -> ColumnElement[bool]:
    """Return the condition that `state` is in a unique mask."""
    return _InMask(mask, state, schema=schema)


def records(name: str, *columns: Any) -> Any:
    """Return the bind `name`, the JSON text of an array of objects, as rows with `columns`."""
    source = func.jsonb_to_recordset(cast(bindparam(name, type_=Text), JSONB))
    return source.table_valued(*columns, name=name).render_derived(name=name, with_types=True)


def attempts(name: str) -> Any:
    """Return binds `ids` and `attempts`, the texts of two arrays, as rows."""
    return (
        func.unnest(
            # Bound as text, so that the driver need not adapt each item.
            cast(bindparam("ids", type_=Text), ARRAY(BigInteger)),
            cast(bindparam("attempts", type_=Text), ARRAY(Integer)),
        )
        .table_valued(column("id", BigInteger), column("attempt", Integer))
        .render_derived(name=name)
    )


def finished_at(age_us: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the time at which an attempt finished, `age_us` microseconds ago.

    It is never before the attempt began and never in the future, even if a clock was changed.
    """
    at = NOW - age_us * literal_column("interval '1 microsecond'", Interval)
    return func.least(NOW, func.greatest(Job.attempted_at, at))


def still_running(*, skip_locked: bool) -> list[ColumnElement[bool]]:
    """Return the conditions for the jobs of `attempts` that `owner` still runs at that attempt."""
    done = attempts("done")
    fence = [
        Job.id == done.c.id,
        Job.attempt == done.c.attempt,
        Job.state == state_literal(JobState.running),
        own_claim(),
    ]
    if not skip_locked:
        return fence
    # No key changes, so this need not wait for open transactions that insert references to the job.
    place: ColumnElement[Any] = literal_column("ctid")
    held = (
        select(place.label("place"))
        .where(*fence)
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("held")
    )
    # By its ctid a row that was just locked is found without using the index again. A row that was
    # changed between the read and the lock has another ctid, and is written at the next try.
    return [place == func.any(func.array(select(held.c.place).scalar_subquery()))]


def seconds(name: str) -> Any:
    """Return the bind `name`, in seconds, as an interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, cast(bindparam(name), Float))


def last_claimer() -> ColumnElement[str]:
    """Return the client that claimed a job last; null if none is recorded."""
    return Job.attempted_by[func.array_length(Job.attempted_by, 1)]


def own_claim() -> ColumnElement[bool]:
    """Return the condition for a job that bind `owner` claimed last; if that is null, for any job.

    The number of an attempt does not suffice: a claim that a crash or a failover of the server has
    undone is made again under the same number, by another client.
    """
    owner = cast(bindparam("owner", type_=Text), Text)
    return or_(owner.is_(None), last_claimer() == owner)


def names_a_running_job() -> Any:
    """Return the condition for a client that was the last to claim a job that is still running."""
    running = Job.state == state_literal(JobState.running)
    return exists().where(running, last_claimer() == ClientRecord.id)


INSTANCE_KEY = "instance"
"""The key in a client's metadata that differs for each start of a client."""


def is_another_s() -> ColumnElement[bool]:
    """Return whether a client's record belongs to another instance than bind `instance`.

    False if the bind is null, or the record has none, as those of older releases.
    """
    instance = ClientRecord.metadata_[INSTANCE_KEY].astext
    return func.coalesce(instance != bindparam("instance", type_=Text), false())
