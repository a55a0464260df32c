"""Converts primary keys of mapped objects to JSON and back, by the types of their columns.

A key of one column is a bare value, a key of several columns an array. A value is written as
PostgreSQL's `to_jsonb` writes it, wherever JSON and the type allow, so that SQL can compare both.
Exceptions are `numeric`, which is text here, and `timestamptz`, which is in UTC here.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, cast
from uuid import UUID
from weakref import WeakKeyDictionary

import attrs
from sqlalchemy import inspect, types
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.sql import ClauseElement

from riverrun.errors import InvalidRef

_DIALECT: Any = cast("Any", PGDialect)()


def mapper_of(cls: object) -> Mapper[Any] | None:
    """Return the mapper of `cls`; None if it is not a mapped class."""
    found = inspect(cls, raiseerr=False) if isinstance(cls, type) else None
    return found if isinstance(found, Mapper) else None


def base_of(entity: type[Any]) -> Mapper[Any]:
    """Return the mapper of the class in whose table each object of `entity` has a row."""
    mapper = mapper_of(entity)
    assert mapper is not None  # noqa: S101  a reference is to a mapped class
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def state_of(value: object) -> InstanceState[Any] | None:
    """Return SQLAlchemy's state of `value`; None if it is not a mapped object."""
    state = getattr(value, "_sa_instance_state", None)
    return state if isinstance(state, InstanceState) else None


def is_mapped(value: object) -> bool:
    """Return whether `value` is a mapped object."""
    return state_of(value) is not None


def identity_of(state: InstanceState[Any]) -> tuple[Any, ...] | None:
    """Return the primary key of an object, without a statement; None while it has none.

    An object that is in a session and not flushed yet has a key if one was assigned. An object that
    a rollback removed from its session has none, whatever its attributes hold.
    """
    if state.key is not None:
        return tuple(state.key[1])
    if state.session_id is None:
        return None
    # The object is not flushed, so reading its attributes loads nothing.
    mapper = state.mapper
    keys = (mapper.get_property_by_column(column).key for column in mapper.primary_key)
    values = tuple(state.dict.get(key) for key in keys)
    return values if all(map(_is_value, values)) else None


def key_will_change(state: InstanceState[Any]) -> bool:
    """Return whether an object was given another primary key, which its next flush will write."""
    if state.key is None or state.session_id is None or not state.modified:
        return False
    mapper = state.mapper
    for column, value in zip(mapper.primary_key, state.key[1], strict=True):
        name = mapper.get_property_by_column(column).key
        if name in state.committed_state:
            new = state.dict.get(name)
            if isinstance(new, ClauseElement) or new != value:
                return True
    return False


def _is_value(value: object) -> bool:
    return value is not None and not isinstance(value, ClauseElement)


@attrs.frozen
class ColumnKey:
    """Writes values of one column as JSON, and reads them again.

    Attributes:
        write: Returns the JSON of a value, or raises InvalidRef.
        read: Returns the value as the column returns it, or raises InvalidRef.
        json_type: The class of the JSON values.
        exact: The classes of values that are written unchanged.
    """

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    json_type: type
    exact: frozenset[type] = frozenset()


@attrs.frozen
class ObjectKeys:
    """Writes primary keys of one mapped class as JSON, and reads them again.

    Attributes:
        columns: The columns of the key, in the mapper's order.
    """

    columns: tuple[ColumnKey, ...]

    def write(self, identity: Sequence[Any]) -> Any:
        """Return a primary key as JSON.

        Args:
            identity: The values of its columns, in the mapper's order.

        Raises:
            InvalidRef: If JSON cannot hold it.
        """
        if len(identity) != len(self.columns):
            raise InvalidRef(f"has a key of {len(self.columns)} columns, not of {len(identity)}")
        written = [
            column.write(value) for column, value in zip(self.columns, identity, strict=True)
        ]
        return written[0] if len(written) == 1 else written

    def read(self, encoded: Any) -> tuple[Any, ...]:
        """Return the primary key in the JSON `encoded`, in the form of `inspect(obj).identity`.

        Raises:
            InvalidRef: If it is not such a key.
        """
        columns = self.columns
        if len(columns) == 1:
            return (columns[0].read(encoded),)
        if not isinstance(encoded, list | tuple) or len(encoded) != len(columns):
            raise InvalidRef(f"has a key of {len(columns)} columns: an array, not {encoded!r}")
        return tuple(column.read(part) for column, part in zip(columns, encoded, strict=True))


