"""What a kind of job takes, and a job's row, frozen."""

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter, methodcaller
from typing import Any, ClassVar, TypeVar, cast

import attrs
from cattrs import transform_error
from cattrs.preconf.json import make_converter

from riverrun.errors import InvalidArgs, InvalidOption, UndecodableArgs
from riverrun.options import InsertOpts, check_kind, check_kinds, json_problem, json_text
from riverrun.states import JobState

T = TypeVar("T")

MAX_ARGS_BYTES = 4 * 1024 * 1024
"""Largest args in bytes of JSON: they are indexed, and read by every claim."""


class JobArgs:
    """The base of a kind's args: an attrs class, a dataclass or a pydantic model.

        @attrs.frozen
        class SendEmail(JobArgs, kind="send_email"):
            to: str

    Args:
        kind: Names the worker; the same for Go and Python. Without it a subclass has none.
        kind_aliases: Further kinds that the worker works, such as the one it had before it was
            renamed. Jobs are inserted as `kind`.
        insert_opts: Options for every job of the kind, where an insert says nothing else.
    """

    __slots__ = ()
    kind: ClassVar[str]
    kind_aliases: ClassVar[Sequence[str]] = ()
    insert_opts: ClassVar[InsertOpts | None] = None

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        kind_aliases: Iterable[str] = (),
        insert_opts: InsertOpts | None = None,
        **rest: Any,
    ) -> None:
        super().__init_subclass__(**rest)
        if kind is not None:
            cls.kind = check_kind(kind)
            cls.kind_aliases = check_kinds(kind_aliases)
        elif kind_aliases:
            raise InvalidOption("kind_aliases", kind_aliases, "a kind too, to which they belong")
        if insert_opts is not None:
            cls.insert_opts = insert_opts


@attrs.frozen(kw_only=True)
class RawArgs:
    """Args of any kind as plain JSON: what a worker of another language, or an operator, takes.

    Attributes:
        kind: Names the worker.
        encoded: The JSON object.
    """

    kind: str = attrs.field(converter=check_kind)
    encoded: Mapping[str, Any]
    insert_opts: ClassVar[InsertOpts | None] = None


@attrs.frozen
class AttemptError:
    """One entry of a job's errors, in River's format.

    Attributes:
        at: When the attempt began.
        attempt: Which attempt failed.
        error: What went wrong.
        trace: The traceback, empty where there is none.
    """

    at: datetime
    attempt: int
    error: str
    trace: str = ""


@attrs.frozen(kw_only=True)
class JobRow:
    """A job as its row was when read. Times are aware.

    Attributes:
        id: Its number.
        kind: Which worker it is for.
        args: The worker's input, a JSON object.
        state: Where it stands.
        queue: Where it waits.
        attempt: The number of the current or last attempt; 0 before the first.
        max_attempts: After how many it is discarded.
        priority: 1 (first) to 4.
        created_at: When it was inserted.
        scheduled_at: Before when it is not worked; of a failed job, when it is tried again.
        attempted_at: When the current or last attempt was claimed.
        finalized_at: When it was completed, cancelled or discarded.
        attempted_by: The ids of the clients that claimed it, the last 100.
        errors: For each failed attempt an object with "at", "attempt", "error" and "trace".
        metadata: What is kept with it, a JSON object; empty where somebody wrote anything else.
        tags: Words to find it by.
        unique_key: What makes it unique, 32 bytes.
        unique_states: In which states the key counts.
    """

    id: int
    kind: str
    args: Mapping[str, Any]
    state: JobState
    queue: str
    attempt: int
    max_attempts: int
    priority: int
    created_at: datetime
    scheduled_at: datetime
    attempted_at: datetime | None = None
    finalized_at: datetime | None = None
    attempted_by: tuple[str, ...] = ()
    errors: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    tags: tuple[str, ...] = ()
    unique_key: bytes | None = None
    unique_states: frozenset[JobState] | None = None


_converter = make_converter()


def kind_of(args: object) -> str:
    """Return the kind of `args`, an object or a class.

    Raises:
        InvalidOption: If it has none, or one that River would not accept.
    """
    kind = getattr(args, "kind", None)
    if kind is None:
        name = args.__name__ if isinstance(args, type) else type(args).__name__
        expected = f'a class with a kind, such as `class {name}(JobArgs, kind="...")`'
        raise InvalidOption("args", args, expected)
    return _checked_kind(kind)


@lru_cache(maxsize=1024)
def _checked_kind(kind: object) -> str:
    return check_kind(kind)


def encode(args: object) -> Mapping[str, Any]:
    """Return `args` as the JSON object to store.

    Raises:
        InvalidArgs: If it is no JSON object, or holds what jsonb cannot.
        InvalidOption: If `args` has no kind.
    """
    kind = kind_of(args)
    try:
        encoded = _unstructured(args)
        problem = json_problem(encoded)
    except RecursionError:
        raise InvalidArgs(kind, "it is nested too deeply, or holds itself") from None
    except Exception as error:
        raise InvalidArgs(kind, f"{type(error).__name__}: {error}") from error
    if problem:
        raise InvalidArgs(kind, problem)
    if type(encoded) is not dict and not isinstance(encoded, Mapping):
        raise InvalidArgs(kind, f"they encode to {type(encoded).__name__}, not to a JSON object")
    return encoded


def _unstructured(args: object) -> Any:
    return _unstructurer(cast("Hashable", type(args)))(args)


@lru_cache(maxsize=1024)
def _unstructurer(args_type: type) -> Callable[[Any], Any]:
    if issubclass(args_type, RawArgs):
        return attrgetter("encoded")
    if _is_pydantic(args_type):
        return methodcaller("model_dump", mode="json")
    if attrs.has(args_type) or dataclasses.is_dataclass(args_type):
        return _converter.unstructure
    name = args_type.__name__
    raise TypeError(f"{name} is none of @attrs.frozen, @dataclass or a pydantic model")


def encode_text(kind: str, encoded: Mapping[str, Any]) -> str:
    """Return args already encoded as JSON text.

    Raises:
        InvalidArgs: If the text is larger than `MAX_ARGS_BYTES`.
    """
    text = json_text(encoded)
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_ARGS_BYTES:
        problem = (
            f"{size:,} bytes of JSON, the limit is {MAX_ARGS_BYTES:,}; store the data elsewhere "
            "and pass a reference to it"
        )
        raise InvalidArgs(kind, problem)
    return text


def decode(kind: str, encoded: Mapping[str, Any], args_type: type[T]) -> T:
    """Return stored args as the type their worker takes.

    Raises:
        UndecodableArgs: If they do not fit it.
    """
    if not isinstance(encoded, Mapping):
        raise UndecodableArgs(kind, args_type.__name__, "they are no JSON object")
    if args_type is RawArgs:
        return cast("T", RawArgs(kind=kind, encoded=encoded))
    try:
        if _is_pydantic(args_type):
            return cast("T", cast("Any", args_type).model_validate(encoded))
        return _converter.structure(encoded, args_type)
    except Exception as error:
        problem = str(error)
        with contextlib.suppress(Exception):
            problem = "; ".join(transform_error(error, path="$")) if _is_cattrs(error) else problem
        raise UndecodableArgs(kind, args_type.__name__, problem) from error


def _is_pydantic(args_type: type) -> bool:
    # By its mark, so that pydantic is never imported for those who do not use it.
    return hasattr(args_type, "__pydantic_validator__")


def _is_cattrs(error: Exception) -> bool:
    return type(error).__module__.startswith("cattrs") or isinstance(error, KeyError)
