"""Maps the columns of a select to the fields of args, and reports columns that do not fit."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    SelectBase,
    Subquery,
    case,
    null,
    or_,
)
from sqlalchemy.schema import Column
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, Label, Null

from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.jobs.args import kind_of
from riverrun.jobs.json_types import shown_type
from riverrun.jobs.references import reference_class
from riverrun.orm.fields import Field, Unfit, fields_of, own_code
from riverrun.orm.object_keys import mapper_of
from riverrun.orm.sql_json import (
    ColumnJson,
    Mismatch,
    column_json,
    key_json,
    members,
    shown_sql_type,
    takes_none,
)

PER_JOB = ("priority", "scheduled_at")
"""Options that a column of this name sets for each job, if the args have no such field."""


@attrs.frozen(kw_only=True, eq=False)
class ArgsColumns:
    """How the rows of a select become jobs.

    Attributes:
        kind: The kind of the jobs.
        source: The select, as a subquery.
        columns: Each field's JSON, by field.
        given: The columns that each field's JSON is made of, by field.
        fields: The fields, in the order in which they are stored.
        constants: The JSON of fields that are the same in every job, by field.
        defaults: The values of which `constants` are the JSON, by field.
        options: The columns that are options of each job, by option.
    """

    kind: str
    source: Subquery
    columns: Mapping[str, ColumnJson]
    given: Mapping[str, Sequence[ColumnElement[Any]]]
    fields: Sequence[Field]
    constants: Mapping[str, Any]
    defaults: Mapping[str, Any]
    options: Mapping[str, ColumnElement[Any]]


def columns_of_args(source: Any, args_type: Any, *, encoding: str = "utf-8") -> ArgsColumns:
    """Return how the rows of `source` become jobs of a kind.

    Args:
        source: A select whose columns are labelled with the names of fields. A field that is a
            reference to a class with several key columns has one for each, labelled `field.column`.
        args_type: The class of the args.
        encoding: The encoding of the database, as Python names it.

    Raises:
        InvalidArgs: If a column does not fit its field, a column has no field, or a field without
            a default has no column.
        InvalidOption: If `source` is not a select, or `args_type` not a class of args with a kind.
    """
    select = _selected(source)
    kind = kind_of(args_type)
    try:
        fields = fields_of(args_type)
    except Unfit as error:
        raise InvalidOption("args_type", args_type, f"a class of args: {error}") from None
    subquery = select.subquery("source")
    given = dict(subquery.c.items())
    problems: list[str] = []
    if code := own_code(args_type):
        problems.append(f"{code} cannot run for rows that only the database sees; use insert_many")
    columns: dict[str, ColumnJson] = {}
    taken: dict[str, Sequence[ColumnElement[Any]]] = {}
    constants: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    try:
        nullable = _nullable(select)
    except Mismatch as problem:
        raise InvalidArgs(kind, str(problem)) from None
    for name, field in fields.items():
        parts = _parts(field, given)
        try:
            if parts is None:
                constants[name] = _constant(field)
                defaults[name] = None if field.default is None else field.default()
            else:
                taken[name] = list(parts.values())
                columns[name] = _column(field, parts, nullable, encoding)
        except (Mismatch, Unfit) as problem:
            problems.append(str(problem))
    options = {name: given.pop(name) for name in PER_JOB if name in given}
    if given:
        names, known = ", ".join(map(repr, given)), ", ".join(fields)
        problems.append(f"no field for the columns {names}; label each with one of {known}")
    if problems:
        raise InvalidArgs(kind, "; ".join(problems))
    return ArgsColumns(
        kind=kind,
        source=subquery,
        columns=columns,
        given=taken,
        fields=list(fields.values()),
        constants=constants,
        defaults=defaults,
        options=options,
    )


def _selected(source: Any) -> SelectBase:
    element = source.__clause_element__() if hasattr(source, "__clause_element__") else source
    element = element.element if isinstance(element, Subquery) else element
    if not isinstance(element, SelectBase):
        expected = "a select(...) whose columns are labelled with the names of the args' fields"
        raise InvalidOption("source", source, expected)
    return element


def _parts(field: Field, given: dict[str, Any]) -> dict[str, ColumnElement[Any]] | None:
    """Remove the columns of a field from `given`, and return them; None if there is none."""
    if field.name in given:
        return {field.name: given.pop(field.name)}
    for member in members(field.annotation):
        if reference_class(member) is None:
            continue
        mapper = mapper_of(next(iter(typing.get_args(member)), None))
        keys = () if mapper is None else mapper.primary_key
        names = [
            f"{field.name}.{mapper.get_property_by_column(key).key}"
            for key in keys
            if mapper is not None
        ]
        if names and all(name in given for name in names):
            return {name: given.pop(name) for name in names}
    return None


def _constant(field: Field) -> Any:
    if field.default is None:
        expected = shown_type(field.annotation)
        raise Unfit(f"no column for the field {field.name!r} ({expected}), which has no default")
    return field.encode_default()


def _column(
    field: Field,
    parts: Mapping[str, ColumnElement[Any]],
    nullable: Mapping[str, bool | None],
    encoding: str,
) -> ColumnJson:
    """Return a field's JSON.

    Raises:
        Mismatch: If the columns do not fit it.
    """
    label = ", ".join(map(repr, parts))
    if field.checks:
        problem = f"has {field.checks}, which cannot run for rows that only the database sees"
        raise Mismatch(f"field {field.name!r} {problem}; use insert_many")
    columns = list(parts.values())
    try:
        if len(columns) > 1:
            (member,) = (m for m in members(field.annotation) if reference_class(m) is not None)
            field_json = key_json(columns, member, encoding=encoding)
        else:
            field_json = column_json(
                columns[0], field.annotation, pydantic=field.pydantic, encoding=encoding
            )
    except Mismatch as problem:
        raise Mismatch(f"column {label} does not fit the field {field.name!r}: {problem}") from None
    if takes_none(field.annotation):
        return field_json if len(columns) == 1 else _null_if_any(field_json, columns)
    if any(nullable.get(name) for name in parts):
        expected = shown_type(field.annotation)
        raise Mismatch(
            f"column {label} may be NULL, and the field {field.name!r} is {expected}; add "
            ".where(column.is_not(None)), or use func.coalesce()"
        )
    return field_json


def _null_if_any(made: ColumnJson, columns: Sequence[ColumnElement[Any]]) -> ColumnJson:
    none = or_(*(column.is_(None) for column in columns))
    value = case((none, null()), else_=made.value)
    return ColumnJson(value, None if made.text is None else case((none, null()), else_=made.text))


def _nullable(select: Any) -> dict[str, bool | None]:
    """Return whether each column may be NULL, by name; None if that is not known.

    Raises:
        Mismatch: If the selects of a UNION have columns of different types.
    """
    names = list(select.subquery().c.keys())
    if isinstance(select, CompoundSelect):
        parts = [_nullable(part) for part in select.selects]
        rows = [list(part.values()) for part in parts]
        places = (part.selected_columns for part in select.selects)
        for name, *columns in zip(names, *places, strict=True):
            if len({column.type._type_affinity for column in columns}) > 1:
                types = " and ".join(shown_sql_type(column.type) for column in columns)
                raise Mismatch(f"column {name!r} is {types} in the parts of a UNION")
        return {
            name: _any(columns)
            for name, columns in zip(names, zip(*rows, strict=True), strict=True)
        }
    selected = list(select.selected_columns)
    present = _not_null(getattr(select, "whereclause", None))
    if len(selected) != len(names):
        return dict.fromkeys(names)
    return {
        name: _may_be_null(column, present) for name, column in zip(names, selected, strict=True)
    }


def _any(nullable: Sequence[bool | None]) -> bool | None:
    return True if True in nullable else None if None in nullable else False


def _may_be_null(column: Any, present: Sequence[Any]) -> bool | None:
    while isinstance(column, Label):
        column = column.element
    if isinstance(column, Column):
        known = any(column is other or hash(column) == hash(other) for other in present)
        return False if known else bool(column.nullable)
    if isinstance(column, Null):
        return True
    if isinstance(column, BindParameter):
        return column.value is None
    return None


def _not_null(clause: Any) -> list[Any]:
    """Return the columns that a WHERE clause requires to be not NULL."""
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        return [column for part in clause.clauses for column in _not_null(part)]
    if isinstance(clause, BinaryExpression) and clause.operator is operators.is_not:
        return [clause.left]
    return []
