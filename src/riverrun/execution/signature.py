"""Reads a worker's signature, calls the worker accordingly, and detects if none of it ran."""

import functools
import inspect
import types
import typing
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from enum import Enum
from typing import Any

import attrs

from riverrun.errors import InvalidWorker, WorkerDidNotRun
from riverrun.execution.context import JobContext
from riverrun.execution.session_parameter import SessionParameter, session_parameter

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


_LAZY = (Awaitable, Generator, AsyncGenerator, map, filter)


# The types that functions return most often. A check against the abstract classes takes longer.
_PLAIN = frozenset({type(None), bool, int, float, str, dict, list, tuple})


class By(Enum):
    """How a worker takes its context, if not by a name."""

    nothing = "nothing"
    position = "position"


@attrs.frozen(kw_only=True)
class Signature:
    """How a worker is called, according to its signature.

    Attributes:
        args_type: The annotation of its args: a class, or a generic class with its parameters.
        context: How it takes the context: by position, by this name, or not at all.
        session: The parameter that takes a session, if there is one.
        is_async: Whether a call returns a coroutine.
        has_name: Whether another process can import it by its name.
    """

    args_type: Any
    context: By | str
    session: SessionParameter | None
    is_async: bool
    has_name: bool


def name_of(function: object) -> str:
    """Return the name of `function` for error messages."""
    return getattr(function, "__qualname__", repr(function))


def read_signature(function: Callable[..., object], *, assume_plain: bool = False) -> Signature:
    """Return how `function` is called, according to its signature.

    Args:
        function: The worker, maybe within decorators and partials.
        assume_plain: Whether to ignore what a decorator wraps: from outside, a decorator that runs
            an `async def` or a generator to its end looks like one that does not.

    Raises:
        InvalidWorker: If it cannot be a worker.
    """
    name = name_of(function)
    layers = _layers(function)
    for layer in layers[:1] if assume_plain else layers:
        _refuse_lazy(name, layer)
    if any(hasattr(layer, "cache_info") for layer in layers):
        raise InvalidWorker(name, "a cache would complete a job without running it; remove it")
    is_async = any(map(_is_coroutine_function, layers[:1] if assume_plain else layers))
    hints = _hints(name, layers[-1])
    parameters = _parameters(name, function)
    first, rest = parameters[0], parameters[1:]
    args_type = hints.get(first.name)
    if _is_context(args_type):
        problem = "its args come first, then its context: def worker(args: Args, ctx: JobContext)"
        raise InvalidWorker(name, problem)
    if not _may_be_args(args_type):
        raise InvalidWorker(name, f"annotate {first.name!r} with the class of its args")
    session = session_parameter(name, parameters, hints, is_async=is_async)
    second = rest[0] if rest else None
    if session is not None:
        rest = [parameter for parameter in rest if parameter.name != session.name]
    return Signature(
        args_type=args_type,
        context=_context(name, rest, hints, second=second),
        session=session,
        is_async=is_async,
        has_name="<" not in name and hasattr(function, "__qualname__"),
    )


def call(
    function: Callable[..., object],
    args: object,
    ctx: JobContext | None,
    context: By | str,
    **session: object,
) -> None:
    """Call a worker's function.

    Args:
        function: The worker.
        args: Its args.
        ctx: Its context.
        context: How it takes the context.
        **session: Its session, by the name of the parameter that takes one.

    Raises:
        WorkerDidNotRun: If it returned something that still has to be run, such as a coroutine.
    """
    if context is By.position:
        result = function(args, ctx, **session)
    elif context is By.nothing:
        result = function(args, **session)
    else:
        result = function(args, **{context: ctx}, **session)
    if type(result) not in _PLAIN:
        _check_result(function, result)


async def call_async(
    function: Callable[..., object],
    args: object,
    ctx: JobContext,
    context: By | str,
    **session: object,
) -> None:
    """Call a worker's coroutine function as `call` does, and await its end.

    Raises:
        WorkerDidNotRun: If it returned nothing to await, or its result still has to be run.
    """
    if context is By.position:
        result = function(args, ctx, **session)
    elif context is By.nothing:
        result = function(args, **session)
    else:
        result = function(args, **{context: ctx}, **session)
    if not isinstance(result, Awaitable):
        raise WorkerDidNotRun(name_of(function), type(result).__name__)
    result = await result
    if type(result) not in _PLAIN:
        _check_result(function, result)


