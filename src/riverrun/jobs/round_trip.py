"""Encode args so that the worker gets an equal object, or refuse them and say where and why.

The JSON is decoded again, by the code that decodes it for the worker, and compared. This is not
needed for classes whose fields hold only strings, numbers, lists and the like, if the values have
exactly those types: such args always come back equal, and checking the types is enough.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

import attrs

from riverrun.errors import InvalidRef
from riverrun.jobs.differences import difference, field_names
from riverrun.jobs.json_types import (
    LISTS,
    NoFit,
    as_stored,
    from_json,
    is_named_tuple,
    is_pydantic,
    is_struct,
    named_tuple_types,
    problem_of,
    shown,
    shown_type,
    to_json,
    writer,
)
from riverrun.jobs.json_values import json_problem, quick_text
from riverrun.jobs.pydantic_json import from_pydantic_json, pydantic_dump, pydantic_forms
from riverrun.jobs.references import (
    Postponed,
    refer_on_init,
    reference_class,
)

_SCALARS = frozenset({str, int, bool, float, types.NoneType})


_TEXT = frozenset({str})


class NotKept(Exception):
    """A value would not come back equal. The text says where, what came and what was expected."""


def encode_kept(args: object, annotation: Any) -> tuple[Any, str | None]:
    """Return `args` as JSON that comes back equal, and its text if that is known already.

    Args:
        args: An object.
        annotation: The annotation of its worker's argument: the class of `args`, with its
            parameters if it is generic.

    Raises:
        NotKept: If `args` would not come back equal, or JSON cannot hold it.
        RecursionError: If `args` is nested too deeply.
    """
    exact, write = _plan(annotation)
    if exact is not None and exact(args):
        try:
            encoded = write(args)
        except InvalidRef as error:
            raise NotKept(_explained(args, annotation)) from error
        text = quick_text(encoded)
        if text is None and (problem := json_problem(encoded)):
            raise NotKept(problem)
        return encoded, text
    if is_pydantic(annotation):
        return _encode_pydantic(args, annotation), None
    problem = None
    try:
        encoded = to_json(args, annotation)
        if not (problem := json_problem(encoded)):
            encoded, stored = as_stored(encoded)
            if difference(args, from_json(stored, annotation)) is None:
                return encoded, None
    except (RecursionError, Postponed):
        raise
    except Exception as error:
        raise NotKept(_explained(args, annotation)) from error
    raise NotKept(problem or _explained(args, annotation))


@lru_cache(maxsize=1024)
def exactness(annotation: Hashable) -> Callable[[Any], bool] | None:
    """Return a function that checks if args surely come back as they are, by their types alone.

    It is None if only a comparison can decide, or `annotation` is no class of args.
    """
    try:
        return _plan(annotation)[0]
    except NotKept:
        return None


def _back(encoded: Any, annotation: Any) -> Any:
    return from_json(as_stored(encoded)[1], annotation)


def _encode_pydantic(args: object, annotation: Any) -> Any:
    problem = None
    for form in pydantic_forms(args):
        try:
            encoded = form()
            if not (problem := json_problem(encoded)):
                encoded, stored = as_stored(encoded)
                back = from_pydantic_json(stored, annotation)
                if (found := difference(args, back)) is None:
                    return encoded
                problem = _difference_text(*found, None)
        except RecursionError:
            raise
        except Exception as error:
            problem = _pydantic_problem(error, args)
    # The last form has the fewest obstacles: what is wrong in it is wrong in all of them.
    raise NotKept(problem or "")


def _pydantic_problem(error: Exception, value: object) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:  # an error of encoding, for which pydantic does not name the field
        for name in field_names(type(value)):
            try:
                pydantic_dump(value)(mode="json", warnings=False, include={name})
            except Exception as cause:
                return f"$.{name} is {shown(getattr(value, name, None))}: {cause}"
        return f"$: {error}"
    found = errors(include_url=False)[0]
    path = "$" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"]
    )
    return _with_flush_hint(
        f"{path} is {shown(found['input'])}: {found['msg']}",
        path,
        found["input"],
        {"int_type": int, "uuid_type": UUID}.get(found["type"]),
    )


# The shortcut: classes whose objects always come back equal


@lru_cache(maxsize=1024)
def _plan(annotation: Hashable) -> tuple[Callable[[Any], bool] | None, Callable[[Any], Any]]:
    """Return a function that checks if an object surely comes back equal, and one that encodes it.

    The first is None if only a comparison can decide.

    Raises:
        NotKept: If `annotation` is not a class of args.
    """
    if not is_struct(typing.get_origin(annotation) or annotation):
        name = shown_type(annotation)
        raise NotKept(f"{name} is not an attrs class, a dataclass or a pydantic model")
    try:
        return _exact(annotation), writer(annotation)
    except (TypeError, RecursionError):  # not hashable; classes that contain each other
        return None, writer(annotation)


@lru_cache(maxsize=1024)
def _exact(annotation: Any) -> Callable[[Any], bool] | None:
    """Return a function that checks if a value surely comes back equal; None if there is none."""
    kinds = _scalars_in(annotation)
    if kinds:
        return lambda value: type(value) in kinds
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        others = [other for other in arguments if other is not types.NoneType]
        inner = _exact(others[0]) if len(others) == 1 else None
        return inner and (lambda value: value is None or inner(value))
    if origin is Literal and all(type(argument) is str for argument in arguments):
        return lambda value: type(value) is str and value in arguments
    if origin is list:
        return _exact_list(_exact_items(arguments[0]))
    if origin is dict and arguments[0] is str:
        return _exact_dict(_exact_items(arguments[1]))
    if (reference := reference_class(annotation)) is not None:
        return reference.is_exact(annotation)
    return _exact_struct(annotation)


def _scalars_in(annotation: Any) -> frozenset[Any]:
    """Return the scalar types that `annotation` allows; none if it allows anything else."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = frozenset(typing.get_args(annotation) if is_union else [annotation or types.NoneType])
    return kinds if kinds <= _SCALARS else frozenset()


