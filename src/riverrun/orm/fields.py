"""The fields of a class of args: their names in JSON, their types and their defaults."""

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any

import attrs

from riverrun.errors import InvalidRef
from riverrun.jobs.json_types import from_json, is_pydantic, is_struct, shown_type, to_json
from riverrun.jobs.json_values import json_problem
from riverrun.jobs.references import refer_on_init


class Unfit(ValueError):
    """A class of args, or one of its fields, is not usable here. The text says why."""


class Unresolved(Unfit):
    """A name in an annotation is not defined, at least not yet."""


@attrs.frozen(kw_only=True)
class Field:
    """A field of args.

    Attributes:
        name: Its name in Python.
        key: Its name in JSON.
        annotation: Its type annotation.
        pydantic: Whether pydantic writes its JSON.
        default: Returns its default value. None if a value must be given.
        checks: What processes its value in Python when args are made, such as `a validator`.
    """

    name: str
    key: str
    annotation: Any
    pydantic: bool = False
    default: Callable[[], Any] | None = None
    checks: str | None = None

    def encode(self, value: object) -> Any:
        """Return the JSON that is stored for `value`.

        Raises:
            Unfit: If the field cannot hold it.
        """
        try:
            encoded = _pydantic_json(value, self) if self.pydantic else self._encode(value)
        except Exception as error:
            known = isinstance(error, InvalidRef)
            problem = error if known else f"{value!r} is none of {shown_type(self.annotation)}"
            raise Unfit(f"field {self.name!r}: {problem}") from error
        refused = json_problem(encoded)
        if refused:
            raise Unfit(f"field {self.name!r}: {refused}")
        return encoded

    def _encode(self, value: object) -> Any:
        encoded = to_json(value, self.annotation)
        # Read plain values, such as those of JSON. A member of an IntEnum is of another class than
        # int.
        with suppress(TypeError, ValueError):  # refused later, by a text of its own
            encoded = json.loads(json.dumps(encoded))
        from_json(encoded, self.annotation)
        return encoded

    def encode_default(self) -> Any:
        """Return the JSON that is stored in every job without a value of its own.

        Raises:
            Unfit: If the field has no default, or one that differs from job to job.
        """
        if self.default is None:
            raise Unfit(f"field {self.name!r} has no default")
        encoded = self.encode(self.default())
        if encoded != self.encode(self.default()):
            raise Unfit(f"field {self.name!r} has a default that differs from job to job")
        return encoded


@lru_cache(maxsize=1024)
def fields_of(cls: type) -> Mapping[str, Field]:
    """Return the fields of a class of args by name, in the order in which they are stored.

    Raises:
        Unfit: If it is not an attrs class, dataclass or pydantic model.
    """
    if not isinstance(cls, type) or not is_struct(cls):
        name = shown_type(cls)
        raise Unfit(f"{name} is none of @attrs.frozen, @dataclass or a pydantic model")
    if is_pydantic(cls):
        found = _pydantic_fields(cls)
    elif attrs.has(cls):
        found = _attrs_fields(cls)
    else:
        found = _dataclass_fields(cls)
    return {field.name: field for field in found}


@lru_cache(maxsize=1024)
def own_code(cls: type) -> str | None:
    """Return the name of a class's own code that runs when an object is made, or None."""
    for name in ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__", "model_post_init"):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if owner is not None and vars(owner)[name] is refer_on_init:
            continue  # it turns objects into references, and no row holds an object
        if owner is not None and owner.__module__.partition(".")[0] not in {"riverrun", "pydantic"}:
            return f"{owner.__name__}.{name}"
    if hasattr(cls, "__attrs_init__"):
        return f"{cls.__name__}.__init__"
    if "__dataclass_fields__" in vars(cls) and not is_pydantic(cls):
        if not cls.__dataclass_params__.init:  # type: ignore[attr-defined]
            return f"{cls.__name__}.__init__"
        parameters = inspect.signature(cls).parameters
        if extra := set(parameters) - {field.name for field in dataclasses.fields(cls)}:
            return f"InitVar {min(extra)!r} of {cls.__name__}"
    decorators = getattr(cls, "__pydantic_decorators__", None)
    for name in _DECORATORS if is_pydantic(cls) else ():
        if getattr(decorators, name, None):
            return f"{cls.__name__}'s {name}"
    return None


_DECORATORS = (
    *("validators", "field_validators", "root_validators", "model_validators"),
    *("field_serializers", "model_serializers", "computed_fields"),
)


def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise Unresolved(f"{cls.__name__}: {error}") from error


def _attrs_fields(cls: type) -> list[Field]:
    hints = _hints(cls)
    return [
        Field(
            name=attribute.name,
            key=attribute.name,
            annotation=hints.get(attribute.name, Any),
            default=_attrs_default(attribute),
            checks="a converter"
            if attribute.converter
            else "a validator"
            if attribute.validator
            else None,
        )
        for attribute in attrs.fields(cls)
        if attribute.init
    ]


def _attrs_default(attribute: Any) -> Callable[[], Any] | None:
    default = attribute.default
    if default is attrs.NOTHING:
        return None
    convert = attribute.converter if callable(attribute.converter) else lambda value: value
    if not isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return lambda: convert(default)
    if default.takes_self:
        return lambda: _refuse_self(attribute.name)
    return lambda: convert(default.factory())


def _refuse_self(name: str) -> Any:
    raise Unfit(f"field {name!r} has a default that is made of the object's other fields")


def _dataclass_fields(cls: type) -> list[Field]:
    hints = _hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default: Callable[[], Any] | None = None
        if field.default is not dataclasses.MISSING:
            default = lambda value=field.default: value  # noqa: E731
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory
        found.append(
            Field(
                name=field.name,
                key=field.name,
                annotation=hints.get(field.name, Any),
                default=default,
            )
        )
    return found


def _pydantic_fields(cls: Any) -> list[Field]:
    import pydantic

    described = getattr(cls, "__pydantic_fields__", None) or getattr(cls, "model_fields", {})
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    version = tuple(int(part) for part in pydantic.VERSION.split(".")[:2])
    by_name = version >= (2, 11) or config.get("populate_by_name", False)
    found = []
    for name, info in described.items():
        alias = info.serialization_alias or info.alias
        written = alias and (config.get("serialize_by_alias", False) or not by_name)
        metadata = [item for item in info.metadata if type(item).__name__ != "Strict"]
        annotation = info.annotation
        default: Callable[[], Any] | None = None
        if not info.is_required():
            default = lambda info=info: info.get_default(  # noqa: E731
                call_default_factory=True
            )
        found.append(
            Field(
                name=name,
                key=alias if written else name,
                annotation=Annotated[(annotation, *metadata)] if metadata else annotation,
                pydantic=True,
                default=default,
                checks="a constraint" if metadata or _is_constrained(annotation) else None,
            )
        )
    return found


def _is_constrained(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        return True
    return any(map(_is_constrained, typing.get_args(annotation)))


def _pydantic_json(value: object, field: Field) -> Any:
    adapter = _adapter(field)
    return adapter.dump_python(adapter.validate_python(value), mode="json", warnings=False)


@lru_cache(maxsize=1024)
def _adapter(field: Field) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(field.annotation)
