"""Deleting the owner of jobs cancels those that wait, in the flush that deletes it."""

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import (
    Engine,
    create_engine,
    delete,
    event,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.schema import CreateSchema, DropSchema

from orm.owner_tables import Driver, Pass, Rider, Seat, Stop, Trip
from orm.tables import Order, Versioned
from riverrun import (
    Client,
    InsertOpts,
    JobArgs,
    JobState,
    OwnerBypassed,
    Ref,
    Workers,
)
from riverrun.errors import InvalidOption
from riverrun.models import Job
from riverrun.orm.owners import Owners
from riverrun.testing import rolled_back, work_one
from schemas import search_path_url
from waiting import DEADLINE_S


@attrs.frozen
class Remind(JobArgs, kind="remind_owner"):
    n: int = 0


@attrs.frozen
class RemindOf(JobArgs, kind="remind_of_trip"):
    trip: Ref[Trip]

    @property
    def insert_opts(self) -> InsertOpts:
        """The options of every insert: the trip owns its reminders."""
        return InsertOpts(owner=self.trip)


@pytest.fixture
def session(host: Engine) -> Iterator[Session]:
    """A session on the application's engine."""
    with Session(host) as session:
        yield session


@pytest.fixture
def states(host: Engine) -> Callable[[], list[str]]:
    """Return a function that reads the states of all committed jobs, in the order of their ids."""

    def read() -> list[str]:
        with Session(host) as other:
            return list(other.scalars(select(Job.state).order_by(Job.id)))

    return read


def _trip(session: Session, **values: Any) -> Trip:
    session.add(trip := Trip(**values))
    session.commit()
    return trip


def test_the_flush_that_deletes_cancels(session: Session, client: Client, states: Any) -> None:
    """Every waiting job of a deleted object is cancelled; its other jobs stay, as do others'."""
    trip, other = _trip(session), _trip(session)
    jobs = [
        client.insert(session, Remind(n), InsertOpts(owner=owner, **options)).job
        for n, (owner, options) in enumerate(
            [
                (trip, {}),
                (trip, {"delay": 60}),
                (Ref(trip), {"pending": True}),
                (Ref.by_key(Trip, trip.id), {}),
                (other, {}),
                (trip, {}),
            ]
        )
    ]
    session.execute(update(Job).where(Job.id == jobs[3].id).values(state=JobState.retryable))
    session.execute(
        update(Job)
        .where(Job.id == jobs[5].id)
        .values(state=JobState.running, attempted_at=text("now()"))
    )
    session.commit()
    loaded = session.get_one(Job, jobs[0].id)
    assert loaded.state == "available"
    session.delete(trip)
    session.flush()
    assert loaded.state == "cancelled"
    assert states()[0] == "available", "nothing is committed yet"
    session.commit()
    assert states() == ["cancelled"] * 4 + ["available", "running"]
    assert loaded.finalized_at is not None


@pytest.fixture
def tenants(host: Engine, mapped_schema: str) -> Iterator[tuple[Engine, Engine]]:
    """The application's engine for two tenants, each with the table of trips in a schema."""
    names = [f"{mapped_schema}_{letter}" for letter in "ab"]
    engines = [host.execution_options(schema_translate_map={None: name}) for name in names]
    for engine, name in zip(engines, names, strict=True):
        with engine.begin() as connection:
            connection.execute(CreateSchema(name))
            Trip.metadata.create_all(connection, [Trip.__table__, Stop.__table__])  # type: ignore[list-item]
    yield engines[0], engines[1]
    gc.collect()  # A client that is left would also look for owned jobs in the next test.
    with host.begin() as connection:
        for name in names:
            connection.execute(DropSchema(name, cascade=True))


def test_owners_of_tenants(tenants: tuple[Engine, Engine], mapped_schema: str, states: Any) -> None:
    """The object of one tenant does not own the jobs of another's object with the same key."""
    for engine in tenants:
        client = Client(engine, schema=mapped_schema)
        with Session(engine) as session:
            session.add(trip := Trip(id=7_000))
            client.insert(session, Remind(), InsertOpts(owner=trip))
            client.insert(session, Remind(), InsertOpts(owner=Ref(trip)))
            session.commit()
    with Session(tenants[1]) as session:
        session.delete(session.get_one(Trip, 7_000))
        session.commit()
    assert states() == ["available"] * 2 + ["cancelled"] * 2


def test_owner_in_another_schema_than_the_workers(
    tenants: tuple[Engine, Engine], host: Engine, mapped_schema: str, states: Any
) -> None:
    """Jobs of an object that the client's workers would look for elsewhere are refused.

    Deleting such an object does not cancel the jobs of the one that they would find.
    """
    client = Client(host, schema=mapped_schema)
    options: Any = tenants[0].get_execution_options()
    with Session(host) as session:
        session.add(trip := Trip(id=7_000))
        client.insert(session, Remind(), InsertOpts(owner=trip))
        session.commit()
    for bind, given in ((tenants[0], {}), (host, options)):
        with Session(bind) as session:
            session.connection(execution_options=given)
            session.add(trip := Trip(id=7_000))
            session.flush()
            with pytest.raises(InvalidOption, match=f"trips.* leads to {mapped_schema}_a.trips"):
                client.insert(session, Remind(), InsertOpts(owner=trip))
            session.delete(trip)
            session.commit()
    assert states() == ["available"]


def test_one_statement_for_a_flush(session: Session, client: Client, states: Any) -> None:
    """The jobs of all objects that a flush deletes are cancelled by one statement, by an index."""
    gc.collect()  # Clients that other tests have left cancel the jobs of their own schemas.
    trips = [_trip(session) for _ in range(20)]
    ticket = Pass()
    session.add(ticket)
    session.flush()
    client.insert_many(session, [(Remind(), InsertOpts(owner=trip)) for trip in trips])
    client.insert(session, Remind(), owner=ticket)
    session.commit()
    sent: list[str] = []
    plans: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, params: Any, *_: object) -> None:
        sent.append(statement)
        if "UPDATE river_job" in statement:
            with connection.connection.cursor() as own:
                own.execute("SET LOCAL enable_seqscan = off")  # the table is small here
                plans.extend(row[0] for row in own.execute(f"EXPLAIN {statement}", params))

    event.listen(session.get_bind(), "before_cursor_execute", record)
    with session.no_autoflush:
        for obj in (*trips, ticket):
            session.delete(obj)
    session.commit()
    assert sum("river_job" in statement for statement in sent) == 1
    assert any("river_job_metadata_index" in line for line in plans), plans
    assert states() == ["cancelled"] * 21
    sent.clear()
    _trip(session)
    session.execute(select(Trip)).all()
    session.commit()
    assert not any("river_job" in statement for statement in sent)


