"""Finds the parameter of a worker that takes a session, and refuses what cannot work."""

import inspect
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from riverrun.errors import InvalidWorker

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

_ADVICE = "annotate it with Session, or AsyncSession in an async def"


@attrs.frozen
class SessionParameter:
    """A parameter that takes a session whose commit completes the job.

    Attributes:
        name: The parameter's name.
        wanted: Its annotation: Session, AsyncSession, or a subclass of one.
    """

    name: str
    wanted: type[Any]


def session_parameter(
    worker: str,
    parameters: Sequence[inspect.Parameter],
    hints: Mapping[str, Any],
    *,
    is_async: bool,
) -> SessionParameter | None:
    """Return the parameter of a worker that takes a session; None if there is none.

    Args:
        worker: The worker's name for error messages.
        parameters: All its parameters.
        hints: Their annotations, by name.
        is_async: Whether the worker is an `async def`.

    Raises:
        InvalidWorker: If the worker takes a session in a way that is not supported.
    """
    found = []
    for parameter in parameters:
        hint = hints.get(parameter.name)
        if _is_given(parameter.default):
            continue  # a partial or a default provides one of the application's own
        if parameter.name not in hints and parameter.name == "session":
            if parameter.default is parameter.empty and parameter.kind in _NAMED:
                raise InvalidWorker(worker, f"'session' has no annotation; {_ADVICE}")
            continue
        if not _names_session(hint):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        found.append(_checked(worker, parameter, hint, first=parameter is parameters[0]))
    if not found:
        return None
    if len(found) > 1:
        listed = " and ".join(repr(parameter.name) for parameter in found)
        problem = f"{listed} each ask for a session; an attempt has one, whose commit completes it"
        raise InvalidWorker(worker, problem)
    (session,) = found
    awaited = not issubclass(session.wanted, Session)
    if awaited and not is_async:
        problem = f"{session.name!r} is an AsyncSession, which only an async def can await"
        raise InvalidWorker(worker, f"{problem}; annotate it with Session")
    if is_async and not awaited:
        problem = f"{session.name!r} is a Session, whose statements would stop the event loop"
        raise InvalidWorker(worker, f"{problem}; annotate it with AsyncSession")
    return session


def _checked(
    worker: str, parameter: inspect.Parameter, hint: Any, *, first: bool
) -> SessionParameter:
    name = repr(parameter.name)
    if first:
        problem = "its args come first, then its session: def worker(args: Args, session: Session)"
        raise InvalidWorker(worker, problem)
    if not isinstance(hint, type) or not issubclass(hint, _sessions()):
        shown = hint.__name__ if isinstance(hint, type) else str(hint)
        problem = f"{name} is annotated with {shown}, and always gets a session of one class"
        raise InvalidWorker(worker, f"{problem}; {_ADVICE}, or a subclass of one")
    if parameter.kind not in _NAMED:
        problem = f"{name} cannot be passed by its name; remove the / after it"
        raise InvalidWorker(worker, problem)
    return SessionParameter(parameter.name, hint)


def _is_given(default: object) -> bool:
    return isinstance(default, (*_sessions(), *_registries()))


def _names_session(hint: Any) -> bool:
    if isinstance(hint, type):
        return issubclass(hint, (*_sessions(), *_registries()))
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, _registries()):
        return True
    return any(map(_names_session, typing.get_args(hint)))


def _sessions() -> tuple[type[Any], ...]:
    module = _asyncio()
    return (Session,) if module is None else (Session, module.AsyncSession)


def _registries() -> tuple[type[Any], ...]:
    module = _asyncio()
    own = (scoped_session, sessionmaker)
    if module is None:
        return own
    return (*own, module.async_scoped_session, module.async_sessionmaker)


def _asyncio() -> Any:
    # Not imported here: it needs greenlet. If it is not imported, no annotation names its classes.
    return sys.modules.get("sqlalchemy.ext.asyncio")
