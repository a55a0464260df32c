"""The args of a job, as an object and as JSON."""

import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar, cast

import attrs

from riverrun.errors import InvalidArgs, InvalidOption, UndecodableArgs
from riverrun.jobs.checks import check_kind, check_kinds
from riverrun.jobs.json_types import fields_of, from_json, problem_of, shown_type
from riverrun.jobs.json_values import json_problem, json_text
from riverrun.jobs.options import InsertOpts, check_insert_opts
from riverrun.jobs.references import Postponed, mentions_reference, refer_on_init
from riverrun.jobs.round_trip import NotKept, encode_kept

T = TypeVar("T")


MAX_ARGS_BYTES = 4 * 1024 * 1024
"""Largest args, in bytes of JSON: River indexes them, and each claim reads them."""


# Type checkers then take the constructor of a subclass from its fields, and so accept a mapped
# object for a Ref.
@typing.dataclass_transform(frozen_default=True, field_specifiers=(attrs.field, dataclasses.field))
class JobArgs:
    """The base class of a job's args: derive an attrs class, a dataclass or a pydantic model.

        @attrs.frozen
        class SendEmail(JobArgs, kind="send_email"):
            to: str

    Args:
        kind: The name by which a worker is found; the same in Go and Python. A subclass does not
            inherit it. None of the fields may be named `kind`, `kind_aliases` or `insert_opts`.
        kind_aliases: Further kinds that the worker works, such as the one it had before it was
            renamed. Jobs are inserted as `kind`.
        insert_opts: Options for every job of the kind. Options of an insert take precedence.
    """

    __slots__ = ()
    kind: ClassVar[str]
    kind_aliases: ClassVar[Sequence[str]] = ()
    insert_opts: ClassVar[InsertOpts | None] = None

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            kind: str | None = None,
            kind_aliases: Iterable[str] = (),
            insert_opts: InsertOpts | None = None,
        ) -> None:
            """Set the kind of a subclass."""

    else:

        def __init_subclass__(
            cls, *, kind=None, kind_aliases=(), insert_opts=None, **rest: object
        ) -> None:
            # The rest is for another base, such as a mixin; object refuses what is left over.
            super().__init_subclass__(**rest)
            _check_fields(cls)
            _keep_pydantic_init(cls)
            if mentions_reference(_annotations(cls).values()):
                for name in ("__attrs_post_init__", "__post_init__"):
                    if not hasattr(cls, name):
                        setattr(cls, name, refer_on_init)
            if kind is not None:
                cls.kind = check_kind(kind)
                cls.kind_aliases = check_kinds(kind_aliases)
            elif kind_aliases:
                expected = "a kind too, to which they belong"
                raise InvalidOption("kind_aliases", kind_aliases, expected)
            if insert_opts is not None:
                cls.insert_opts = check_insert_opts(insert_opts)

        def __init__(self, *args: object, **fields: object) -> None:
            # Only classes that define no constructor come here. Another base may have one.
            init = super().__init__
            if (args or fields) and getattr(init, "__objclass__", None) is object:
                expected = "one with fields: put @attrs.frozen above it"
                raise InvalidOption("class of args", type(self).__name__, expected)
            init(*args, **fields)