def _exact_items(annotation: Any) -> Callable[[Any], bool] | None:
    kinds = _scalars_in(annotation)
    if kinds:
        return lambda items: kinds.issuperset(map(type, items))
    item = _exact(annotation)
    return item and (lambda items: all(map(item, items)))


def _exact_list(items: Callable[[Any], bool] | None) -> Callable[[Any], bool] | None:
    return items and (lambda value: type(value) is list and items(value))


def _exact_dict(items: Callable[[Any], bool] | None) -> Callable[[Any], bool] | None:
    return items and (
        lambda value: (
            type(value) is dict and _TEXT.issuperset(map(type, value)) and items(value.values())
        )
    )


def _exact_struct(cls: Any) -> Callable[[Any], bool] | None:
    if not isinstance(cls, type) or is_pydantic(cls) or not _is_made_plainly(cls):
        return None
    try:
        hints = typing.get_type_hints(cls)
    except Exception:
        return None
    scalars: list[tuple[str, frozenset[Any]]] = []
    others: list[tuple[str, Callable[[Any], bool]]] = []
    for name in field_names(cls):
        hint = hints.get(name)
        if name in hints and (kinds := _scalars_in(hint)):
            scalars.append((name, kinds))
            continue
        inner = None if hint is None else _exact(hint)
        if inner is None:
            return None
        others.append((name, inner))

    def exact(value: Any) -> bool:
        if type(value) is not cls:
            return False
        for name, kinds in scalars:
            if type(getattr(value, name)) not in kinds:
                return False
        return not others or all(inner(getattr(value, name)) for name, inner in others)

    return exact


def _is_made_plainly(cls: type) -> bool:
    """Return whether the fields of `cls` hold exactly the arguments of its constructor."""
    if any(getattr(cls, name, None) not in (None, refer_on_init) for name in _OWN_INIT):
        return False
    own = vars(cls)
    if "__attrs_attrs__" in own:
        return all(
            field.init and field.converter is None and field.validator is None
            for field in attrs.fields(cls)
        )
    if "__dataclass_fields__" in own:
        parameters = inspect.signature(cls).parameters  # has InitVars, which are not fields
        fields = dataclasses.fields(cls)
        return (
            cls.__dataclass_params__.init  # type: ignore[attr-defined]
            and all(field.init for field in fields)
            and len(parameters) == len(fields)
        )
    return False