_known: WeakKeyDictionary[Mapper[Any], ObjectKeys] = WeakKeyDictionary()


def keys_of(mapper: Mapper[Any]) -> ObjectKeys:
    """Return the converter of a mapped class's primary keys.

    Raises:
        InvalidRef: If a column of the key has a type that JSON cannot hold.
    """
    keys = _known.get(mapper)
    if keys is None:
        columns = tuple(_column_key(column.type, column.type) for column in mapper.primary_key)
        keys = _known[mapper] = ObjectKeys(columns)
    return keys


def _column_key(given: types.TypeEngine[Any], named: types.TypeEngine[Any]) -> ColumnKey:
    """Return the converter of a column's values.

    Args:
        given: The type of the column, or what it decorates.
        named: The type of the column, for errors.
    """
    kind: Any = given.dialect_impl(_DIALECT)
    if isinstance(given, types.Interval):
        raise InvalidRef(_unsupported(named))
    if isinstance(kind, types.TypeDecorator):
        return _decorated(kind, _column_key(kind.impl_instance, named))
    match kind:
        case types.Enum():
            return _processed(kind, named)
        case types.Uuid():
            read_uuid = UUID if kind.as_uuid else str
            return ColumnKey(_uuid_text, lambda value: read_uuid(_uuid_text(value)), str)
        case types.Boolean():
            return _plain(bool)
        case types.Integer():
            return _plain(int)
        case types.Float() if not kind.asdecimal:
            return ColumnKey(_float, _float, float)
        case types.Numeric():
            write = partial(_decimal_text, scale=kind.scale)
            return ColumnKey(write, partial(_decimal, kind.asdecimal, write), str)
        case types.DateTime():
            write = partial(_moment_text, aware=kind.timezone)
            return ColumnKey(write, partial(_parsed, datetime, write), str)
        case types.Date():
            return ColumnKey(_date_text, partial(_parsed, date, _date_text), str)
        case types.Time():
            return ColumnKey(_time_text, partial(_parsed, time, _time_text), str)
        case types.LargeBinary():
            return ColumnKey(_bytes_text, _bytes, str)
        case types.CHAR() if kind.length:
            # The database pads it. With padding here, a key has one text, and one place in the
            # identity map.
            pad = partial(_padded, length=kind.length)
            return ColumnKey(pad, pad, str)
        case types.String():
            return _plain(str)
    return _processed(kind, named)


def _unsupported(kind: types.TypeEngine[Any]) -> str:
    return f"has a key of type {kind!r}, which has no form in JSON; a TypeDecorator can give it one"


def _plain(cls: type) -> ColumnKey:
    def write(value: Any) -> Any:
        if type(value) is cls:
            return value
        if isinstance(value, cls) and not isinstance(value, bool):
            return cls(value)  # an object of a subclass, such as an IntEnum
        raise InvalidRef(f"has a key that is {with_article(cls.__name__)}, not {value!r}")

    def read(value: Any) -> Any:
        if type(value) is not cls:
            raise InvalidRef(f"has a key that is {with_article(cls.__name__)}, not {value!r}")
        return value

    return ColumnKey(write, read, cls, frozenset({cls}))


def with_article(noun: str) -> str:
    """Return `noun` after "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiouAEIO' else 'a'} {noun}"


def _decorated(kind: types.TypeDecorator[Any], inner: ColumnKey) -> ColumnKey:
    """Return the converter of a TypeDecorator's values, which are written as it binds them."""
    base: Any = types.TypeDecorator
    binds = type(kind).process_bind_param is not base.process_bind_param
    results = type(kind).process_result_value is not base.process_result_value
    if not binds and not results:
        return inner

    def write(value: Any) -> Any:
        return inner.write(_by_user(kind.process_bind_param, value) if binds else value)

    def read(encoded: Any) -> Any:
        value = inner.read(encoded)
        return _by_user(kind.process_result_value, value) if results else value

    return ColumnKey(write, read, inner.json_type)


