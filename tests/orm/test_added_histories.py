"""Random histories of sessions, compared with a model of which jobs must exist."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis.stateful import invariant, precondition, rule
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orm.histories import SessionHistory, of_async_sessions, run_history
from orm.tables import Order
from riverrun import AddedJob, Client, JobArgs, Ref
from riverrun.errors import InvalidArgs
from riverrun.models import Job

TAKEN = 800_001
"""The key of an order that exists already."""


@attrs.frozen
class Tagged(JobArgs, kind="tagged"):
    tag: int
    order: Ref[Order] | None = None


class History(SessionHistory):
    """A session, and a model of what its transaction and savepoints have inserted."""

    def __init__(self) -> None:
        super().__init__()
        self.added: dict[int, AddedJob] = {}
        self.committed: set[int] = set()
        self.levels: list[set[int]] = [set()]  # the transaction's, then its open savepoints'
        self.pending: set[int] = set()
        self.detached: set[int] = set()
        self.savepoints: list[Any] = []
        self.lost: Order | None = None  # an order that was expunged while its job was pending
        self.open()

    def _add(self, order: Order | None = None) -> None:
        tag = len(self.added)
        args = Tagged(tag, order)  # type: ignore[arg-type]
        self.added[tag] = self.call(lambda session: self.client.add(session, args))
        self.pending.add(tag)

    def _flushed(self, flush: Callable[[Session], Any]) -> Any:
        """Call a function that flushes; it must fail if an order has left its session."""
        if self.lost is None:
            result = self.call(flush)
            self.levels[-1] |= self.pending
            self.pending = set()
            return result
        with pytest.raises(InvalidArgs, match="in no session"):
            self.call(flush)
        self._failed()
        return None

    def _failed(self) -> None:
        """Roll back after a flush that failed."""
        if self.savepoints:
            self.roll_back_savepoint()
        else:
            self.roll_back()

    @rule()
    def add(self) -> None:
        self._add()

    @rule()
    def add_with_its_object(self) -> None:
        order = Order()
        self.call(lambda session: session.add(order))
        self._add(order)

    @precondition(lambda self: self.lost is None)
    @rule()
    def add_of_a_merged_object(self) -> None:
        def merge(session: Session) -> Order:
            with session.no_autoflush:
                return session.merge(Order(id=TAKEN, status="merged"))

        self._add(self.call(merge))

    @precondition(lambda self: self.lost is None)
    @rule()
    def expunge(self) -> None:
        self.lost = Order()
        self.call(lambda session: session.add(self.lost))
        self._add(self.lost)
        self.call(lambda session: session.expunge(self.lost))

    @rule()
    def flush(self) -> None:
        self._flushed(lambda session: session.flush())

    @rule()
    def query(self) -> None:
        if self.lost is not None:
            return
        found = self._flushed(lambda session: set(session.scalars(select(Job.args["tag"]))))
        assert found == self.committed.union(*self.levels)

    @rule()
    def insert_in_bulk(self) -> None:
        self.call(lambda session: session.bulk_save_objects([Order()]))

    @precondition(lambda self: len(self.savepoints) < 3)
    @rule()
    def begin_savepoint(self) -> None:
        savepoint = self._flushed(lambda session: session.begin_nested())
        if savepoint is not None:
            self.savepoints.append(savepoint)
            self.levels.append(set())

    @precondition(lambda self: self.savepoints and self.lost is None)
    @rule()
    def release_savepoint(self) -> None:
        self._flushed(lambda _: self.savepoints[-1].commit())
        self.savepoints.pop()
        released = self.levels.pop()
        self.levels[-1] |= released

    @precondition(lambda self: self.savepoints)
    @rule()
    def roll_back_savepoint(self) -> None:
        savepoint = self.savepoints.pop()
        self.call(lambda _: savepoint.rollback())
        self.levels.pop()
        self.pending, self.lost = set(), None

    @precondition(lambda self: self.lost is None)
    @rule()
    def fail_to_flush(self) -> None:
        def fail(session: Session) -> None:
            session.add(Order(id=TAKEN))
            session.flush()

        self.expunge_all()
        self._add()
        with pytest.raises(IntegrityError):
            self.call(fail)
        self._failed()

    @rule()
    def expunge_all(self) -> None:
        self.call(lambda session: session.expunge_all())
        self.pending, self.lost = set(), None
        self.detached.update(*self.levels)

    @rule()
    def roll_back(self) -> None:
        self.call(lambda session: session.rollback())
        self._begin_anew()

    @rule()
    def close(self) -> None:
        self.call(lambda session: session.close())
        self._begin_anew()

    @precondition(lambda self: self.lost is None)
    @rule()
    def commit(self) -> None:
        self._flushed(lambda session: session.commit())
        self.committed = self.committed.union(*self.levels)
        self._begin_anew()
        with Session(self.engine) as other:
            assert set(other.scalars(select(Job.args["tag"]))) == self.committed

    def _begin_anew(self) -> None:
        self.levels, self.savepoints = [set()], []
        self.pending, self.lost = set(), None

    @invariant()
    def handles_know(self) -> None:
        """A handle has its job exactly as long as the job exists."""
        inserted = {tag for tag, job in self.added.items() if job.job is not None}
        there = self.committed.union(*self.levels)
        assert inserted <= there, "a handle has a job that was rolled back"
        # A job that was expunged after its flush is known again once it is committed.
        assert inserted >= there - (self.detached - self.committed)


def test_jobs_are_what_the_model_says(host: Engine, client: Client) -> None:
    """Whatever is done with a session, its jobs are those that were not rolled back."""
    _take(host)
    run_history(History, host, client)


def test_the_same_of_an_async_session(
    host: Engine, host_url: str, mapped_schema: str, client: Client
) -> None:
    """The same is true of an AsyncSession on another driver."""
    _take(host)
    with of_async_sessions(History, host_url, mapped_schema) as machine:
        run_history(machine, host, client)


def _take(host: Engine) -> None:
    with Session(host) as session, session.begin():
        session.merge(Order(id=TAKEN))