def test_savepoints_and_rollbacks(session: Session, client: Client, states: Any) -> None:
    """A deletion that is rolled back, alone or with its savepoint, cancels nothing."""
    trip, other = _trip(session), _trip(session)
    client.insert(session, Remind(), owner=trip)
    client.insert(session, Remind(), owner=other)
    session.commit()
    session.delete(trip)
    session.flush()
    session.rollback()
    session.commit()
    assert states() == ["available", "available"]
    with session.begin_nested() as savepoint:
        session.delete(trip)
        session.flush()
        savepoint.rollback()
    with session.begin_nested():
        session.delete(other)
    session.commit()
    assert states() == ["available", "cancelled"]


def test_a_flush_that_fails(session: Session, client: Client, states: Any) -> None:
    """What a failed flush would have deleted is not taken for deleted by the next flush."""
    trip, other = _trip(session), _trip(session)
    client.insert(session, Remind(), owner=trip)
    session.commit()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    event.listen(session, "after_flush", fail)
    session.delete(trip)
    with pytest.raises(ZeroDivisionError):
        session.flush()
    session.rollback()
    event.remove(session, "after_flush", fail)
    other.name = "paid"
    session.commit()
    assert states() == ["available"]


def test_added_jobs(session: Session, client: Client, states: Any) -> None:
    """An added job's owner gets its key with the flush, and may be deleted by it."""
    trip = Trip()
    session.add(trip)
    added = client.add(session, Remind(), owner=trip)
    session.commit()
    assert added.job is not None
    assert added.job.metadata["riverrun:owner"] == f"trips:{trip.id}"
    session.delete(trip)
    client.add(session, Remind(), owner=trip)
    session.commit()
    assert states() == ["cancelled", "cancelled"]
    again = _trip(session)
    first, second = (client.add(session, Remind(), owner=again, coalesce=True) for _ in range(2))
    third = client.add(session, Remind(), owner=_trip(session), coalesce=True)
    session.commit()
    assert first.job == second.job
    assert first.job != third.job


