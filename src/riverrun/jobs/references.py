"""The interface of references in args. `riverrun.orm.refs` implements it."""

import types
import typing
from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Self, cast

from riverrun.orm.object_keys import is_mapped


class Reference:
    """A reference to a mapped object, which args hold in its place: `riverrun.orm.refs.Ref`."""

    __slots__ = ()

    def __init__(self, obj: Any) -> None:
        raise NotImplementedError

    def refers_to(self, value: object) -> bool:
        """Return whether this is a reference to `value`."""
        raise NotImplementedError

    @classmethod
    def to_json(cls, value: Any, annotation: Any) -> Any:
        """Return `value`, a reference or a mapped object, as JSON."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, encoded: Any, annotation: Any) -> Self:
        """Return the reference in the JSON `encoded`."""
        raise NotImplementedError

    @classmethod
    def is_exact(cls, annotation: Any) -> Callable[[Any], bool] | None:
        """Return a function that checks if a value comes back equal; None if there is none."""
        raise NotImplementedError


referred: ContextVar[list[object] | None] = ContextVar("riverrun_referred", default=None)
"""Collects the objects that are encoded as references; None if they are not needed."""


comparing: ContextVar[bool] = ContextVar("riverrun_comparing", default=False)
"""Whether a reference is equal to its object, too. By default it is not, because hashes differ."""


class Postponed(Exception):
    """A reference gets its key with the flush that will insert its job."""


class Postponing:
    """Whether args wait for the flush of a session.

    Args:
        session_key: The session's, as its objects have it.
    """

    waits = False

    def __init__(self, session_key: int) -> None:
        self.session_key = session_key


postponing: ContextVar[Postponing | None] = ContextVar("riverrun_postponing", default=None)
"""Set while args are checked that may wait for a flush."""


def reference_class(annotation: Any) -> type[Reference] | None:
    """Return the class of references in `annotation`; None if it is not a reference."""
    cls = typing.get_origin(annotation) or annotation
    return cls if isinstance(cls, type) and issubclass(cls, Reference) else None


def refer_on_init(args: object, *_init_only: object) -> None:
    """Put references in place of the mapped objects that `args` were made with.

    The post-init of classes of args that have references. A class with a post-init of its own keeps
    the objects; they are written as references, too.
    """
    _refer(args)


def mentions_reference(annotations: Iterable[object]) -> bool:
    """Return whether one of a class's annotations, resolved or not, names a reference."""
    return any("Ref" in (hint if isinstance(hint, str) else repr(hint)) for hint in annotations)


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
    """Return `value` with references in place of mapped objects; `value` itself if it has none."""
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
    """Return the names of a class's reference fields, each with the class of the references."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception:  # such as of a name in an annotation that cannot be resolved here
        return ()
    found = ((name, _reference_in(hint)) for name, hint in hints.items())
    return tuple((name, reference) for name, reference in found if reference is not None)


def _reference_in(annotation: Any) -> type[Reference] | None:
    if (reference := reference_class(annotation)) is not None:
        return reference
    inner = (_reference_in(argument) for argument in typing.get_args(annotation))
    return next((reference for reference in inner if reference is not None), None)
