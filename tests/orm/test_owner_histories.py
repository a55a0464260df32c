"""Random histories of sessions, compared with a model of which owned jobs are cancelled."""

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from orm.owner_tables import Trip
from riverrun import Client, JobArgs, Ref
from riverrun.models import Job


@attrs.frozen
class Owned(JobArgs, kind="owned"):
    tag: int


@attrs.define
class Rows:
    """What the database holds.

    Attributes:
        trips: The keys of the trips.
        jobs: By tag, the key of the job's owner, and the job's state.
    """

    trips: frozenset[int] = frozenset()
    jobs: dict[int, tuple[int, str]] = attrs.field(factory=dict)

    def copy(self) -> "Rows":
        return Rows(self.trips, dict(self.jobs))


class History(RuleBasedStateMachine):
    """A session, and a model of its rows."""

    engine: Engine
    client: Client

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.execute(delete(Job))
        self.tags = 0
        self.committed = Rows()
        self.rows = Rows()
        self.before: list[Rows] = []  # the rows as each open savepoint began
        self.savepoints: list[Any] = []
        self.added: list[
            tuple[int, int]
        ] = []  # tags and owners of jobs that the next flush inserts
        self.deleted: set[int] = set()  # the keys of trips that the next flush deletes
        self.open()

    def open(self) -> None:
        self.session = Session(self.engine)

    def do(self, function: Callable[[Session], Any]) -> Any:
        def call(session: Session) -> Any:
            with session.no_autoflush:
                return function(session)

        return self.call(call)

    def call(self, function: Callable[[Session], Any]) -> Any:
        return function(self.session)

    def _flushed(self) -> None:
        for tag, owner in self.added:
            self.rows.jobs[tag] = (owner, "available")
        for tag, (owner, _) in self.rows.jobs.items():
            if owner in self.deleted:
                self.rows.jobs[tag] = (owner, "cancelled")
        self.rows.trips -= self.deleted
        self.added, self.deleted = [], set()

    def _forgotten(self, rows: Rows) -> None:
        self.rows = rows.copy()
        self.added, self.deleted = [], set()

    def _any(self, choice: int) -> int:
        trips = sorted(self.rows.trips)
        return trips[choice % len(trips)]

    def _tag(self) -> int:
        self.tags += 1
        return self.tags

    @rule()
    def make_a_trip(self) -> None:
        def make(session: Session) -> int:
            session.add(trip := Trip())
            session.flush()
            return trip.id

        key = self.do(make)
        self._flushed()
        self.rows.trips |= {key}

    @precondition(lambda self: self.rows.trips)
    @rule(choice=st.integers(0, 5))
    def insert(self, choice: int) -> None:
        key, tag = self._any(choice), self._tag()
        owner = Ref.by_key(Trip, key)
        self.do(lambda session: self.client.insert(session, Owned(tag), owner=owner))
        self.rows.jobs[tag] = (key, "available")

    @precondition(lambda self: self.rows.trips)
    @rule(choice=st.integers(0, 5))
    def add(self, choice: int) -> None:
        key, tag = self._any(choice), self._tag()
        self.do(lambda session: self.client.add(session, Owned(tag), owner=session.get(Trip, key)))
        self.added.append((tag, key))

    @precondition(lambda self: self.rows.trips)
    @rule(choice=st.integers(0, 5))
    def delete_a_trip(self, choice: int) -> None:
        key = self._any(choice)
        self.do(lambda session: session.delete(session.get_one(Trip, key)))
        self.deleted.add(key)

    @rule()
    def flush(self) -> None:
        self.do(lambda session: session.flush())
        self._flushed()

    @precondition(lambda self: len(self.savepoints) < 3)
    @rule()
    def begin_savepoint(self) -> None:
        self.savepoints.append(self.do(lambda session: session.begin_nested()))
        self._flushed()
        self.before.append(self.rows.copy())

    @precondition(lambda self: self.savepoints)
    @rule()
    def release_savepoint(self) -> None:
        savepoint = self.savepoints.pop()
        self.do(lambda _: savepoint.commit())
        self._flushed()
        self.before.pop()

    @precondition(lambda self: self.savepoints)
    @rule()
    def roll_back_savepoint(self) -> None:
        savepoint = self.savepoints.pop()
        self.do(lambda _: savepoint.rollback())
        self._forgotten(self.before.pop())

    @rule()
    def roll_back(self) -> None:
        self.do(lambda session: session.rollback())
        self._forgotten(self.committed)
        self.savepoints, self.before = [], []

    @rule()
    def commit(self) -> None:
        self.do(lambda session: session.commit())
        self._flushed()
        self.committed = self.rows.copy()
        self.savepoints, self.before = [], []
        with Session(self.engine) as other:
            rows = other.execute(select(Job.args["tag"].label("tag"), Job.state)).all()
            found = {row.tag: row.state for row in rows}
        assert found == {tag: state for tag, (_, state) in self.committed.jobs.items()}

    def teardown(self) -> None:
        self.session.close()


def _run(machine: type[History], engine: Engine, client: Client) -> None:
    made = type(machine.__name__, (machine,), {"engine": engine, "client": client})
    run_state_machine_as_test(
        made, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )


def test_jobs_are_what_the_model_says(host: Engine, client: Client) -> None:
    """Whatever a session does, the jobs of the trips that it has deleted are cancelled."""
    _run(History, host, client)


def test_the_same_of_an_async_session(
    host: Engine, host_url: str, mapped_schema: str, client: Client
) -> None:
    """The same is true of an AsyncSession on another driver."""
    loop = asyncio.new_event_loop()
    url = make_url(host_url).set(drivername="postgresql+asyncpg")
    url = url.set(query={"host": url.query["host"], "port": url.query["port"]})
    options = {"server_settings": {"search_path": f"{mapped_schema}"}}
    async_engine = create_async_engine(url, connect_args=options)

    class AsyncHistory(History):
        def open(self) -> None:
            self.asynchronous = AsyncSession(async_engine)

        def call(self, function: Callable[[Session], Any]) -> Any:
            return loop.run_until_complete(self.asynchronous.run_sync(function))

        def teardown(self) -> None:
            loop.run_until_complete(self.asynchronous.close())

    try:
        _run(AsyncHistory, host, client)
    finally:
        loop.run_until_complete(async_engine.dispose())
        loop.close()