def test_the_first_owner_of_a_process(host_url: str) -> None:
    """The first job with an owner may be inserted by a flush, or within a listener of the host."""
    script = """
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session
from orm.owner_tables import Pass, Rider, Trip
from orm.test_owners import Remind
from riverrun import Client

engine = create_engine({url!r})
client = Client(engine)
with Session(engine) as session:
    trip, rider, other = Trip(), Rider(), Pass()
    session.add_all([trip, rider, other])
    added = client.add(session, Remind(), owner=trip)

    @event.listens_for(Trip, "after_delete")
    def insert(_mapper, connection, _trip):
        client.insert(connection, Remind(), owner=rider)

    session.commit()
    session.delete(trip)
    session.commit()
    assert client.get(engine, added.job.id).state == "cancelled"
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script.format(url=host_url)],
        check=True,
        cwd=Path(__file__).parents[1],
        timeout=DEADLINE_S,
    )


def test_options_of_the_args(session: Session, client: Client, states: Any) -> None:
    """The options of the args' class may name an owner, whichever way the job is inserted."""
    trip = _trip(session)
    client.insert(session, RemindOf(trip))  # type: ignore[arg-type]
    client.insert_many(session, [RemindOf(trip), RemindOf(trip)])  # type: ignore[arg-type]
    client.insert_many_fast(session, [RemindOf(trip)])  # type: ignore[arg-type]
    rows = select(Trip.id.label("n")).where(Trip.id == trip.id)
    client.insert_from(session, rows, Remind, owner=trip)
    pending = Trip()
    session.add(pending)
    client.add(session, RemindOf(trip=pending))  # type: ignore[arg-type]
    session.commit()
    for each in (trip, pending):
        session.delete(each)
    session.commit()
    assert states() == ["cancelled"] * 6


def test_subclasses_orphans_and_row_switches(session: Session, client: Client, states: Any) -> None:
    """Objects of subclasses and orphans count; a row that a new object takes over is not deleted.

    The owner may be given by a reference to any class of its hierarchy.
    """
    driver, trip = Driver(), Trip(stops=[Stop(n=1), Stop(n=2)])
    session.add_all([driver, trip])
    session.flush()
    client.insert(session, Remind(1), owner=Ref.by_key(Rider, driver.id))
    client.insert(session, Remind(2), owner=trip.stops[0])
    client.insert(session, Remind(3), owner=trip.stops[1])
    session.commit()
    session.delete(driver)
    trip.stops.pop(0)
    session.commit()
    assert states() == ["cancelled", "cancelled", "available"]
    session.delete(trip.stops[0])
    session.add(Stop(trip_id=trip.id, n=2))
    session.commit()
    assert states() == ["cancelled", "cancelled", "available"]


def test_bulk_deletes_warn_once(session: Session, client: Client) -> None:
    """A bulk delete that the ORM sees warns once for a class, and other statements do not."""
    session.add(seat := Seat())
    session.flush()
    client.insert(session, Remind(), owner=seat)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnerBypassed)
        session.execute(delete(Order))
        session.execute(update(Seat).values(id=7))
        session.delete(session.get_one(Seat, 7))
        session.flush()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OwnerBypassed)
        session.execute(delete(Seat).where(Seat.id == 0))
        session.query(Seat).filter(Seat.id == 0).delete()
        session.execute(delete(Seat.__table__).where(Seat.id == 0))
    (warning,) = caught
    assert warning.category is OwnerBypassed
    assert "class Seat" in str(warning.message)


@pytest.mark.parametrize("how", ["bulk", "elsewhere", "retried"])
def test_no_attempt_without_the_owner(host: Engine, how: str) -> None:
    """However an owner was deleted, no worker is called for its jobs any more."""
    called: list[int] = []
    workers = Workers()

    @workers.register
    def remind(args: Remind, session: Session) -> None:
        called.append(args.n)

    client = Client(host, workers=workers)
    with Session(host) as session:
        trip, kept = _trip(session), _trip(session)
        job = client.insert(session, Remind(1), owner=trip, unless_changed=None).job
        other = client.insert(session, Remind(2), owner=kept).job
        session.commit()
        if how == "retried":
            session.delete(trip)
            client.cancel(session, job.id)
            session.flush()
            client.retry(session, job.id)
        elif how == "bulk":
            session.connection().execute(delete(Trip).where(Trip.id == trip.id))
        else:
            # As in a process that has inserted no job with such an owner.
            client._inserter._owners = Owners(client._inserter, schema=None, schemas={})
            with Session(host) as elsewhere:
                elsewhere.connection().execute(delete(Trip).where(Trip.id == trip.id))
                elsewhere.commit()
        session.commit()
    worked = work_one(host, client, job, reraise=False)
    assert (worked.state, called) == ("cancelled", [])
    assert "is gone" in str(worked.error)
    assert work_one(host, client, other).state == "completed"
    assert called == [2]


@pytest.mark.parametrize("make", [Driver, lambda: Trip(stops=[Stop(n=1)])])
def test_owners_of_each_mapping_are_found(host: Engine, make: Callable[[], Any]) -> None:
    """A job is worked while its owner is there, whatever its class's mapping and key."""
    workers = Workers()

    @workers.register
    def remind(args: Remind) -> None: ...

    client = Client(host, workers=workers)
    with Session(host) as session:
        made = make()
        session.add(made)
        session.flush()
        owner = made.stops[0] if isinstance(made, Trip) else made
        job = client.insert(session, Remind(), owner=owner).job
        session.commit()
        assert work_one(host, client, job).state == "completed"
        job = client.insert(session, Remind(), owner=owner).job
        session.connection().execute(delete(inspect(type(owner)).local_table))
        session.commit()
    assert work_one(host, client, job, reraise=False).state == "cancelled"


