"""SQL expressions that make the same JSON of a column as the encoder of args makes in Python.

A field of args accepts a column if both sides write every value that the column can hold in the
same way. `column_json` returns the expression, or raises an error that says what does not fit.
"""

import types
import typing
from collections.abc import Sequence
from datetime import date, datetime, time
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import attrs
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    case,
    cast,
    func,
    literal,
    literal_column,
)
from sqlalchemy import Enum as SQLEnum
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import ARRAY as ANY_ARRAY
from sqlalchemy.types import JSON, NullType, SmallInteger, String, TypeEngine

from riverrun.jobs.json_types import LISTS, shown_type, to_json
from riverrun.jobs.json_values import json_text
from riverrun.jobs.references import reference_class
from riverrun.orm.object_keys import mapper_of
from riverrun.orm.sql_text import datetime_text, go_text, in_range, quoted, refusal, time_text
from riverrun.wire import go_json

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class Mismatch(TypeError):
    """A column does not fit an annotation. The text says why."""


@attrs.frozen(eq=False)
class ColumnJson:
    """A column's value as JSON.

    Attributes:
        value: The jsonb, which is NULL if the column is NULL.
        text: The text as Go's encoder writes it, for unique keys; None if SQL cannot make it.
    """

    value: ColumnElement[Any]
    text: ColumnElement[str] | None


def column_json(
    column: ColumnElement[Any],
    annotation: Any,
    *,
    pydantic: bool = False,
    encoding: str = "utf-8",
) -> ColumnJson:
    """Return `column` as the JSON of a field that is annotated with `annotation`.

    Args:
        column: A column or another expression whose SQL type is known.
        annotation: The field's annotation. It may include None.
        pydantic: Whether the field is one of a pydantic model, which writes times differently.
        encoding: The encoding of the database, as Python names it.

    Raises:
        Mismatch: If the field cannot hold every value of such a column, or SQL and Python would
            write one differently.
    """
    problems = []
    for member in members(annotation):
        try:
            if reference_class(member) is not None:
                return key_json([column], member, encoding=encoding)
            sql_type = _plain_type(column.type)
            return _json_of(column, sql_type, member, pydantic=pydantic, encoding=encoding)
        except Mismatch as problem:
            problems.append(str(problem))
    raise Mismatch(problems[0] if problems else "the field takes nothing but None")


