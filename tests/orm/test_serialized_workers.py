"""Workers serialized by an object: one job at a time works on it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, ForeignKey, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from orm.worker_tables import host_engine
from riverrun import Client, IfGone, InsertOpts, JobArgs, JobContext, ObjectGone, RawArgs, Workers
from riverrun.errors import InvalidWorker
from riverrun.events import JobCompleted, JobDeferred, JobEvent, JobFailed
from riverrun.orm.refs import Ref
from riverrun.testing import rolled_back, work_one
from waiting import DEADLINE_S, until


class Base(DeclarativeBase):
    """The base of the application's models."""


class Party(Base):
    """A class with a subclass that has a table of its own."""

    __tablename__ = "party"
    id: Mapped[int] = mapped_column(primary_key=True)
    sort: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "sort", "polymorphic_identity": "party"}  # noqa: RUF012


class Company(Party):
    """A subclass with a table of its own."""

    __tablename__ = "company"
    id: Mapped[int] = mapped_column(ForeignKey("party.id"), primary_key=True)
    total: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "company"}  # noqa: RUF012


class Line(Base):
    """A class that refers to a party."""

    __tablename__ = "party_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    party_id: Mapped[int] = mapped_column(ForeignKey("party.id"))
    n: Mapped[int]


@attrs.frozen
class Count(JobArgs, kind="count"):
    company: Ref[Company]
    number: int = 0
    other: Ref[Party] | None = None
    many: list[Ref[Party]] = attrs.field(factory=list)


@attrs.frozen
class CountAsync(JobArgs, kind="count_async"):
    party: Ref[Party] | None
    number: int = 0


@pytest.fixture
def host(database_url: str, schema: str) -> Iterator[Engine]:
    """The application's engine, with two companies."""
    for engine in host_engine(database_url, schema):
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all([Company(id=1), Company(id=2)])
        yield engine


def company(number: int) -> "Ref[Company]":
    """Return a reference to a company."""
    return Ref.by_key(Company, number)


