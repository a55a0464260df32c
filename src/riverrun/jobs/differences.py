"""Compare args with what their worker would get, and find where they differ, types included."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time
from enum import Enum
from typing import Any

import attrs

from riverrun.jobs.json_types import is_struct
from riverrun.jobs.references import Reference, comparing


def difference(given: Any, back: Any, path: str = "$") -> tuple[str, Any, Any] | None:
    """Return the path at which `given` and `back` differ, and both values there; None if equal.

    Types are compared, too: 1.5 is not equal to Decimal("1.5"). A field that the object's own
    equality ignores is not compared.
    """
    if given is back or (isinstance(back, Reference) and back.refers_to(given)):
        return None
    alike = type(given) is type(back)
    if not alike and (is_struct(type(given)) or not _may_stand_for(given, back)):
        return path, given, back
    if isinstance(given, collections.OrderedDict) and not _in_stored_order(given):
        return path, given, collections.OrderedDict(sorted(given.items(), key=_stored_order))
    parts = list(_parts(given, back, path))
    for part in parts:
        if (found := difference(*part)) is not None:
            return found
    # If a class does not define equality, its objects are equal if all of their fields are.
    bare = (
        parts
        and is_struct(type(given))
        and vars(object)["__eq__"] is getattr(type(given), "__eq__", None)
    )
    if bare or _equal(given, back):
        lost = isinstance(given, time) and given.tzinfo is not None and back.tzinfo is None
        return (path, given, back) if lost else None
    return None if _is_same_moment(given, back, parts) else (path, given, back)


def _is_same_moment(given: Any, back: Any, parts: list[tuple[Any, Any, str]]) -> bool:
    """Return whether two values differ only in that Python does not compare some of their times.

    A time in an hour that clocks repeat or skip equals no time in another zone, not even the same
    moment in UTC. All `parts` are known not to differ.
    """
    if isinstance(given, datetime) and isinstance(back, datetime):
        return _moment(given) == _moment(back)
    return any(_has_such_time(part) for part, _, _ in parts)


def _has_such_time(value: Any) -> bool:
    if isinstance(value, datetime):
        return value.tzinfo is not None and value != _moment(value)
    return any(_has_such_time(part) for part, _, _ in _parts(value, value, ""))


def _moment(value: datetime) -> datetime:
    try:
        return value if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # within hours of year 1 or 9999
        return value


def _may_stand_for(given: Any, back: Any) -> bool:
    """Return whether a value may come back as the type of `back`, provided that it is equal."""
    if isinstance(given, bool) or isinstance(back, bool | Enum):
        return False
    return isinstance(given, type(back)) or any(
        isinstance(given, kinds) and isinstance(back, kinds)
        for kinds in ((int, float), (set, frozenset), Mapping)
    )


def _equal(given: Any, back: Any) -> bool:
    lenient = comparing.set(True)
    try:
        return bool(given == back)
    except Exception:  # of the application's __eq__
        return False
    finally:
        comparing.reset(lenient)


def _in_stored_order(value: Mapping[Any, Any]) -> bool:
    try:
        return list(value) == sorted(value, key=lambda key: _stored_order((key, None)))
    except AttributeError:
        return True


def _stored_order(item: tuple[Any, Any]) -> tuple[int, bytes]:
    """Return a sort key for the order in which jsonb stores keys."""
    encoded = item[0].encode()
    return len(encoded), encoded


def _parts(given: Any, back: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    if is_struct(type(given)):
        for name in _compared(given):
            yield getattr(given, name, None), getattr(back, name, None), f"{path}.{name}"
    elif isinstance(given, Mapping):
        for key in given:
            if key in back:
                yield given[key], back[key], f"{path}.{key}"
    elif isinstance(given, list | tuple) and len(given) == len(back):
        for index, (one, other) in enumerate(zip(given, back, strict=True)):
            yield one, other, f"{path}[{index}]"


def _compared(value: Any) -> list[str]:
    """Return the names of the attributes that the class of `value` compares for equality."""
    cls = type(value)
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls) if field.eq]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.compare]
    more = (getattr(value, name, None) for name in ("__pydantic_extra__", "__pydantic_private__"))
    return [*field_names(cls), *(name for fields in more for name in fields or ())]


def field_names(cls: type) -> list[str]:
    """Return the names of the fields of an attrs class, a dataclass or a pydantic model."""
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls)]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return list(getattr(cls, "model_fields", ()))