def _keep_pydantic_init(cls: type) -> None:
    """Let a pydantic model have pydantic's constructor, although JobArgs is an earlier base."""
    inits = (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    if (first := next(inits, None)) is vars(JobArgs)["__init__"]:
        found = next((init for init in inits if hasattr(init, "__pydantic_base_init__")), first)
        if found is not first:
            cls.__init__ = found  # type: ignore[misc]


def _check_fields(cls: type) -> None:
    """Refuse fields with the name of one of JobArgs' own attributes.

    That attribute would be the field's default, or the field would hide it.

    Raises:
        InvalidOption: If there is such a field.
    """
    annotations = _annotations(cls)
    for name in ("kind", "kind_aliases", "insert_opts"):
        annotation = annotations.get(name)
        shared = "ClassVar" in str(annotation)
        made_by_attrs = type(vars(cls).get(name)).__module__ in {"attr._make", "dataclasses"}
        if (annotation is not None and not shared) or made_by_attrs:
            expected = f"another name: {name!r} is the job's own; Go's tag, or an alias, may be it"
            raise InvalidOption(f"field of {cls.__qualname__}", name, expected)


def _annotations(cls: type) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


@attrs.frozen(kw_only=True)
class RawArgs:
    """Args of any kind as plain JSON, for workers in other languages and for operators.

    Attributes:
        kind: The name by which a worker is found.
        encoded: The JSON object.
    """

    kind: str = attrs.field(converter=check_kind)
    encoded: Mapping[str, Any]
    insert_opts: ClassVar[InsertOpts | None] = None


class _OfKind(Protocol):
    """An object of your own class with a kind, declared as a ClassVar."""

    kind: ClassVar[str]


class _WithKind(Protocol):
    """An object of your own class with a kind, declared in any other way."""

    @property
    def kind(self) -> str: ...


AnyArgs: TypeAlias = JobArgs | RawArgs | _OfKind | _WithKind
"""An object whose class has a kind, for type checkers.

It names more than one protocol, because pyright finds no ClassVar where a property is declared.
"""


def kind_of(args: object) -> str:
    """Return the kind of `args`.

    Args:
        args: An object, a class, or a generic class with its parameters.

    Raises:
        InvalidOption: If it has no kind, or one that River would not accept.
    """
    if isinstance(args, RawArgs):
        return args.kind
    cls = args if isinstance(args, type) else type(args)
    kind = _kind_of_class(cls)
    if kind is not None:
        return kind
    if isinstance(origin := typing.get_origin(args), type):
        return kind_of(origin)
    raise InvalidOption("args", args, _advice(args, cls))


@lru_cache(maxsize=1024)
def _kind_of_class(cls: type) -> str | None:
    # Read the class, not the object, which may have a field of that name. A mapped class is left
    # out, because its `kind` may be a column.
    kind = None if hasattr(cls, "__mapper__") else getattr(cls, "kind", None)
    if issubclass(cls, JobArgs) and "kind" not in vars(cls):
        # A subclass does not inherit a kind, except the one that pydantic makes for a generic
        # model with its parameters.
        origin = getattr(cls, "__pydantic_generic_metadata__", {}).get("origin")
        kind = None if origin is None else _kind_of_class(origin)
    return None if kind is None else check_kind(kind)


def _advice(args: object, cls: type) -> str:
    """Return what was expected in place of `args`, depending on what was passed."""
    if hasattr(cls, "__mapper__"):
        return f"args that name it: pass the id of the {cls.__name__} in a field of a JobArgs class"
    if any(base.__module__.partition(".")[0] == "sqlalchemy" for base in cls.__mro__):
        return "args second, after the transaction: insert(session, args)"
    if isinstance(args, Mapping | str):
        return "an object of a JobArgs class, or RawArgs(kind=..., encoded={...}) for plain JSON"
    name = cls.__name__
    if cls.__module__ in {"builtins", "types", "typing"}:
        name = "SendEmail"  # no class of this name is the caller's
    if issubclass(cls, JobArgs):
        # SQLModel's metaclass, for one, drops the keywords of a class.
        in_body = 'if a metaclass drops keywords, kind: ClassVar[str] = "..." in the class'
        return f'a class with a kind of its own: class {name}(..., kind="..."); {in_body}'
    return f'a class with a kind, such as `class {name}(JobArgs, kind="...")`'


def encode(args: object, args_type: Any = None) -> Mapping[str, Any]:
    """Return `args` as the JSON object to store, from which `decode` makes an equal object.

    Args:
        args: An object of a class with a kind.
        args_type: The annotation of its worker's argument. Default: the class of `args`.

    Raises:
        InvalidArgs: If the worker would get a different value, or the JSON is not an object.
        InvalidOption: If `args` has no kind.
    """
    return encode_of_kind(kind_of(args), args, args_type)[0]


def encode_of_kind(kind: str, args: object, args_type: Any) -> tuple[Mapping[str, Any], str | None]:
    """Return what `encode` returns, for args of a known kind, and its text if that is known."""
    if isinstance(args, type):
        name = args.__name__
        raise InvalidArgs(kind, f"they are the class {name}, not an object of it: {name}(...)")
    try:
        if isinstance(args, RawArgs):
            encoded, text = args.encoded, None
            problem = json_problem(encoded)
        else:
            encoded, text = encode_kept(args, args_type or type(args))
            problem = None
    except NotKept as error:
        raise InvalidArgs(kind, str(error)) from None
    except Postponed:
        raise
    except RecursionError:
        raise InvalidArgs(kind, "it is nested too deeply, or holds itself") from None
    except Exception as error:
        raise InvalidArgs(kind, f"{type(error).__name__}: {error}") from error
    if problem:
        raise InvalidArgs(kind, problem)
    if type(encoded) is not dict and not isinstance(encoded, Mapping):
        raise InvalidArgs(kind, f"they encode to {type(encoded).__name__}, not to a JSON object")
    return encoded, text


def encode_text(kind: str, encoded: Mapping[str, Any], known: str | None = None) -> str:
    """Return encoded args as JSON text, which may be `known`.

    Raises:
        InvalidArgs: If the text is larger than `MAX_ARGS_BYTES`.
    """
    text = json_text(encoded) if known is None else known
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_ARGS_BYTES:
        problem = (
            f"{size:,} bytes of JSON, the limit is {MAX_ARGS_BYTES:,}; store the data elsewhere "
            "and pass a reference to it"
        )
        raise InvalidArgs(kind, problem)
    return text


def decode(kind: str, encoded: Mapping[str, Any], args_type: type[T]) -> T:
    """Return stored args as the type that their worker takes.

    Raises:
        UndecodableArgs: If they do not fit that type.
    """
    if type(encoded) is not dict and not isinstance(encoded, Mapping):
        raise UndecodableArgs(kind, shown_type(args_type), "they are not a JSON object")
    if args_type is RawArgs:
        return cast("T", RawArgs(kind=kind, encoded=encoded))
    try:
        return cast("T", from_json(encoded, args_type))
    except Exception as error:
        fields = fields_of(error, args_type)
        raise UndecodableArgs(kind, shown_type(args_type), problem_of(error), fields) from error
