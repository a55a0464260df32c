"""The statement of `verbs.insert_from`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    SmallInteger,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.types import ARRAY, JSON, String

from riverrun.jobs.args import MAX_ARGS_BYTES
from riverrun.jobs.columns import Timestamp
from riverrun.jobs.options import MAX_ATTEMPTS_DEFAULT, PRIORITY_DEFAULT, QUEUE_DEFAULT
from riverrun.jobs.states import JobState, mask_of
from riverrun.models import Job
from riverrun.orm.columns_of_args import ArgsColumns
from riverrun.orm.sql_json import takes_none
from riverrun.orm.sql_text import refusal
from riverrun.queries.expressions import in_mask, state_literal

_PAIRS_MAX = 45
"""Pairs of one jsonb_build_object: PostgreSQL's functions take 100 arguments."""

_YEAR_1_S = -62_135_596_800


@attrs.frozen(kw_only=True)
class Period:
    """A period of uniqueness that depends on each job's scheduled_at.

    Attributes:
        micros: The length of the period in microseconds.
        now: The time for jobs without a scheduled_at.
    """

    micros: int
    now: datetime


@attrs.frozen(kw_only=True)
class Unique:
    """How to make the unique keys.

    Attributes:
        parts: The parts of the text whose digest is a job's key: constant texts, fields whose JSON
            is inserted, and periods. None if all jobs have the same `key`.
        key: The key of all jobs.
        states: The states in which a job holds its key.
    """

    parts: Sequence["str | FieldText | Period"] | None
    key: bytes | None = None
    states: frozenset[JobState]


@attrs.frozen
class FieldText:
    """The JSON text of a field, as a part of a unique key.

    Attributes:
        name: The field's name.
    """

    name: str


@attrs.frozen(kw_only=True)
class Common:
    """The values that all jobs of an insert have in common.

    Attributes:
        constants: The JSON of the fields without a column.
        queue: The name of the queue.
        priority: 1 (first) to 4.
        max_attempts: Attempts before a job is discarded.
        scheduled_at: When the jobs are due, aware; None for at once.
        tags: The tags to store.
        metadata: The metadata as JSON text.
        state: `available`, `scheduled` or `pending`.
    """

    constants: str
    queue: str
    priority: int
    max_attempts: int
    scheduled_at: datetime | None
    tags: Sequence[str]
    metadata: str
    state: JobState


def insert_from(
    rows: ArgsColumns,
    common: Common,
    unique: Unique | None,
    *,
    schema: str | None,
    now: datetime | None,
) -> Insert:
    """Insert a job for each row of a select, and only the first of those with the same unique key.

    Locks only the rows that it inserts, but waits for other transactions that have inserted the
    same unique key. Index: river_job_unique_idx. River: JobInsertFastMany.
    """
    job = Job.in_schema(schema)
    values: dict[str, Any] = {
        "args": _args(rows, common.constants),
        "kind": literal(rows.kind, Text),
    }
    if common.max_attempts != MAX_ATTEMPTS_DEFAULT:
        values["max_attempts"] = cast(literal(common.max_attempts), SmallInteger)
    if common.metadata != "{}":
        values["metadata"] = cast(literal(common.metadata, Text), JSONB)
    if common.queue != QUEUE_DEFAULT:
        values["queue"] = literal(common.queue, Text)
    if common.tags:
        values["tags"] = literal(list(common.tags), Job.tags.type)
    values |= _planned(rows.options, common, now, job)
    if unique is not None:
        values["unique_key"] = _key(rows, unique)
        mask: ColumnElement[Any] = literal_column(f"B'{mask_of(unique.states):08b}'")
        values["unique_states"] = cast(mask, Job.unique_states.type)
    statement = insert(job).from_select(
        list(values), select(*values.values()).select_from(rows.source)
    )
    if unique is not None:
        statement = statement.on_conflict_do_nothing(
            index_elements=[job.unique_key],
            index_where=and_(
                job.unique_key.is_not(None),
                job.unique_states.is_not(None),
                in_mask(job.unique_states, job.state, schema),
            ),
        )
    return statement.execution_options(dml_strategy="raw", preserve_rowcount=True)