class Alone:
    """Checks that only one job at a time works on an object."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.here = 0
        self.most = 0
        self.order: list[int] = []

    def enter(self, number: int) -> None:
        """Record that a job has begun."""
        with self.lock:
            self.here += 1
            self.most = max(self.most, self.here)
            self.order.append(number)

    def leave(self) -> None:
        """Record that a job ends. Its lock is still held."""
        with self.lock:
            self.here -= 1


def counting(alone: Alone) -> Workers:
    """Return a sync and an async worker that each read a company and then change it."""
    workers = Workers()

    def count(session: Session, key: Any, number: int) -> None:
        alone.enter(number)
        found = session.get_one(Company, key)
        total = found.total
        session.execute(text("SELECT pg_sleep(0.01)"))
        session.add(Line(party_id=1, n=number))
        found.total = total + 1
        session.flush()
        alone.leave()

    @workers.register(serialize_by="company")
    def one(args: Count, session: Session) -> None:
        count(session, args.company.key, args.number)

    @workers.register(serialize_by="party")
    async def other(args: CountAsync, session: AsyncSession) -> None:
        assert args.party is not None
        await session.run_sync(count, args.party.key, args.number)

    return workers


def test_one_at_a_time(host: Engine) -> None:
    """Two clients with sync and async workers work one object's jobs one at a time.

    Waiting spends no attempt, and a waiting job does not wait for the poller.
    """
    alone = Alone()
    jobs: list[Any] = [Count(company(1), number) for number in range(8)]
    jobs += [CountAsync(Ref.by_key(Party, 1), number) for number in range(8, 16)]
    with ExitStack() as stack:
        clients = [Client(host, workers=counting(alone), queues={"default": 4}) for _ in range(2)]
        events = [client.subscribe(JobCompleted, JobFailed) for client in clients]
        results = clients[0].insert_many(host, [(job, InsertOpts(max_attempts=1)) for job in jobs])
        for client in clients:
            stack.enter_context(client)
        ids = [result.job.id for result in results]
        until(
            lambda: all(clients[0].get(host, job_id).finalized_at for job_id in ids),
            "every job is completed",
            DEADLINE_S,
        )
    assert events
    rows = [clients[0].get(host, job_id) for job_id in ids]
    assert {(row.state, row.attempt, row.errors) for row in rows} == {("completed", 1, ())}
    assert (alone.most, sorted(alone.order)) == (1, list(range(16)))
    assert all(row.metadata.get("riverrun:waits_for") is None for row in rows)
    with Session(host) as session:
        assert session.get_one(Company, 1).total == 16


def test_a_locked_row(host: Engine) -> None:
    """While an object's row is locked, its job's worker is not called.

    Neither a foreign key's lock on the row nor a lock on another row delays the job.
    """
    called: list[Any] = []
    workers = Workers()

    @workers.register(serialize_by="company")
    def one(args: Count, session: Session) -> None:
        called.append(args.company.get_one(session).id)

    client = Client(host, workers=workers, queues={"default": 2})
    events = client.subscribe(JobEvent)
    with client, Session(host) as other:
        other.execute(text("SELECT 1 FROM party WHERE id = 1 FOR NO KEY UPDATE"))
        first = client.insert(host, Count(company(1))).job
        deferred = events.get(timeout=DEADLINE_S)
        assert (type(deferred), deferred.job.id) == (JobDeferred, first.id)
        row = client.get(host, first.id)
        assert (row.errors, called) == ((), [])
        client.insert(host, Count(company(2)))
        while type(ended := events.get(timeout=DEADLINE_S)) is not JobCompleted:
            assert type(ended) is JobDeferred
        assert called == [2]
        other.rollback()
        while type(ended := events.get(timeout=DEADLINE_S)) is not JobCompleted:
            assert type(ended) is JobDeferred
        assert (ended.job.id, ended.job.attempt) == (first.id, 1)
        other.add(Line(party_id=1, n=1))
        other.flush()
        client.insert(host, Count(company(1)))
        assert type(events.get(timeout=DEADLINE_S)) is JobCompleted


@pytest.mark.parametrize(
    ("policy", "state"),
    [("cancel", "cancelled"), ("fail", "available"), ("discard", "discarded")],
)
@pytest.mark.parametrize("args", [Count(company(3)), CountAsync(Ref.by_key(Party, 3))])
def test_a_row_that_is_gone(host: Engine, policy: IfGone, state: str, args: Any) -> None:
    """If the object's row is gone, `if_gone` decides about the job, and no worker is called."""
    called: list[Any] = []
    workers = Workers()

    @workers.register(serialize_by="company", if_gone=policy)
    def one(args: Count, session: Session) -> None:
        called.append(args)

    @workers.register(serialize_by="party", if_gone=policy)
    async def other(args: CountAsync, session: AsyncSession) -> None:
        called.append(args)

    client = Client(host, workers=workers)
    worked = work_one(host, client, args, reraise=False)
    assert (worked.state, type(worked.error), called) == (state, ObjectGone, [])
    assert worked.job.metadata.get("riverrun:waits_for") is None


def test_the_lock_outlives_a_rollback(host: Engine) -> None:
    """A worker that rolls back, closes or commits its session still works alone on its object."""
    workers = Workers()

    @workers.register(serialize_by="company")
    def one(args: Count, session: Session) -> None:
        for act in (session.rollback, session.commit, session.rollback, session.close):
            act()
            with Session(host) as other:
                skipping = text("SELECT id FROM party WHERE id = 1 FOR NO KEY UPDATE SKIP LOCKED")
                assert other.scalar(skipping) is None, act

    with rolled_back(host) as session:
        assert work_one(session, Client(host, workers=workers), Count(company(1))).error is None


def test_the_application_s_own_locks_are_as_ever(host: Engine) -> None:
    """The locking statement does not replace the application's own in SQLAlchemy's cache."""
    sent: list[str] = []
    event.listen(host, "before_cursor_execute", lambda *args: sent.append(args[2]))
    workers = Workers()

    @workers.register(serialize_by="company")
    def one(args: Count, session: Session) -> None:
        party = Base.metadata.tables["party"]
        locked = select(party.c.id).where(party.c.id == 1).with_for_update(skip_locked=True)
        session.execute(locked)
        session.execute(locked.with_for_update(skip_locked=True, key_share=True))

    client = Client(host, workers=workers)
    for _ in range(2):
        sent.clear()
        with rolled_back(host) as session:
            work_one(session, client, Count(company(1)))
        locks = [each.partition(" FOR ")[2] for each in sent if "FROM party" in each]
        assert locks[:2] == ["NO KEY UPDATE SKIP LOCKED", "UPDATE SKIP LOCKED"]


