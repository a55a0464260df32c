"""The pytest plugin: fixtures on `riverrun.testing`; installed with riverrun, idle until asked.

`riverrun_jobs` is what tests use, `riverrun_async_jobs` what async ones do. They need a client:
pytest's setting `riverrun_client` names it as `module:attribute`, or a fixture of that name in
`conftest.py` returns it. Of an application in Flask or Pyramid the fixture `riverrun_app` returns
the application; then all that it writes during the test is undone. An AsyncSession is the
application's to make, as its event loop is: an async fixture `riverrun_async_session` yields what
`riverrun.testing.rolled_back_async` does.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from riverrun.cli.app import CommandError, load_client
from riverrun.client.client import Client
from riverrun.testing import AsyncJobs, Jobs, rolled_back


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let pytest's configuration name the client; `parser` is pytest's own."""
    parser.addini("riverrun_client", "the client of the tests, as module:attribute", default="")


def _scope(fixture_name: str, config: pytest.Config) -> str:
    """Return how long the client lives: as long as the application, if that has it."""
    del fixture_name
    return "session" if config.getini("riverrun_client") else "function"


@pytest.fixture
def riverrun_app() -> Any:
    """The application in Flask or Pyramid under test; override it to return yours."""
    return None


@pytest.fixture(scope=_scope)  # type: ignore[arg-type]  # its type knows fewer strings
def riverrun_client(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Client:
    """The client under test: the application's, or that of the setting; or override it."""
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
    """Return what `riverrun.ext.flask` or `riverrun.ext.pyramid` keeps with an application."""
    if app is None:
        return None
    kept = getattr(app, "extensions", None) or getattr(app, "registry", app)
    state = kept.get("riverrun") if hasattr(kept, "get") else None
    if state is None:
        expected = "an application in Flask or Pyramid that has initialized riverrun"
        raise pytest.UsageError(f"riverrun_app is {app!r}; expected {expected}")
    return state


@pytest.fixture
def riverrun_jobs(riverrun_session: Any, riverrun_client: Client) -> Jobs:
    """What was inserted in the test's transaction, and ways to work it there."""
    return Jobs(riverrun_session, riverrun_client)


@pytest.fixture
def riverrun_async_session() -> Any:
    """An AsyncSession; override it with the application's own."""
    advice = "define a fixture of that name, with riverrun.testing.rolled_back_async(engine)"
    raise pytest.UsageError(f"riverrun_async_session is not there; {advice}")


@pytest.fixture
def riverrun_async_jobs(riverrun_async_session: Any, riverrun_client: Client) -> AsyncJobs:
    """As `riverrun_jobs`, awaited, in the transaction of `riverrun_async_session`."""
    return AsyncJobs(riverrun_async_session, riverrun_client)
