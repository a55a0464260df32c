"""Insert jobs from a select: one statement, and no row in the client."""

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import DateTime, Integer
from sqlalchemy.exc import DBAPIError

from riverrun.clock import seconds
from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.jobs.args import RawArgs, kind_of
from riverrun.jobs.json_values import json_text
from riverrun.jobs.options import MAX_ATTEMPTS_DEFAULT, InsertOpts, OnConflict, Uniqueness
from riverrun.orm.columns_of_args import ArgsColumns, columns_of_args
from riverrun.orm.marks import NO_SCHEMAS, Schemas
from riverrun.orm.sql_text import REFUSED
from riverrun.policies.uniqueness import DEFAULT_STATES, UniqueKey, UniqueOpts
from riverrun.queries import insert_from as queries
from riverrun.verbs.draft import JobDraft, draft
from riverrun.verbs.draft_values import checked_now, in_encoding

PRIORITY_IN_RANGE = "priority_in_range"
"""The name of River's check of a job's priority."""


@tried_again
def insert_from(
    tx: Tx,
    source: Any,
    args_type: Any,
    opts: InsertOpts | None = None,
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> int:
    """Insert a job for each row of a select, with one INSERT ... SELECT; return how many.

        insert_from(session, select(User.id.label("user_id")).where(User.active), SendDigest)

    The label of each column is the name of a field of the args. Fields without a column have their
    defaults. `insert_many` would write the same jobs, defaults and unique keys for the same values.
    No Python code can run for each job: a class with a converter, a validator or a post-init for a
    field with a column is refused, and so is a default that differs from job to job. The session is
    not flushed: flush the changes that the select needs.

    Args:
        tx: The transaction. That of a Session, scoped_session or Connection is joined; on an
            Engine one is begun and committed.
        source: A select. Columns named `scheduled_at` and `priority` set these options of each job,
            unless fields have those names. A NULL there means the option in `opts`. A field that is
            a reference to a class with several key columns has a column for each of them, labelled
            `line.order_id`, `line.number`.
        args_type: The class of the args.
        opts: The options of all jobs, as for `insert`. Of several jobs with the same unique key, in
            the table or in the select, only one is there afterwards; `on_conflict` must be "skip".
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.

    Raises:
        InvalidArgs: Before the statement runs, if a field has neither a column nor a default, a
            column is not a field, or its type or nullability does not fit. While it runs, if a row
            has a value that the field cannot hold, such as a NULL; roll the transaction back then.
        InvalidOption: If an option is out of range, or is not possible for rows of a select.
        SchemaMissing: If the tables do not exist.
    """
    common = common_draft(args_type, opts, max_attempts=MAX_ATTEMPTS_DEFAULT, now=now)
    with joined(tx) as transaction:
        return insert_rows_from(
            transaction, source, args_type, common, opts, schema=schema, now=now
        )


def common_draft(
    args_type: Any,
    opts: InsertOpts | None,
    *,
    max_attempts: int,
    now: datetime | None,
    schemas: Schemas = NO_SCHEMAS,
) -> JobDraft:
    """Return a draft without args, with the values that all jobs of an `insert_from` share.

    Raises:
        InvalidOption: If an option is out of range, or `args_type` has no kind.
    """
    kind = kind_of(args_type)
    if args_type is RawArgs or not isinstance(args_type, type):
        raise InvalidOption("args_type", args_type, "a class of args that has a kind")
    given = attrs.evolve(_given(args_type, opts), unique=None)
    raw = RawArgs(kind=kind, encoded={})
    return draft(raw, given, max_attempts=max_attempts, now=now, schemas=schemas)


def _given(args_type: Any, opts: InsertOpts | None) -> InsertOpts:
    if opts is not None and not isinstance(opts, InsertOpts):
        raise InvalidOption("opts", opts, "an InsertOpts")
    own = getattr(args_type, "insert_opts", None)
    given = opts or InsertOpts()
    return given if own is None else given.over(own)


def insert_rows_from(
    transaction: Transaction,
    source: Any,
    args_type: Any,
    common: JobDraft,
    opts: InsertOpts | None,
    *,
    schema: str | None,
    now: datetime | None,
) -> int:
    """Insert a job for each row of a select, with the draft of `common_draft`; return how many."""
    moment = checked_now(now)
    encodings = transaction.encodings
    rows = columns_of_args(source, args_type, encoding=encodings[-1])
    _check_options(rows)
    constants = {
        field.key: rows.constants[field.name]
        for field in rows.fields
        if (field.name in rows.constants)
    }
    common = attrs.evolve(common, encoded=constants, args_text=json_text(constants))
    unique = _unique(
        _given(args_type, opts).unique, rows, args_type, common, moment or datetime.now(UTC)
    )
    (sent,) = in_encoding([common], encodings)
    statement = queries.insert_from(
        rows,
        queries.Common(
            constants=sent.args_text,
            queue=sent.queue,
            priority=sent.priority,
            max_attempts=sent.max_attempts,
            scheduled_at=sent.scheduled_at,
            tags=sent.tags,
            metadata=sent.metadata_text,
            state=sent.state,
        ),
        unique,
        schema=schema,
        now=moment,
    )
    try:
        result: Any = transaction.execute(statement, {})
    except DBAPIError as error:
        if PRIORITY_IN_RANGE in str(error.orig):
            problem = "a row's priority is out of range; expected 1 to 4"
            raise InvalidArgs(rows.kind, problem) from error
        found = re.search(rf'"{re.escape(REFUSED)}([^\n]*)"', str(error.orig))
        if found is None:
            raise
        raise InvalidArgs(rows.kind, found[1]) from error
    count: int = result.rowcount
    return count


def _check_options(rows: ArgsColumns) -> None:
    for name, column in rows.options.items():
        fits = isinstance(column.type, Integer)
        expected = "an integer column"
        if name == "scheduled_at":
            fits = isinstance(column.type, DateTime) and column.type.timezone
            expected = (
                "a column of type DateTime(timezone=True), such as of cast(func.now(), "
                "DateTime(timezone=True))"
            )
        if not fits:
            raise InvalidOption(
                name, column.type, f"{expected}, because it is an option of each job"
            )


def _unique(
    unique: Uniqueness | None,
    rows: ArgsColumns,
    args_type: type,
    common: JobDraft,
    now: datetime,
) -> queries.Unique | None:
    """Return the parts of the unique keys.

    The policy describes a draft in which marks take the place of columns, and the marks in its text
    are then replaced.

    Raises:
        InvalidOption: If keys cannot be made in SQL.
    """
    if unique is None:
        return None
    action = getattr(unique, "on_conflict", OnConflict.skip)
    if action is not OnConflict.skip:
        expected = 'on_conflict="skip", as all that insert_from does with a duplicate'
        raise InvalidOption("unique", unique, expected)
    if type(unique) is UniqueKey:
        mark = unique(common, now)
        return queries.Unique(parts=None, key=mark.key, states=mark.states)
    if type(unique) is not UniqueOpts:
        expected = "a UniqueOpts or UniqueKey; another policy cannot see the rows of a select"
        raise InvalidOption("unique", unique, expected)
    marks = {
        f"riverrun-{secrets.token_hex(8)}-{number}": name
        for number, name in enumerate(rows.columns)
    }
    encoded = {}
    by_name = {name: mark for mark, name in marks.items()}
    for field in rows.fields:
        encoded[field.key] = by_name.get(field.name, rows.constants.get(field.name))
    by_period = unique.by_period if "scheduled_at" in rows.options else None
    planned = attrs.evolve(common, args=_stand_in(args_type, rows.defaults), encoded=encoded)
    text = unique.describe(planned, now)
    period: list[Any] = []
    end = ""
    if by_period is not None:
        # The last match is the period: nothing after it contains "&", not even a queue's name.
        text, _, last = text.rpartition("&period=")
        text += "&period="
        end = last[len("0001-01-01T00:00:00Z") :]
        micros = timedelta(seconds=seconds(by_period)) // timedelta(microseconds=1)
        period = [queries.Period(micros=micros, now=common.scheduled_at or now), end]
    pattern = re.compile("|".join(f'"{mark}"' for mark in marks) or r"(?!)")
    parts: list[Any] = []
    place = 0
    for found in pattern.finditer(text):
        name = marks[found[0][1:-1]]
        if rows.columns[name].text is None:
            expected = f"without the field {name!r}: SQL cannot make its JSON as text"
            raise InvalidOption("unique", unique, expected)
        parts += [text[place : found.start()], queries.FieldText(name)]
        place = found.end()
    parts += [text[place:], *period]
    _check_nested(unique, rows)
    return queries.Unique(parts=parts, states=frozenset(unique.by_state or DEFAULT_STATES))


def _check_nested(unique: UniqueOpts, rows: ArgsColumns) -> None:
    """Refuse unique keys by a part of a column's value, which SQL would have to extract."""
    if isinstance(unique.by_args, bool):
        return
    names = {field.key: field.name for field in rows.fields}
    for path in unique.by_args:
        name = names.get(path[0])
        if (
            len(path) > 1
            and name is not None
            and name in rows.columns
            and rows.columns[name].text is None
        ):
            raise InvalidOption("by_args", path, f"no part of the field {name!r}, a column")


def _stand_in(args_type: type, defaults: Mapping[str, Any]) -> object:
    """Return an object of the class of args that has only its defaults."""
    stand_in: object = object.__new__(args_type)
    for name, value in defaults.items():
        object.__setattr__(stand_in, name, value)
    return stand_in