def _planned(
    options: Mapping[str, Any], common: Common, now: datetime | None, job: Any
) -> dict[str, Any]:
    """Return the columns that set when jobs run and in which order, without those at a default."""
    values: dict[str, Any] = {}
    if "priority" in options:
        priority = cast(options["priority"], SmallInteger)
        values["priority"] = func.coalesce(priority, common.priority)
    elif common.priority != PRIORITY_DEFAULT:
        values["priority"] = cast(literal(common.priority), SmallInteger)
    state = state_literal(common.state, job)
    at: Any = None if common.scheduled_at is None else literal(common.scheduled_at, Timestamp)
    moment = func.now() if now is None else literal(now, Timestamp)
    if "scheduled_at" in options:
        given = cast(options["scheduled_at"], Timestamp)
        at = func.coalesce(given, moment if at is None else at)
        if common.state is JobState.available:
            planned = state_literal(JobState.scheduled, job)
            state = case((given.is_(None), state), else_=planned)
    if at is not None or now is not None:
        values["scheduled_at"] = moment if at is None else cast(at, Timestamp)
    if common.state is not JobState.available or "scheduled_at" in options:
        values["state"] = state
    if now is not None:
        values["created_at"] = moment
    return values


def _args(rows: ArgsColumns, constants: str) -> ColumnElement[Any]:
    pairs = [
        (literal(field.key, Text), _present(rows, field.name, field.annotation))
        for field in rows.fields
        if field.name in rows.columns
    ]
    args: ColumnElement[Any] | None = None
    if constants != "{}" or not pairs:
        args = cast(literal(constants, Text), JSONB)
    for start in range(0, len(pairs), _PAIRS_MAX):
        flat = [item for pair in pairs[start : start + _PAIRS_MAX] for item in pair]
        built = func.jsonb_build_object(*flat, type_=JSONB())
        args = built if args is None else args.op("||", return_type=JSONB())(built)
    assert args is not None  # noqa: S101  there are constants or pairs
    return _limited(rows, args)


def _present(rows: ArgsColumns, name: str, annotation: Any) -> ColumnElement[Any]:
    value = rows.columns[name].value
    if takes_none(annotation):
        return value
    problem = f"the column of the field {name!r} is NULL in a row, which the field cannot be"
    columns = rows.given[name]
    # A NULL has no text, so the error shows only the problem.
    refused = cast(refusal(problem, columns[0]), JSONB)
    return case((or_(*(column.is_(None) for column in columns)), refused), else_=value)


def _limited(rows: ArgsColumns, args: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return `args`, or an expression that raises an error if they are too large."""
    sizes: list[Any] = [
        func.coalesce(func.octet_length(cast(column, Text)), 0)
        for column in rows.source.c
        if isinstance(column.type, JSON | ARRAY)
        or (isinstance(column.type, String) and column.type.length is None)
    ]
    if not sizes:
        return args
    total: Any = sum(sizes[1:], sizes[0])
    # Escapes may make a text six times as large. Args are converted to text, which takes time, only
    # if they may be too large.
    large = and_(
        cast(total, BigInteger) > MAX_ARGS_BYTES // 6,
        func.octet_length(cast(args, Text)) > MAX_ARGS_BYTES,
    )
    problem = f"args are larger than {MAX_ARGS_BYTES:,} bytes of JSON in a row"
    return case((large, cast(refusal(problem, total), JSONB)), else_=args)


def _key(rows: ArgsColumns, unique: Unique) -> ColumnElement[Any]:
    if unique.parts is None:
        assert unique.key is not None  # noqa: S101  there is either parts or a key
        return func.decode(literal(unique.key.hex(), Text), "hex")
    text: ColumnElement[Any] = literal("", Text)
    for part in unique.parts:
        match part:
            case str():
                text = text.concat(literal(part, Text))
            case FieldText(name):
                field_text = rows.columns[name].text
                assert field_text is not None  # noqa: S101  has been checked
                text = text.concat(func.coalesce(field_text, "null"))
            case Period():
                text = text.concat(_period(rows.options["scheduled_at"], part))
    return func.sha256(func.convert_to(text, "UTF8"))


def _period(scheduled_at: Any, period: Period) -> ColumnElement[Any]:
    """Return the beginning of a job's period as River writes it."""
    moment = func.coalesce(cast(scheduled_at, Timestamp), literal(period.now, Timestamp))
    seconds = cast(func.date_part("epoch", func.date_trunc("second", moment)), BigInteger)
    whole = (seconds - _YEAR_1_S) * 1_000_000 + cast(
        func.mod(cast(func.date_part("microseconds", moment), BigInteger), 1_000_000), BigInteger
    )
    start_s = (whole - whole % period.micros) // 1_000_000 + _YEAR_1_S
    start = func.timezone("UTC", func.to_timestamp(cast(start_s, BigInteger)))
    return func.to_char(start, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
