"""Random histories of sessions, compared with a model of which owned jobs are cancelled."""

from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from orm.histories import SessionHistory, of_async_sessions, run_history
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


class History(SessionHistory):
    """A session, and a model of its rows."""

    def __init__(self) -> None:
        super().__init__()
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

    def do(self, function: Callable[[Session], Any]) -> Any:
        def call(session: Session) -> Any:
            with session.no_autoflush:
                return function(session)

        return self.call(call)

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


def test_jobs_are_what_the_model_says(host: Engine, client: Client) -> None:
    """Whatever a session does, the jobs of the trips that it has deleted are cancelled."""
    run_history(History, host, client)


def test_the_same_of_an_async_session(
    host: Engine, host_url: str, mapped_schema: str, client: Client
) -> None:
    """The same is true of an AsyncSession on another driver."""
    with of_async_sessions(History, host_url, mapped_schema) as machine:
        run_history(machine, host, client)
