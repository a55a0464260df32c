"""Random histories of a session, run on sessions of both sorts."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from sqlalchemy import Engine, delete, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from riverrun import Client
from riverrun.models import Job


class SessionHistory(RuleBasedStateMachine):
    """A session without jobs. A subclass adds the rules, and calls `open` for a new session."""

    engine: Engine
    client: Client

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.execute(delete(Job))

    def open(self) -> None:
        """Make the session."""
        self.session = Session(self.engine)

    def call(self, function: Callable[[Session], Any]) -> Any:
        """Call `function` with the session."""
        return function(self.session)

    def teardown(self) -> None:
        """Close the session."""
        self.session.close()


def run_history(machine: type[SessionHistory], engine: Engine, client: Client) -> None:
    """Run random histories."""
    named = type(machine.__name__, (machine,), {"engine": engine, "client": client})
    run_state_machine_as_test(
        named, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )


@contextmanager
def of_async_sessions(
    machine: type[SessionHistory], host_url: str, schema: object
) -> Iterator[type[SessionHistory]]:
    """Yield the machine with an AsyncSession on another driver."""
    loop = asyncio.new_event_loop()
    url = make_url(host_url).set(drivername="postgresql+asyncpg")
    url = url.set(query={"host": url.query["host"], "port": url.query["port"]})
    options = {"server_settings": {"search_path": f"{schema}"}}
    async_engine = create_async_engine(url, connect_args=options)

    class AsyncHistory(machine):  # type: ignore[misc,valid-type]
        def open(self) -> None:
            self.asynchronous = AsyncSession(async_engine)

        def call(self, function: Callable[[Session], Any]) -> Any:
            return loop.run_until_complete(self.asynchronous.run_sync(function))

        def teardown(self) -> None:
            loop.run_until_complete(self.asynchronous.close())

    try:
        yield AsyncHistory
    finally:
        loop.run_until_complete(async_engine.dispose())
        loop.close()
