"""What several statements are made of.

A statement is built once and cached; what varies is bound. Only tests set the bind `now`: rows live
by the database's clock.
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
    func,
    literal_column,
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
"""As many attempts as a smallint counts."""


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


def go_time(time: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a time's text as Go writes it into JSON, as `wire.go_json.time` does."""
    # JSON has no digit more than it needs, and ISO 8601 whatever the session's DateStyle.
    text = func.to_jsonb(func.timezone(literal_column("'UTC'"), time)).op("#>>")(
        literal_column("'{}'::text[]")
    )
    return func.concat(text, literal_column("'Z'"))


def state_literal(state: JobState, job: Any = Job) -> ColumnElement[Any]:
    """Return `state` as a literal: the planner then knows which part of the index it will read.

    Args:
        state: The state.
        job: The class of the jobs, whose schema that of the type is.
    """
    return cast(literal_column(f"'{state.value}'"), job.state.type)


def job_columns() -> list[Any]:
    """Return every column of a job, as `job_row` reads them."""
    # Labelled: a Session names a column by its attribute, a Connection by its column.
    return [job_column(name).label(name) for name in JOB_COLUMNS]


def job_column(name: str) -> Any:
    """Return the column `name` of a job as `job_row` reads it."""
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


def records(name: str, *columns: Any) -> Any:
    """Return the bind `name`, JSON text of an array of objects, as rows with `columns`."""
    source = func.jsonb_to_recordset(cast(bindparam(name, type_=Text), JSONB))
    return source.table_valued(*columns, name=name).render_derived(name=name, with_types=True)


def attempts(name: str) -> Any:
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


def finished_at(age_us: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return when an attempt finished that did so `age_us` microseconds ago.

    Never before the attempt began, and never in the future, whatever the clocks did meanwhile.
    """
    at = NOW - age_us * literal_column("interval '1 microsecond'", Interval)
    return func.least(NOW, func.greatest(Job.attempted_at, at))


def still_running(*, skip_locked: bool) -> list[ColumnElement[bool]]:
    """Return what holds of the jobs of `attempts` that still run at their attempt."""
    done = attempts("done")
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


def seconds(name: str) -> Any:
    """Return the bind `name`, seconds, as an interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, cast(bindparam(name), Float))


def names_a_running_job() -> Any:
    """Return whether a running job was attempted by a client of this id last."""
    owner = Job.attempted_by[func.array_length(Job.attempted_by, 1)]
    return exists().where(Job.state == state_literal(JobState.running), owner == ClientRecord.id)
