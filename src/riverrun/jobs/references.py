"""References in args, as what reads and writes args sees them; `riverrun.orm.refs` has the one."""

import types
import typing
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, cast

from riverrun.orm.object_keys import is_mapped


class Reference:
    """What stands in args for a mapped object: `riverrun.orm.refs.Ref`."""

    __slots__ = ()

    def __init__(self, obj: Any) -> None:
        raise NotImplementedError

    def refers_to(self, value: object) -> bool:
        """Return whether it stands for `value`."""
        raise NotImplementedError

    @classmethod
    def to_json(cls, value: Any, annotation: Any) -> Any:
        """Return `value`, a reference or what it would stand for, as JSON."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, encoded: Any, annotation: Any) -> Self:
        """Return the reference that `encoded` is."""
        raise NotImplementedError

    @classmethod
    def is_exact(cls, annotation: Any) -> Callable[[Any], bool] | None:
        """Return what tells whether a value comes back as it is; None if nothing tells it so."""
        raise NotImplementedError


referred: ContextVar[list[object] | None] = ContextVar("riverrun_referred", default=None)
"""Collects the objects that are written as references; None where nothing needs them."""


comparing: ContextVar[bool] = ContextVar("riverrun_comparing", default=False)
"""Whether a reference equals its object, too. Else it does not: their hashes differ."""


def reference_class(annotation: Any) -> type[Reference] | None:
    """Return the class of references that `annotation` stands for; None if for none."""
    cls = typing.get_origin(annotation) or annotation
    return cls if isinstance(cls, type) and issubclass(cls, Reference) else None


class Referring:
    """A base of args whose fields hold references where mapped objects were given for them.

    A class with a post-init of its own keeps the objects; they are written as references, too.
    """

    __slots__ = ()

    if not TYPE_CHECKING:

        def __attrs_post_init__(self):
            """Make references of mapped objects."""
            _refer(self)

        def __post_init__(self, *_):
            """Make references of mapped objects."""
            _refer(self)


def reference_fields(cls: type) -> list[str]:
    """Return the fields of a class of args that hold one reference, or None."""
    found = []
    for name, _ in _reference_fields(cast("Hashable", cls)):
        hint = typing.get_type_hints(typing.get_origin(cls) or cls)[name]
        options = set(typing.get_args(hint)) - {type(None)}
        if reference_class(hint) or (
            typing.get_origin(hint) in (typing.Union, types.UnionType)
            and all(map(reference_class, options))
        ):
            found.append(name)
    return found


def _refer(args: object) -> None:
    for name, reference in _reference_fields(cast("Hashable", type(args))):
        value = getattr(args, name, None)
        referring = _referring(value, reference)
        if referring is not value:
            object.__setattr__(args, name, referring)


def _referring(value: Any, reference: type[Reference]) -> Any:
    """Return `value` with references in place of mapped objects; itself if it has none."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        if any(map(is_mapped, value)):
            return kind(_referring(item, reference) for item in value)
    elif kind is dict:
        if any(map(is_mapped, value.values())):
            return {key: _referring(item, reference) for key, item in value.items()}
    elif is_mapped(value):
        return reference(value)
    return value


@lru_cache(maxsize=1024)
def _reference_fields(cls: Hashable) -> tuple[tuple[str, type[Reference]], ...]:
    """Return the fields of a class that hold references, and the class of those."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception:
        return ()  # Names that cannot be resolved here.
    found = ((name, _reference_in(hint)) for name, hint in hints.items())
    return tuple((name, reference) for name, reference in found if reference is not None)


def _reference_in(annotation: Any) -> type[Reference] | None:
    if (reference := reference_class(annotation)) is not None:
        return reference
    inner = (_reference_in(each) for each in typing.get_args(annotation))
    return next((each for each in inner if each is not None), None)