def _check_result(function: object, result: object) -> None:
    if not isinstance(result, _LAZY):
        return
    if isinstance(result, types.CoroutineType | types.GeneratorType):
        result.close()  # it will never run, and Python would warn about that
    raise WorkerDidNotRun(name_of(function), type(result).__name__)


def _layers(function: object) -> list[Any]:
    """Return `function` and the functions that it wraps, the innermost last."""
    layers = [function]
    while len(layers) < 100:
        layer = layers[-1]
        inner = layer.func if isinstance(layer, functools.partial) else None
        if inner is None:
            inner = getattr(layer, "__wrapped__", None)
        if inner is None or any(inner is layer for layer in layers):
            break
        layers.append(inner)
    return layers


def _code(layer: Any) -> Any:
    """Return the function that a call of `layer` runs: its own, or its class's `__call__`."""
    if inspect.isroutine(layer) or isinstance(layer, functools.partial | type):
        return layer
    return getattr(type(layer), "__call__", layer)  # noqa: B004  an object that can be called


def _is_coroutine_function(layer: Any) -> bool:
    return inspect.iscoroutinefunction(layer) or inspect.iscoroutinefunction(_code(layer))


def _refuse_lazy(name: str, layer: Any) -> None:
    code = _code(layer)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise InvalidWorker(
            name,
            "it has a yield, so a call would run none of it; return instead, or pass executor= if "
            "a decorator runs it to its end",
        )


def _hints(name: str, innermost: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(_code(innermost))
    except NameError as error:
        raise InvalidWorker(name, f"its annotations cannot be resolved: {error}") from error
    except TypeError:
        return {}


def _parameters(name: str, function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise InvalidWorker(name, f"it has no signature to read: {error}") from error
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise InvalidWorker(name, "it must take its args first, by position")
    return parameters


def _context(
    name: str,
    rest: list[inspect.Parameter],
    hints: dict[str, Any],
    *,
    second: inspect.Parameter | None,
) -> By | str:
    """Return how the context is taken: in the parameter with its annotation, or the one left over.

    Args:
        name: The worker's name for error messages.
        rest: Its parameters except for the args and the session.
        hints: Their annotations.
        second: The parameter after the args, which may take the context by position.
    """
    contexts = [
        parameter
        for parameter in rest
        if parameter.kind in _NAMED and _is_context(hints.get(parameter.name))
    ]
    contexts += [
        parameter
        for parameter in rest
        if parameter.kind in (*_NAMED, inspect.Parameter.POSITIONAL_ONLY)
        and parameter not in contexts
        and (parameter.default is parameter.empty or parameter.name in {"ctx", "context"})
        and (parameter.default is parameter.empty or parameter.name not in hints)
    ]
    if not contexts:
        return By.nothing
    if len(contexts) > 1:
        listed = " and ".join(repr(parameter.name) for parameter in contexts)
        problem = "it may have one parameter for the context, beside its args and its session"
        raise InvalidWorker(name, f"{problem}; it has {listed}")
    (context,) = contexts
    hint = hints.get(context.name)
    if isinstance(hint, type) and not _is_context(hint) and not _may_be_context(hint):
        problem = f"there is no value to pass for {context.name!r}: {hint.__name__}"
        raise InvalidWorker(
            name, f"{problem}; a worker takes its args and, optionally, a ctx: JobContext"
        )
    if context.kind in _POSITIONAL and context is second:
        return By.position
    if context.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise InvalidWorker(name, f"{context.name!r} cannot be passed by its name; put it second")
    return context.name


def _is_context(hint: Any) -> bool:
    if isinstance(hint, type):
        return issubclass(hint, JobContext)
    return any(map(_is_context, typing.get_args(hint)))


def _may_be_context(hint: type) -> bool:
    return getattr(hint, "_is_protocol", False) or issubclass(JobContext, hint)


def _may_be_args(hint: Any) -> bool:
    return isinstance(hint, type) or isinstance(typing.get_origin(hint), type)