def test_an_owner_that_must_not_change(session: Session, client: Client) -> None:
    """An owner and an object that must be unchanged may be two objects."""
    trip, versioned = _trip(session), Versioned()
    session.add(versioned)
    session.flush()
    job = client.insert(session, Remind(), owner=trip, unless_changed=versioned).job
    assert [need["key"] for need in job.metadata["riverrun:unless_changed"]] == [
        versioned.id,
        trip.id,
    ]


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        (7, "owner is 7; expected a mapped object, or a Ref to one"),
        (Trip, "expected a mapped object"),
        (Trip(), "in no session"),
    ],
)
def test_what_is_no_owner(session: Session, client: Client, owner: Any, message: str) -> None:
    """What is not mapped, or is in no session, cannot be an owner, and the error says so."""
    with pytest.raises(InvalidOption, match=message):
        client.insert(session, Remind(), owner=owner)

    def add() -> None:
        client.add(session, Remind(), owner=owner)
        session.commit()

    with pytest.raises(InvalidOption, match=message):
        add()
    session.rollback()
    trip = Trip()
    session.add(trip)
    with pytest.raises(InvalidOption, match="did you flush"):
        client.insert(session, Remind(), owner=trip)


def test_sessions_on_other_databases(client: Client, session: Session, states: Any) -> None:
    """A deletion in another database, even one without River's tables, cancels nothing."""
    trip = _trip(session)
    client.insert(session, Remind(), owner=trip)
    session.commit()
    engine = create_engine("sqlite://")
    Trip.__table__.create(engine)  # type: ignore[attr-defined]
    Stop.__table__.create(engine)  # type: ignore[attr-defined]
    with Session(engine) as elsewhere:
        elsewhere.add(same := Trip(id=trip.id))
        elsewhere.commit()
        elsewhere.delete(same)
        elsewhere.commit()
    engine.dispose()
    assert states() == ["available"]


def test_sessions_that_do_not_find_the_jobs(
    client: Client, session: Session, host_url: str, states: Any
) -> None:
    """A deletion on another search path, where River's tables are not found, does not fail."""
    trip = _trip(session)
    client.insert(session, Remind(), owner=trip)
    session.commit()
    engine = create_engine(search_path_url(host_url, "pg_temp"))
    with engine.begin() as connection, Session(connection) as elsewhere:
        tables: Any = [Trip.__table__, Stop.__table__]
        Trip.metadata.create_all(connection, tables, checkfirst=False)
        elsewhere.add(same := Trip(id=trip.id))
        elsewhere.flush()
        elsewhere.delete(same)
        elsewhere.flush()
    engine.dispose()
    assert states() == ["available"]


@pytest.mark.parametrize("way", ["a schema", "another engine", "a scoped session", "a test"])
def test_ways_to_the_jobs(host: Engine, host_url: str, mapped_schema: str, way: str) -> None:
    """Jobs in a schema of their own are cancelled, and by sessions of any kind and engine."""
    client = Client(host, schema=mapped_schema if way == "a schema" else None)
    other = create_engine(host_url)
    session: Any = scoped_session(sessionmaker(other)) if "scoped" in way else Session(host)
    with ExitStack() as stack:
        if way == "a test":
            session = stack.enter_context(rolled_back(host))
        trip = _trip(session)
        job = client.insert(session, Remind(), owner=trip).job
        session.commit()
        if way == "another engine":
            key = trip.id
            session.close()
            session = Session(other)
            trip = session.get_one(Trip, key)
        session.delete(trip)
        session.commit()
        assert client.get(session, job.id).state == "cancelled"
    session.close()
    other.dispose()


def test_async_sessions(host_url: str, mapped_schema: str, client: Client, states: Any) -> None:
    """An AsyncSession's deletes cancel, too, with either async driver."""

    async def run(url: Any, **options: Any) -> None:
        engine = create_async_engine(url, **options)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(trip := Trip())
            await session.flush()
            await client.insert_async(session, Remind(), owner=trip)
            client.add(session, Remind(), owner=trip)
            await session.commit()
            await session.delete(trip)
            await session.commit()
        await engine.dispose()

    asyncio.run(run(host_url))
    url = make_url(host_url)
    query = {"host": url.query["host"], "port": url.query["port"]}
    url = url.set(drivername="postgresql+asyncpg", query=query)
    settings = {"server_settings": {"search_path": f"{mapped_schema}"}}
    asyncio.run(run(url, connect_args=settings))
    assert states() == ["cancelled"] * 4