_OWN_INIT = ("__attrs_init__", "__attrs_pre_init__", "__attrs_post_init__", "__post_init__")


# The explanation: the innermost part that does not come back equal

_NOTHING = object()


def _explained(value: Any, annotation: Any, path: str = "$") -> str:
    for part, inner, where in _annotated_parts(value, annotation, path):
        if inner is not None and not _survives(part, inner):
            return _explained(part, inner, where)
    back: object = _NOTHING
    try:
        encoded = to_json(value, annotation)
        if problem := json_problem(encoded, path):
            return problem
        back = _back(encoded, annotation)
    except NoFit:
        pass
    except InvalidRef as error:
        return f"{path} is {error}"
    except Exception as error:
        if is_pydantic(type(value)):
            return f"{path}{_pydantic_problem(error, value)[1:]}"
        if is_struct(type(value)):
            return f"{path} would not come back: {problem_of(error)}"
    if back is not _NOTHING and (found := difference(value, back, path)) is not None:
        return _difference_text(*found, annotation if found[0] == path else None)
    return _with_flush_hint(
        f"{path} is {shown(value)}; expected {shown_type(annotation)}", path, value, annotation
    )


def _difference_text(path: str, given: Any, back: Any, annotation: Any) -> str:
    expected = "" if annotation is None else f"; expected {shown_type(annotation)}"
    with_type = type(given) is not type(back)
    was, would_be = (
        f"{shown(value)} ({type(value).__name__})" if with_type else shown(value)
        for value in (given, back)
    )
    return f"{path} is {was}, and its worker would get {would_be}{expected}"


_KEY = re.compile(r"[._](?:id|pk|uuid)$|[a-z0-9](?:Id|ID|Pk|PK|Uuid|UUID)$")


def _with_flush_hint(text: str, path: str, value: object, annotation: Any) -> str:
    key = _KEY.search(path)
    if value is None and (key or shown_type(annotation) in {"int", "UUID"}):
        return f"{text}; did you flush? A key is given to an object when its session is flushed"
    return text


def _survives(value: Any, annotation: Any) -> bool:
    try:
        encoded = to_json(value, annotation)
        return (
            json_problem(encoded) is None and difference(value, _back(encoded, annotation)) is None
        )
    except Exception:
        return False


def _annotated_parts(value: Any, annotation: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        others = [other for other in arguments if other is not types.NoneType]
        chosen = others[0] if len(others) == 1 else type(value)
        if value is not None and chosen in others:
            yield value, chosen, path
        return
    cls = origin or annotation
    if isinstance(cls, type) and is_struct(cls) and not is_pydantic(cls):
        if type(value) is cls:
            hints = _hints(cls)
            for name in field_names(cls):
                hint = hints.get(name)
                yield getattr(value, name, None), hint, f"{path}.{name}"
    elif isinstance(cls, type) and typing.is_typeddict(cls):
        hints = _hints(cls)
        for key, item in value.items() if isinstance(value, Mapping) else ():
            yield item, hints.get(key), f"{path}.{key}"
    elif is_named_tuple(cls) and type(value) is cls:
        for index, (item, kind) in enumerate(zip(value, named_tuple_types(cls), strict=True)):
            yield item, kind, f"{path}[{index}]"
    elif isinstance(value, Mapping) and len(arguments) == 2:
        for key, item in value.items():
            yield item, arguments[1], f"{path}.{key}"
    elif isinstance(value, list | tuple | set | frozenset) and arguments and origin in LISTS:
        fixed = origin is tuple and arguments[-1] is not Ellipsis
        for index, item in enumerate(value):
            if not fixed or index < len(arguments):
                yield item, arguments[index] if fixed else arguments[0], f"{path}[{index}]"


def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception:
        return {}
