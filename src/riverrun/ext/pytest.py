"""The pytest plugin: fixtures made from `riverrun.testing`. It does nothing until a test uses one.

Tests use `riverrun_jobs`, async tests `riverrun_async_jobs`. Both need a client: name it in
pytest's setting `riverrun_client` as `module:attribute`, or define a fixture `riverrun_client` in
`conftest.py`. For a Flask or Pyramid application, define a fixture `riverrun_app` that returns it;
then everything that the application writes during a test is undone. Async tests define an async
fixture `riverrun_async_session` that yields `riverrun.testing.rolled_back_async(engine)`, because
the application chooses its AsyncEngine and event loop.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from riverrun.cli.app import CommandError, load_client
from riverrun.client.client import Client
from riverrun.testing import AsyncJobs, Jobs, rolled_back


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `riverrun_client` to pytest's configuration; `parser` is pytest's own."""
    parser.addini("riverrun_client", "the client of the tests, as module:attribute", default="")


def _scope(fixture_name: str, config: pytest.Config) -> str:
    """Return the scope of the client: the session if it is a module's, else one test."""
    del fixture_name
    return "session" if config.getini("riverrun_client") else "function"


@pytest.fixture
def riverrun_app() -> Any:
    """The application in Flask or Pyramid under test; override it to return yours."""
    return None


@pytest.fixture(scope=_scope)  # type: ignore[arg-type]  # the stub's type is narrower
def riverrun_client(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Client:
    """The client under test: that of pytest's setting, else the application's."""
    named: str = pytestconfig.getini("riverrun_client")
    if named:
        try:
            return load_client(named)
        except CommandError as error:
            raise pytest.UsageError(f"riverrun_client: {error.message}") from error
    state = _state_of(request.getfixturevalue("riverrun_app"))
    if state is None:
        advice = "set it to module:attribute, or define a fixture of that name, or riverrun_app"
        raise pytest.UsageError(f"riverrun_client is not set in pytest's configuration; {advice}")
    client: Client = state.client
    return client


@pytest.fixture
def riverrun_session(riverrun_client: Client, riverrun_app: Any) -> Iterator[Session]:
    """A Session whose commits, and those of `riverrun_app`, are undone after the test."""
    state = _state_of(riverrun_app)
    with rolled_back(riverrun_client.engine) if state is None else state.rolled_back() as session:
        yield session


def _state_of(app: Any) -> Any:
    """Return the state that `riverrun.ext.flask` or `riverrun.ext.pyramid` stores in `app`."""
    if app is None:
        return None
    states = getattr(app, "extensions", None) or getattr(app, "registry", app)
    state = states.get("riverrun") if hasattr(states, "get") else None
    if state is None:
        expected = "an application in Flask or Pyramid that has initialized riverrun"
        raise pytest.UsageError(f"riverrun_app is {app!r}; expected {expected}")
    return state


@pytest.fixture
def riverrun_jobs(riverrun_session: Any, riverrun_client: Client) -> Jobs:
    """Functions to find and work the jobs inserted in the test's transaction."""
    return Jobs(riverrun_session, riverrun_client)


@pytest.fixture
def riverrun_async_session() -> Any:
    """An AsyncSession; override it with the application's own."""
    advice = "define a fixture of that name, with riverrun.testing.rolled_back_async(engine)"
    raise pytest.UsageError(f"riverrun_async_session is not defined; {advice}")


@pytest.fixture
def riverrun_async_jobs(riverrun_async_session: Any, riverrun_client: Client) -> AsyncJobs:
    """Like `riverrun_jobs`, with coroutines, in the transaction of `riverrun_async_session`."""
    return AsyncJobs(riverrun_async_session, riverrun_client)