def key_json(
    columns: Sequence[ColumnElement[Any]], annotation: Any, *, encoding: str = "utf-8"
) -> ColumnJson:
    """Return columns that hold a primary key as the JSON of a field that is a reference.

    Raises:
        Mismatch: If their types are not those of the class's primary key.
    """
    mapper = mapper_of(next(iter(typing.get_args(annotation)), None))
    if mapper is None:
        raise Mismatch(f"{shown_type(annotation)} names no mapped class")
    keys, name = mapper.primary_key, mapper.class_.__name__
    if len(keys) != len(columns):
        names = ", ".join(mapper.get_property_by_column(key).key for key in keys)
        raise Mismatch(f"{name} has a key of {len(keys)} columns: {names}")
    parts = [
        _key_part(column, _bound_type(column.type), _bound_type(key.type), name, encoding)
        for column, key in zip(columns, keys, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    texts = [part.text for part in parts]
    text: ColumnElement[Any] | None = None
    if all(part_text is not None for part_text in texts):
        text = literal("[", Text)
        for number, part_text in enumerate(texts):
            text = text.concat("," if number else "").concat(part_text)
        text = text.concat("]")
    return ColumnJson(func.jsonb_build_array(*(part.value for part in parts)), text)


def _bound_type(sql_type: TypeEngine[Any]) -> Any:
    """Return the type in the database, from which a key's JSON is made."""
    sql_type = getattr(sql_type, "_variant_mapping", {}).get("postgresql", sql_type)
    while isinstance(sql_type, TypeDecorator):
        if isinstance(sql_type, Interval):
            raise Mismatch("it is INTERVAL, which has no form in JSON")
        sql_type = sql_type.impl_instance
    return sql_type


_FAMILIES: tuple[Any, ...] = (
    *(SQLEnum, Uuid, Boolean, Integer, Float, Numeric),
    *(DateTime, Date, Time, LargeBinary, String),
)


def _family(sql_type: Any) -> Any:
    return next((family for family in _FAMILIES if isinstance(sql_type, family)), None)


def _key_part(
    column: ColumnElement[Any], given: Any, key: Any, name: str, encoding: str
) -> ColumnJson:
    """Return the JSON of a key's column, as `riverrun.orm.object_keys` writes its values."""
    family = _family(key)
    if family is None or family is not _family(given):
        raise Mismatch(f"it is {shown_sql_type(given)}, the key of {name} {shown_sql_type(key)}")
    match key:
        case Boolean():
            held: ColumnElement[Any] = cast(column, Boolean)
            return ColumnJson(func.to_jsonb(held), cast(held, Text))
        case Integer():
            held = cast(column, BigInteger)
            return ColumnJson(func.to_jsonb(held), cast(held, Text))
        case Uuid():
            return _text_json(cast(cast(cast(column, Text), postgresql.UUID), Text))
        case Float() if not key.asdecimal:
            return ColumnJson(func.to_jsonb(cast(column, Float(53))), None)
        case Numeric() if not isinstance(key, Float):
            held = cast(column, key)
            return _text_json(cast(held if key.scale is not None else func.trim_scale(held), Text))
        case DateTime():
            held = cast(column, DateTime(timezone=key.timezone))
            local = func.timezone("UTC", held) if key.timezone else held
            zone = "+00:00" if key.timezone else ""
            iso = _string(func.to_jsonb(local))
            return _text_json(in_range(local, iso.concat(literal(zone, Text))))
        case Date():
            held = cast(column, Date)
            return _text_json(in_range(held, func.to_char(held, "YYYY-MM-DD")))
        case Time():
            iso = _string(func.to_jsonb(cast(column, Time)))
            return _text_json(iso)
        case LargeBinary():
            text = literal("\\x", Text).concat(func.encode(cast(column, LargeBinary), "hex"))
            return ColumnJson(func.to_jsonb(text), None)
        case String():
            held = cast(column, Text if isinstance(key, SQLEnum) else _without_length(key))
            return ColumnJson(func.to_jsonb(held), go_text(held, encoding))
    raise Mismatch(f"it is {shown_sql_type(key)}, from which SQL cannot make the key of {name}")


def members(annotation: Any) -> list[Any]:
    """Return the members of an annotation's union except None, with aliases resolved."""
    annotation = unwrapped(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in members(part)]
    return [] if annotation in (None, types.NoneType) else [annotation]


def takes_none(annotation: Any) -> bool:
    """Return whether a field with this annotation may be None."""
    annotation = unwrapped(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(map(takes_none, typing.get_args(annotation)))
    return annotation in (None, types.NoneType, Any, object)


def unwrapped(annotation: Any) -> Any:
    """Return the type behind Annotated, a NewType or an alias."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _plain_type(sql_type: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type in the database.

    Raises:
        Mismatch: If Python sees other values than the database holds.
    """
    sql_type = getattr(sql_type, "_variant_mapping", {}).get("postgresql", sql_type)
    while isinstance(sql_type, TypeDecorator) and not isinstance(sql_type, Interval):
        cls = type(sql_type)
        for name in ("process_result_value", "result_processor"):
            if getattr(cls, name) is not getattr(TypeDecorator, name):
                raise Mismatch(
                    f"its values are made by {cls.__name__} in Python, which SQL cannot do; select "
                    "what the database holds with type_coerce(column, ...) or cast(column, ...)"
                )
        sql_type = sql_type.impl_instance
    return sql_type


def _json_of(
    column: ColumnElement[Any],
    sql_type: TypeEngine[Any],
    member: Any,
    *,
    pydantic: bool,
    encoding: str,
) -> ColumnJson:
    match sql_type:
        case SQLEnum():
            return _enum(column, sql_type, member, encoding)
        case String() if member in (str, Any, object):
            held: ColumnElement[Any] = cast(column, _without_length(sql_type))
            return ColumnJson(func.to_jsonb(held), go_text(held, encoding))
        case Boolean() if member in (bool, Any, object):
            held = cast(column, Boolean)
            return ColumnJson(func.to_jsonb(held), cast(held, Text))
        case Integer() if member in (int, Any, object) or (
            # Each such integer is a float without loss.
            member is float and not isinstance(sql_type, BigInteger)
        ):
            held = cast(column, SmallInteger if isinstance(sql_type, SmallInteger) else BigInteger)
            return ColumnJson(func.to_jsonb(held), cast(held, Text))
        case Uuid() if sql_type.native_uuid and member is (UUID if sql_type.as_uuid else str):
            held = cast(column, postgresql.UUID)
            return ColumnJson(func.to_jsonb(held), quoted(cast(held, Text)))
        case DateTime() if member is datetime:
            return _text_json(datetime_text(column, sql_type, pydantic=pydantic))
        case Date() if member is date:
            held = cast(column, Date)
            return _text_json(in_range(held, func.to_char(held, "YYYY-MM-DD")))
        case Time() if member is time and not sql_type.timezone:
            return _text_json(time_text(cast(column, Time)))
        case JSON():
            return _json(column, member)
        case ANY_ARRAY():
            return _array(column, sql_type, member)
    raise Mismatch(_unfit(sql_type, member))


def _unfit(sql_type: TypeEngine[Any], member: Any) -> str:
    if isinstance(sql_type, NullType):
        return "its SQL type is not known; use cast(column, ...) or type_coerce(column, ...)"
    name = shown_sql_type(sql_type)
    expected = shown_type(member)
    if member is str and not isinstance(sql_type, String):
        return f"it is {name}, expected text for {expected}; cast(column, Text) makes text of it"
    return f"it is {name}, of which SQL cannot make JSON for {expected} as Python does"


def shown_sql_type(sql_type: TypeEngine[Any]) -> str:
    """Return the name of `sql_type` for error messages."""
    try:
        return sql_type.compile(dialect=_DIALECT)
    except Exception:
        return type(sql_type).__name__


def _without_length(sql_type: String) -> TypeEngine[Any]:
    # CHAR keeps its type: its trailing blanks count, and a cast to text would lose them.
    return sql_type if isinstance(sql_type, postgresql.CHAR) else Text()


def _string(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the text in a JSON string."""
    return value.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))


def _text_json(text: ColumnElement[Any]) -> ColumnJson:
    """Return the JSON of a text that needs no escapes."""
    return ColumnJson(func.to_jsonb(cast(text, Text)), quoted(text))


def _enum(column: ColumnElement[Any], sql_type: SQLEnum, member: Any, encoding: str) -> ColumnJson:
    held = cast(column, Text)
    cls = sql_type.enum_class
    if cls is None:
        taken = typing.get_args(member) if typing.get_origin(member) is Literal else ()
        if member in (str, Any, object) or (taken and set(sql_type.enums) <= set(taken)):
            return ColumnJson(func.to_jsonb(held), go_text(held, encoding))
    elif member is cls and issubclass(cls, Enum):
        processor: Any = sql_type.bind_processor
        label = processor(_DIALECT) or (lambda value: value)
        values = {str(label(item)): to_json(item, cls) for item in cls}
        texts = {key: go_json.encode(value) for key, value in values.items()}
        return ColumnJson(
            cast(literal(json_text(values), Text), JSONB).op("->", return_type=JSONB())(held),
            cast(literal(json_text(texts), Text), JSONB).op("->>", return_type=Text())(held),
        )
    raise Mismatch(_unfit(sql_type, member))


_JSON_TYPES = {dict: "object", list: "array"}


def _json(column: ColumnElement[Any], member: Any) -> ColumnJson:
    """Return the JSON of a column that is JSON itself. Its inner values cannot be checked."""
    held = cast(column, JSONB)
    if member in (Any, object):
        return ColumnJson(held, None)
    origin, inner = typing.get_origin(member) or member, typing.get_args(member)
    expected = _JSON_TYPES.get(origin)
    if expected is None or any(argument not in (str, Any, object) for argument in inner[:-1]):
        raise Mismatch(f"it is JSON, whose content need not be a {shown_type(member)}")
    if inner and inner[-1] not in (Any, object):
        raise Mismatch(f"it is JSON, whose content need not be a {shown_type(member)}")
    checked = case(
        (held.is_(None), None),
        (func.jsonb_typeof(held) == expected, held),
        else_=cast(refusal(f"JSON that is no {expected}", held), JSONB),
    )
    return ColumnJson(checked, None)


def _array(column: ColumnElement[Any], sql_type: Any, member: Any) -> ColumnJson:
    """Return the JSON of an array, which must have one dimension and no NULLs."""
    inner: Sequence[Any] = typing.get_args(member)
    item = unwrapped(inner[0]) if len(inner) == 1 else None
    item_type = _plain_type(sql_type.item_type)
    fits = typing.get_origin(member) in LISTS and (
        (item is str and isinstance(item_type, String) and not isinstance(item_type, SQLEnum))
        or (item is int and isinstance(item_type, Integer))
        or (item is bool and isinstance(item_type, Boolean))
        or (item is UUID and isinstance(item_type, Uuid) and item_type.as_uuid)
    )
    if not fits or typing.get_origin(member) in (set, frozenset, tuple):
        raise Mismatch(_unfit(sql_type, member))
    held = cast(column, ARRAY(item_type))
    bad = func.coalesce(func.array_ndims(held), 1) != 1
    bad = bad | func.coalesce(func.array_position(held, cast(None, item_type)).is_not(None), False)
    checked = case(
        (held.is_(None), None),
        (bad, cast(refusal("an array with NULLs or several dimensions", held), JSONB)),
        else_=func.to_jsonb(held),
    )
    return ColumnJson(checked, None)