def _by_user(process: Callable[[Any, Any], Any], value: object) -> Any:
    try:
        return process(value, _DIALECT)
    except Exception as error:
        raise InvalidRef(f"has a key that is not {value!r}: {error}") from error


def _processed(kind: types.TypeEngine[Any], named: types.TypeEngine[Any]) -> ColumnKey:
    """Return the converter of any other type, by its bind and result processors."""
    bind: Any = kind.bind_processor(_DIALECT)
    result: Any = kind.result_processor(_DIALECT, None)

    def write(value: Any) -> Any:
        written = value
        if bind is not None:
            try:
                written = bind(value)
            except Exception as error:
                raise InvalidRef(f"has a key that is not {value!r}: {error}") from error
        if type(written) not in (str, int, bool):
            raise InvalidRef(_unsupported(named))
        return written

    def read(encoded: Any) -> Any:
        if type(encoded) not in (str, int, bool):
            raise InvalidRef(f"has a key that is not {encoded!r}")
        try:
            return encoded if result is None else result(encoded)
        except Exception as error:
            raise InvalidRef(f"has a key that is not {encoded!r}: {error}") from error

    return ColumnKey(write, read, str)


def _uuid_text(value: object) -> str:
    try:
        return str(value if isinstance(value, UUID) else UUID(_text(value)))
    except ValueError:
        raise InvalidRef(f"has a key that is a UUID, not {value!r}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRef(f"has a key that is text in JSON, not {value!r}")
    return value


def _float(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise InvalidRef(f"has a key that is a finite number, not {value!r}")
    return float(value)  # type: ignore[arg-type]


def _decimal_text(value: object, scale: int | None) -> str:
    """Return a number as text, with the digits that a column of that scale returns."""
    if not isinstance(value, Decimal | int | float) or isinstance(value, bool):
        raise InvalidRef(f"has a key that is a decimal number, not {value!r}")
    number = Decimal(str(value))
    if not number.is_finite():
        raise InvalidRef(f"has a key that is a finite number, not {value!r}")
    if scale is None:
        text = format(number, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return format(number.quantize(Decimal(1).scaleb(-scale)), "f")


def _decimal(as_decimal: bool, write: Callable[[Any], str], value: object) -> Any:
    try:
        number = Decimal(_text(value))
    except InvalidOperation:
        raise InvalidRef(f"has a key that is a decimal number, not {value!r}") from None
    write(number)
    return number if as_decimal else float(number)


def _moment_text(value: object, *, aware: bool) -> str:
    if not isinstance(value, datetime):
        raise InvalidRef(f"has a key that is a datetime, not {value!r}")
    if (value.utcoffset() is not None) is not aware:
        kind = "an aware datetime" if aware else "a datetime without a time zone"
        raise InvalidRef(f"has a key that is {kind}, not {value!r}")
    return _short((value.astimezone(UTC) if aware else value).isoformat())


def _date_text(value: object) -> str:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidRef(f"has a key that is a date, not {value!r}")
    return value.isoformat()


def _time_text(value: object) -> str:
    if not isinstance(value, time):
        raise InvalidRef(f"has a key that is a time, not {value!r}")
    return _short(value.isoformat())


def _short(text: str) -> str:
    """Return an ISO time without trailing zeros in the fraction, as PostgreSQL writes it."""
    head, dot, rest = text.partition(".")
    return f"{head}.{rest[:6].rstrip('0')}{rest[6:]}" if dot else text


def _parsed(cls: Any, write: Callable[[Any], str], value: object) -> Any:
    try:
        parsed = cls.fromisoformat(_text(value))
    except ValueError:
        raise InvalidRef(f"has a key that is {with_article(cls.__name__)}, not {value!r}") from None
    write(parsed)
    return parsed


def _bytes_text(value: object) -> str:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidRef(f"has a key that is bytes, not {value!r}")
    return f"\\x{bytes(value).hex()}"


def _bytes(value: object) -> bytes:
    text = _text(value)
    try:
        if text.startswith("\\x"):
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise InvalidRef(f"has a key that is bytes: '\\x' and hex digits, not {value!r}")


def _padded(value: object, length: int) -> str:
    return _text(value).ljust(length)
