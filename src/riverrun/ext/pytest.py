"""The pytest plugin: fixtures on `riverrun.testing`; installed with riverrun, idle until asked.

`riverrun_jobs` is what tests use, `riverrun_async_jobs` what async ones do. They need a client:
pytest's setting `riverrun_client` names it as `module:attribute`, or a fixture of that name in
`conftest.py` returns it. An AsyncSession is the application's to make, as its event loop is: an
async fixture `riverrun_async_session` yields what `riverrun.testing.rolled_back_async` does.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from riverrun.cli.app import CommandError, load_client
from riverrun.client import Client
from riverrun.testing import AsyncJobs, Jobs, rolled_back


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let pytest's configuration name the client; `parser` is pytest's own."""
    parser.addini("riverrun_client", "the client of the tests, as module:attribute", default="")


@pytest.fixture(scope="session")
def riverrun_client(pytestconfig: pytest.Config) -> Client:
    """The client under test; override it, or name it in the setting `riverrun_client`."""
    named: str = pytestconfig.getini("riverrun_client")
    if not named:
        advice = "set it to module:attribute, or define a fixture of that name"
        raise pytest.UsageError(f"riverrun_client is not set in pytest's configuration; {advice}")
    try:
        return load_client(named)
    except CommandError as error:
        raise pytest.UsageError(f"riverrun_client: {error.message}") from error


@pytest.fixture
def riverrun_session(riverrun_client: Client) -> Iterator[Session]:
    """A Session whose commits are undone after the test; override it with the application's own."""
    with rolled_back(riverrun_client.engine) as session:
        yield session


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