def test_the_oldest_that_waits_is_next(host: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a job ends, the oldest job that waits for its object is claimed at once."""
    monkeypatch.setattr("riverrun.outcome.WAIT_S", 5.0)  # long enough to change scheduled_at
    order: list[int] = []
    begun, go_on = threading.Event(), threading.Event()
    workers = Workers()

    @workers.register(serialize_by="company")
    def one(args: Count, session: Session) -> None:
        order.append(args.number)
        begun.set()
        assert go_on.wait(DEADLINE_S)

    client = Client(host, workers=workers, queues={"default": 4}, poll_interval=3600)
    events = client.subscribe(JobEvent)
    with client:
        client.insert(host, Count(company(1), 0))
        assert begun.wait(DEADLINE_S)
        for number in (1, 2, 3):
            job = client.insert(host, Count(company(1), number)).job
            assert type(events.get(timeout=DEADLINE_S)) is JobDeferred
            with host.begin() as connection:  # far from due: only the job before wakes it
                later = "UPDATE river_job SET scheduled_at = now() + interval '1 h' WHERE id = :id"
                connection.execute(text(later), {"id": job.id})
        go_on.set()
        ended = [events.get(timeout=DEADLINE_S) for _ in range(4)]
    assert ([type(each) for each in ended], order) == ([JobCompleted] * 4, [0, 1, 2, 3])


def test_a_long_line_is_tried_seldom(host: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more jobs wait for an object, the later each of them is tried again."""
    monkeypatch.setattr("riverrun.outcome.TRIES_PER_S", 0.001)
    workers = Workers()

    @workers.register(serialize_by="company")
    def one(args: Count, session: Session) -> None:
        """Take a session."""

    client = Client(host, workers=workers, queues={"default": 4})
    events = client.subscribe(JobDeferred)
    with host.begin() as connection, client:
        connection.execute(text("SELECT FROM party WHERE id = 1 FOR UPDATE"))
        client.insert(host, Count(company(1), 0))
        events.get(timeout=DEADLINE_S)
        second = client.insert(host, Count(company(1), 1)).job
        left = text("SELECT scheduled_at - clock_timestamp() FROM river_job WHERE id = :id")

        def left_s() -> float:
            left_for: timedelta = connection.execute(left, {"id": second.id}).scalar_one()
            return left_for.total_seconds()

        # Not at once, if the first one was just being tried, too, and so was not counted.
        until(lambda: left_s() > 600, "the second is deferred for long")
        assert left_s() <= 1_000


@pytest.mark.parametrize(
    ("make", "options", "problem"),
    [
        (lambda args, ctx: None, {}, "annotated with Session"),
        (lambda args, session: None, {"serialize_by": "number"}, "field of its args that is a Ref"),
        (lambda args, session: None, {"serialize_by": "many"}, "'company', 'other'"),
        (lambda args, session: None, {"serialize_by": "nothing"}, "'nothing'"),
    ],
)
def test_what_cannot_serialize_is_refused(
    make: Callable[..., None], options: dict[str, Any], problem: str
) -> None:
    """A worker without a session, and a field that is not a reference, are refused by name."""

    def session_worker(args: Count, session: Session) -> None:
        """Take a session."""

    def context_worker(args: Count, ctx: JobContext) -> None:
        """Take no session."""

    worker: Callable[..., None] = session_worker if options else context_worker
    with pytest.raises(InvalidWorker, match=problem):
        Workers().register(**{"serialize_by": "company", **options})(worker)


def test_raw_args_have_no_references() -> None:
    """A worker of RawArgs cannot be serialized by an object."""

    def work(args: RawArgs, session: Session) -> None:
        """Take a session."""

    with pytest.raises(InvalidWorker, match="those are: none"):
        Workers().register(kind="raw", serialize_by="company")(work)
