"""Encodes values as JSON by their annotations, and decodes them strictly, without conversions.

Cattrs handles attrs classes, dataclasses and the values in them, with hooks of our own where it
would convert a value ("5" to 5, None to "None"). Pydantic handles its models.
"""

import collections
import contextlib
import dataclasses
import json
import re
import threading
import typing
from collections import abc
from collections.abc import Callable, Mapping
from datetime import time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, TypeVar, cast
from uuid import UUID

import attrs
from cattrs import transform_error
from cattrs.preconf.json import make_converter
from cattrs.v import format_exception

from riverrun.errors import InvalidRef
from riverrun.jobs.durations import duration, duration_text
from riverrun.jobs.json_values import json_text
from riverrun.jobs.pydantic_json import from_pydantic_json, pydantic_forms
from riverrun.jobs.references import Reference, reference_class

LISTS = (
    *(list, tuple, set, frozenset, collections.deque),
    *(abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable, abc.Set, abc.MutableSet),
)


_ANY_LIST = (abc.Sequence, abc.Collection, abc.Iterable)  # decoded as a list


_OBJECTS = (dict, abc.Mapping, abc.MutableMapping)


class NoFit(TypeError):
    """A JSON value does not fit an annotation."""

    def __init__(self, value: object, expected: object) -> None:
        super().__init__(value, expected)

    def __str__(self) -> str:
        value, expected = self.args
        return f"expected {shown_type(expected)}, got {shown(value)}"


def as_stored(encoded: Any) -> tuple[Any, Any]:
    """Return `encoded` as plain JSON, and as it will be read back: jsonb turns 1e16 into an int."""
    text = json_text(encoded)
    plain = json.loads(text)
    if "e+" not in text:
        return plain, plain
    return plain, json.loads(text, parse_float=_stored_number)


def _stored_number(text: str) -> float:
    return int(Decimal(text)) if "e+" in text else float(text)


def to_json(value: object, annotation: Any) -> Any:
    """Return `value` as JSON, by the annotation of its field. The result is not checked."""
    return _converter.unstructure(value, annotation)


def writer(annotation: Any) -> Callable[[Any], Any]:
    """Return the function that `to_json` calls for values with this annotation."""
    dispatch: Any = _converter._unstructure_func.dispatch
    return cast("Callable[[Any], Any]", dispatch(annotation))


def from_json(encoded: Any, annotation: Any) -> Any:
    """Return JSON as the value of a field with this annotation.

    Raises:
        Exception: If it does not fit. `problem_of` returns the error's text.
    """
    return _converter.structure(encoded, annotation)


def problem_of(error: Exception) -> str:
    """Return the problem that an error of `from_json` is about, and where it is."""
    try:
        if type(error).__module__.startswith("cattrs") or isinstance(
            error, KeyError | NoFit | InvalidRef
        ):
            return "; ".join(transform_error(error, path="$", format_exception=_formatted))
        return str(error)
    except Exception:  # A text must not hide the error that it is about.
        return type(error).__name__


def fields_of(error: Exception, annotation: Any) -> tuple[str, ...]:
    """Return the fields of a class of args that an error of `from_json` is about.

    Only names that the class declares are returned, and never a key or value of the JSON.
    """
    try:
        if hasattr(error, "errors"):  # pydantic's
            parts = [problem["loc"][0] for problem in error.errors() if problem["loc"]]
        else:
            paths = transform_error(error, path="$", format_exception=lambda *_: "")
            parts = [found[1] for path in paths if (found := re.search(r"@ \$\.(\w+)", path))]
        known = typing.get_type_hints(_origin(annotation))
    except Exception:  # such as an annotation that cannot be resolved; the log has no fields then
        return ()
    return tuple(dict.fromkeys(str(part) for part in parts if part in known))


def _formatted(error: BaseException, expected: Any) -> str:
    if isinstance(error, NoFit | InvalidRef):
        return str(error)
    text = format_exception(error, expected)
    # The text of a class's or schema's own check is more precise than "invalid value".
    return f"{text} ({error})" if text == "invalid value" and str(error) else text


def shown(value: object, limit: int = 60) -> str:
    """Return `value` as text for an error message."""
    try:
        text = repr(value)
    except Exception:  # of the application's __repr__
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."


