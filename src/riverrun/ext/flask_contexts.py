"""Workers of the Flask extension run within an app context, in this process or another."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import cache
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Protocol

import attrs
import click
from flask import Flask, appcontext_tearing_down
from flask.cli import ScriptInfo

from riverrun.errors import ClientNotReady
from riverrun.execution.context import JobContext
from riverrun.execution.plugins import InProcess, Plugin
from riverrun.testing.host_sessions import Binds, binds_of

PREFIX = "RIVERRUN_"
"""The beginning of the names of the extension's settings."""


@attrs.frozen
class MadeBy:
    """How a worker process makes the application again: the way the command `flask` does.

    Attributes:
        path: The value of `flask --app`; None if `flask` finds `wsgi.py` or `app.py` by itself.
        create_app: The factory of an application that has a command of its own.
    """

    path: str | None
    create_app: Callable[[], Flask] | None = None


class State(Protocol):
    """What the workers need to know of an application.

    Attributes:
        app: The application.
        made_by: How a worker process makes it again.
    """

    app: Flask
    made_by: MadeBy

    def sessions_within(self, binds: Binds | None) -> AbstractContextManager[None]:
        """Have the application's sessions join a test's connection within the block."""
        ...


class AppContexts(Plugin):
    """Calls each worker within an app context, whose teardown removes the job's session."""

    def __init__(self, state: State) -> None:
        self._state = state

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        """Call a worker."""
        with self._sessions(ctx), self._state.app.app_context():
            call_next()

    async def work_async(self, ctx: JobContext, call_next: Callable[[], Awaitable[object]]) -> None:
        """Call an `async def` worker."""
        app = self._state.app
        with self._sessions(ctx):
            if any(iscoroutinefunction(function) for function in app.teardown_appcontext_funcs):
                own = _torn_down_here(app, call_next)
                await asyncio.get_running_loop().create_task(own, context=copy_context())
                return
            with app.app_context():
                await call_next()

    def in_process(self) -> InProcess:
        """Return what calls a worker in a process of its own.

        Raises:
            ClientNotReady: If a process cannot import what makes the application.
        """
        made_by = self._state.made_by
        try:
            pickle.dumps(made_by)
        except Exception:  # whatever the application's own functions raise when they are pickled
            problem = "a worker's process cannot import what makes the application"
            advice = f"set {PREFIX}FLASK_APP as for `flask --app`, such as 'shop:create_app()'"
            raise ClientNotReady(f"{problem}; {advice}") from None
        return _InAppContext(made_by)

    @contextmanager
    def _sessions(self, ctx: JobContext) -> Iterator[None]:
        if not ctx.in_test:
            yield
            return
        test = ctx.test_connection
        with self._state.sessions_within(None if test is None else binds_of(test)):
            yield


class _InAppContext:
    """Calls a worker in a worker process, within an app context of the application made there."""

    def __init__(self, made_by: MadeBy) -> None:
        self._made_by = made_by

    def __call__(self, call_next: Callable[[], object]) -> object:
        with _app_of(self._made_by).app_context():
            return call_next()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Runs in the worker process, before the attempt's time begins: making it may take long.
        self.__dict__.update(state)
        _app_of(self._made_by)


@cache
def _app_of(made_by: MadeBy) -> Flask:
    try:
        return ScriptInfo(made_by.path, made_by.create_app).load_app()
    except click.ClickException as error:
        problem = f"a worker's process cannot make the application: {error.format_message()}"
        advice = f"set {PREFIX}FLASK_APP as for `flask --app`, such as 'shop:create_app()'"
        raise ClientNotReady(f"{problem}; {advice}") from None


async def _torn_down_here(app: Flask, call_next: Callable[[], Awaitable[object]]) -> None:
    """Call within an app context, and await its `async def` teardown functions in this loop.

    Flask would run them in an event loop of their own, and refuses to while a loop runs. But what
    they close, such as an AsyncSession, belongs to this loop. The caller runs this in a task of its
    own, because the app context is never popped.
    """
    app.app_context().push()
    error: BaseException | None = None
    try:
        await call_next()
    except BaseException as raised:
        error = raised
        raise
    finally:
        for function in reversed(app.teardown_appcontext_funcs):
            result: Any = function(error)
            if isawaitable(result):
                await result
        appcontext_tearing_down.send(app, _async_wrapper=app.ensure_sync, exc=error)