def shown_type(annotation: Any) -> str:
    """Return `annotation` as text for an error message."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r"[\w<>]+\.(?=\w)", "", str(annotation))


def is_pydantic(annotation: Any) -> bool:
    """Return whether `annotation` is a model or dataclass of pydantic's."""
    # Look for pydantic's attribute, so that pydantic is not imported by those who do not use it.
    return isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__")


def is_struct(annotation: Any) -> bool:
    """Return whether `annotation` is an attrs class, a dataclass or a pydantic model."""
    return isinstance(annotation, type) and (
        attrs.has(annotation)
        or dataclasses.is_dataclass(annotation)
        or hasattr(annotation, "__pydantic_validator__")
    )


_converter = make_converter()


def _plain(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, annotation: Any) -> Any:
        if type(value) is not kind:
            raise NoFit(value, annotation)
        # This hook also gets subclasses, such as an IntEnum or an application's subclass of str.
        return value if annotation is kind else annotation(value)

    return structure


def _float(value: Any, annotation: Any) -> Any:
    # Other languages and PostgreSQL write 1.0 as 1.
    if type(value) not in (float, int):
        raise NoFit(value, annotation)
    return annotation(value)


def _decimal(value: Any, annotation: Any) -> Any:
    if type(value) not in (str, float, int):
        raise NoFit(value, annotation)
    try:
        return annotation(str(value))
    except ArithmeticError:
        raise NoFit(value, annotation) from None


def _none(value: Any, annotation: Any) -> None:
    if value is not None:
        raise NoFit(value, annotation)


def _read(parse: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, annotation: Any) -> Any:
        if type(value) is not str:
            raise NoFit(value, annotation)
        try:
            return parse(value)
        except ValueError:
            raise NoFit(value, annotation) from None

    return structure


def _origin(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _hook(annotation: Any) -> Callable[[Any, Any], Any]:
    """Return cattrs' own hook for `annotation`, without ours."""
    before = _skipped.annotations
    _skipped.annotations = (*before, annotation)
    try:
        if hasattr(_converter, "get_structure_hook"):
            return _converter.get_structure_hook(annotation, cache_result=False)
        before_24_1: Any = _converter._structure_func
        return cast("Callable[[Any, Any], Any]", before_24_1._dispatch(annotation))
    finally:
        _skipped.annotations = before


class _Skipped(threading.local):
    """The annotations for which `_hook` skips our own hooks at the moment, in this thread."""

    annotations: tuple[Any, ...] = ()


_skipped = _Skipped()


def _is_list(annotation: Any) -> bool:
    if any(annotation is skipped for skipped in _skipped.annotations):
        return False
    return _origin(annotation) in LISTS


def _list_hook(annotation: Any) -> Callable[[Any, Any], Any]:
    """Return cattrs' hook behind a check for a list: cattrs would also split a str into a list."""
    origin, items = _origin(annotation), typing.get_args(annotation)
    if origin in _ANY_LIST:
        annotation = list[items[0]] if items else list  # type: ignore[valid-type]
        return _list_hook(annotation)
    hook = _hook(annotation)

    def structure(value: Any, _: Any) -> Any:
        if type(value) not in (list, tuple):
            raise NoFit(value, annotation)
        return hook(value, annotation)

    return structure


def _has_keys(annotation: Any) -> bool:
    """Return whether `annotation` is a mapping whose keys are not strings."""
    if _origin(annotation) not in _OBJECTS:
        return False
    arguments = typing.get_args(annotation)
    return bool(arguments) and arguments[0] not in (str, Any)


def _keyed_json(annotation: Any) -> Callable[[Any], Any]:
    key_type, item_type = typing.get_args(annotation)

    def unstructure(value: Any) -> Any:
        return {_key_text(key, key_type): to_json(item, item_type) for key, item in value.items()}

    return unstructure


def _keyed(annotation: Any) -> Callable[[Any, Any], Any]:
    key_type, item_type = typing.get_args(annotation)
    inner = dict[str, item_type]  # type: ignore[valid-type]

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise NoFit(value, annotation)
        items = from_json(value, inner)
        return {_key(text, key_type): item for text, item in items.items()}

    return structure


def _key_text(key: object, annotation: Any) -> str:
    encoded = to_json(key, annotation)
    if isinstance(encoded, int) and not isinstance(encoded, bool):
        return str(int(encoded))
    if not isinstance(encoded, str):
        raise NoFit(key, f"a key that JSON can have, such as a {shown_type(annotation)}")
    return encoded


def _key(text: str, annotation: Any) -> Any:
    try:
        return from_json(text, annotation)
    except Exception:  # whatever a hook raises for text: it may be a number, a key as JSON has it
        if not re.fullmatch(r"0|-?[1-9][0-9]*", text):
            raise NoFit(text, annotation) from None
        return from_json(int(text), annotation)


def is_named_tuple(annotation: Any) -> bool:
    """Return whether `annotation` is a NamedTuple, which cattrs before 24.1 does not support."""
    return (
        isinstance(annotation, type)
        and issubclass(annotation, tuple)
        and hasattr(annotation, "_fields")
    )


def named_tuple_types(annotation: Any) -> list[Any]:
    """Return the annotations of a NamedTuple's fields."""
    hints = typing.get_type_hints(annotation)
    return [hints.get(name, Any) for name in annotation._fields]


def _named_tuple_json(annotation: Any) -> Callable[[Any], Any]:
    kinds = named_tuple_types(annotation)
    return lambda value: [to_json(item, kind) for item, kind in zip(value, kinds, strict=True)]


def _named_tuple(annotation: Any) -> Callable[[Any, Any], Any]:
    inner = cast("Any", tuple)[tuple(named_tuple_types(annotation))]
    return lambda value, _: annotation(*from_json(value, inner))


def _pydantic_json(annotation: Any) -> Callable[[Any], Any]:
    def unstructure(value: Any) -> Any:
        if not is_pydantic(type(value)):
            raise NoFit(value, annotation)
        first: Any = None
        for form in pydantic_forms(value):
            encoded = form()
            first = encoded if first is None else first
            with contextlib.suppress(Exception):
                if from_pydantic_json(encoded, annotation) == value:
                    return encoded
        return first

    return unstructure


def _is_open(annotation: Any) -> bool:
    """Return whether `annotation` is a generic class without its parameters."""
    return (
        isinstance(annotation, type)
        and bool(getattr(annotation, "__parameters__", ()))
        and is_struct(annotation)
        and not is_pydantic(annotation)
    )


def _bounds(annotation: Any) -> tuple[Any, ...]:
    return tuple(map(_bound, annotation.__parameters__))


def _bound(annotation: Any) -> Any:
    """Return the bound of a type variable; Any if it has none."""
    bound = getattr(annotation, "__bound__", None)
    return Any if bound is None else bound


_converter.register_structure_hook(str, _plain(str))
_converter.register_structure_hook(int, _plain(int))
_converter.register_structure_hook(bool, _plain(bool))
_converter.register_structure_hook(float, _float)
_converter.register_structure_hook(Decimal, _decimal)
_converter.register_unstructure_hook(Decimal, str)
_converter.register_structure_hook(UUID, _read(UUID))
_converter.register_structure_hook(time, _read(time.fromisoformat))
_converter.register_structure_hook(timedelta, _read(duration))
_converter.register_unstructure_hook(UUID, str)
_converter.register_unstructure_hook(time, lambda value: value.isoformat())
_converter.register_unstructure_hook(timedelta, duration_text)
_converter.register_structure_hook_func(lambda t: t is object, lambda value, _: value)
_converter.register_structure_hook_factory(_is_open, lambda t: _hook(t[_bounds(t)]))
_converter.register_structure_hook_func(lambda t: t is None or t is NoneType, _none)
_converter.register_structure_hook_factory(_is_list, _list_hook)
_converter.register_structure_hook_factory(_has_keys, _keyed)
_converter.register_unstructure_hook_factory(_has_keys, _keyed_json)
_converter.register_structure_hook_factory(
    lambda t: isinstance(t, TypeVar), lambda t: lambda value, _: from_json(value, _bound(t))
)
_converter.register_unstructure_hook_factory(
    lambda t: isinstance(t, TypeVar), lambda _: _converter.unstructure
)
_converter.register_structure_hook_factory(is_named_tuple, _named_tuple)
_converter.register_unstructure_hook_factory(is_named_tuple, _named_tuple_json)
_converter.register_structure_hook_func(is_pydantic, from_pydantic_json)
_converter.register_unstructure_hook_factory(is_pydantic, _pydantic_json)
_converter.register_structure_hook_func(
    lambda t: reference_class(t) is not None,
    lambda value, t: cast("type[Reference]", reference_class(t)).from_json(value, t),
)
_converter.register_unstructure_hook_factory(
    lambda t: reference_class(t) is not None,
    lambda t: lambda value: cast("type[Reference]", reference_class(t)).to_json(value, t),
)
