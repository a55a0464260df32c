"""Added jobs are inserted by the flush that inserts their objects, and rolled back with them."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, registry, scoped_session, sessionmaker

from orm.tables import Boss, Line, Order, Parcel, Person, Ticket, Token
from riverrun import AddedJob, Client, InsertOpts, JobArgs, JobRow, Plugin, Ref, UniqueOpts, Workers
from riverrun.errors import InvalidArgs, InvalidOption, NotATransaction, UnknownKind
from riverrun.models import Base as RiverBase
from riverrun.models import Job


@attrs.frozen
class Send(JobArgs, kind="send_added"):
    order: Ref[Order]
    copy_to: Ref[Person] | None = None
    lines: list[Ref[Line]] = attrs.Factory(list)


@attrs.frozen
class Note(JobArgs, kind="note_added"):
    text: str = ""


class Model(JobArgs, BaseModel, kind="model_added"):
    order: Ref[Order]
    n: int = 0


@attrs.frozen
class Once(JobArgs, kind="once_added", insert_opts=InsertOpts(coalesce=True)):
    text: str = ""


@pytest.fixture
def session(host: Engine) -> Iterator[Session]:
    """A session on the application's engine."""
    with Session(host) as session:
        yield session


@pytest.fixture
def statements(host: Engine) -> list[str]:
    """The statements that are executed on the application's engine."""
    executed: list[str] = []
    event.listen(host, "before_cursor_execute", lambda *args: executed.append(args[2]))
    return executed


@pytest.fixture
def committed(host: Engine) -> Callable[[], list[Any]]:
    """Return a function that reads the args of all committed jobs, in order."""

    def read() -> list[Any]:
        with Session(host) as other:
            return list(other.scalars(select(Job.args).order_by(Job.id)))

    return read


def _inserts(statements: list[str]) -> list[str]:
    return [each for each in statements if each.startswith("INSERT INTO river_job")]


def test_without_a_flush(
    session: Session, client: Client, committed: Any, statements: list[str]
) -> None:
    """A job whose object has no key yet is inserted by the commit that inserts the object."""
    order = Order()
    session.add(order)
    added = client.add(session, Send(order=order))
    assert not statements
    assert added.job is None
    session.commit()
    assert committed() == [{"order": order.id, "copy_to": None, "lines": []}]
    assert added.job is not None
    assert added.job.kind == "send_added"
    assert str(added.job.id) in repr(added)


def test_keys_of_each_kind(session: Session, client: Client, committed: Any) -> None:
    """A job's args have its object's key: composite, inherited, made by server or client."""

    @attrs.frozen
    class All(JobArgs, kind="all_keys"):
        line: Ref[Line]
        ticket: Ref[Ticket]
        token: Ref[Token]
        boss: Ref[Person]
        parcel: Ref[Parcel]

    order, ticket, token, boss, parcel = Order(), Ticket(), Token(), Boss(), Parcel()
    line = Line(order=order, n=2)
    session.add_all([line, ticket, token, boss, parcel])
    client.add(session, All(line, ticket, token, boss, parcel))  # type: ignore[arg-type]
    session.commit()
    assert committed() == [
        {
            "line": [order.id, 2],
            "ticket": str(ticket.id),
            "token": str(token.id),
            "boss": boss.id,
            "parcel": parcel.id,
        }
    ]


def test_a_key_that_the_flush_changes(session: Session, client: Client, committed: Any) -> None:
    """A job's args have the key that the flush writes, if an object was given another."""

    @attrs.frozen
    class Of(JobArgs, kind="of_token"):
        token: Ref[Token]

    token = Token()
    session.add(token)
    session.commit()
    token.id = uuid.uuid4()
    client.add(session, Of(Ref(token)))
    with pytest.raises(InvalidOption, match="was changed"):
        client.insert(session, Of(Ref.by_key(Token, uuid.uuid4())), owner=token)
    session.commit()
    assert committed() == [{"token": str(token.id)}]


def test_copies_of_a_session_s_objects(
    session: Session, client: Client, host: Engine, committed: Any
) -> None:
    """Whoever merges all objects of a session into another does not insert its jobs twice."""
    client.add(session, Note("once"))
    with Session(host) as other:
        for each in list(session.new):
            assert repr(other.merge(each))
        other.commit()
    session.commit()
    assert committed() == [{"text": "once"}]
    client.add(session, Note("again"))
    session.flush()
    with Session(host) as other:
        for each in list(session):
            assert repr(other.merge(each))
        other.commit()
    session.commit()
    assert committed() == [{"text": "once"}, {"text": "again"}]


def test_a_session_after_its_commit(session: Session, client: Client, committed: Any) -> None:
    """After the commit a session has the application's objects alone, and any may be refreshed."""
    order = Order(status="new")
    session.add(order)
    first = client.add(session, Send(order))
    with session.begin_nested():
        second = client.add(session, Note("in a savepoint"))
    session.commit()
    assert [*session] == [order]
    for each in session:
        session.refresh(each)
    third = client.add(session, Note("later"))
    session.commit()
    assert [*session] == [order]
    session.rollback()
    assert [first.job, second.job, third.job].count(None) == 0
    assert len(committed()) == 3


def test_one_statement_for_a_flush(
    session: Session, client: Client, host: Engine, statements: list[str]
) -> None:
    """All jobs of a flush are inserted by one statement, without an additional flush."""
    flushes: list[object] = []
    event.listen(session, "after_flush", lambda *args: flushes.append(args))
    for n in range(10):
        session.add(order := Order())
        client.add(session, Send(order))
        client.add(session, Note(str(n)))
    client.add(session, Model(order=order))
    session.commit()
    assert len(_inserts(statements)) == 1
    assert len(flushes) == 1
    with Session(host) as other:
        assert other.query(Job).count() == 21


def test_a_session_that_adds_nothing(session: Session, host: Engine, statements: list[str]) -> None:
    """A session without added jobs executes no additional statement and keeps no state."""
    Client(host, notify="off").add(session, Note())  # an announcer would execute, too
    session.commit()
    statements.clear()
    with Session(session.bind) as other:
        other.add(Order())
        other.commit()
    assert len(statements) == 1
    assert not [name for name in other.__dict__ if "riverrun" in name]


def test_nothing_else_to_flush(session: Session, client: Client, committed: Any) -> None:
    """A transaction with nothing else to flush still inserts its jobs before it commits."""
    client.add(session, Note("a"))
    session.commit()
    with session.begin():
        client.add(session, Note("b"))
    assert [each["text"] for each in committed()] == ["a", "b"]


def test_what_a_flush_or_a_query_shows(session: Session, client: Client) -> None:
    """A flush inserts the jobs added before it, and so does a query's autoflush."""
    added = client.add(session, Note("a"))
    session.flush()
    assert added.job is not None
    client.add(session, Note("b"))
    assert session.query(Job).count() == 2
    with session.no_autoflush:
        client.add(session, Note("c"))
        assert session.query(Job).count() == 2


def test_rollbacks(session: Session, client: Client, committed: Any) -> None:
    """A rollback or a close takes added jobs back, whether or not they were flushed."""
    for end in (session.rollback, session.close, session.expunge_all):
        added = client.add(session, Note("a"))
        end()
        session.commit()
        assert added.job is None
    added = client.add(session, Note("a"))
    session.flush()
    assert added.job is not None
    session.rollback()
    assert added.job is None
    session.commit()
    assert committed() == []
    for end in (session.close, session.expunge_all):
        added = client.add(session, Note("a"))
        session.flush()
        end()
        session.rollback()
        assert added.job is None
    added = client.add(session, Note("a"))
    session.flush()
    session.expunge_all()
    session.commit()
    session.close()
    assert added.job is not None


def test_savepoints(session: Session, client: Client, committed: Any) -> None:
    """Rolling back a savepoint removes its jobs; jobs added before it or released stay."""
    before = client.add(session, Note("before"))
    savepoint = session.begin_nested()
    gone = client.add(session, Note("gone"))
    session.flush()
    assert gone.job is not None
    savepoint.rollback()
    assert gone.job is None
    savepoint = session.begin_nested()
    client.add(session, Note("unflushed"))
    savepoint.rollback()
    with session.begin_nested():
        with session.begin_nested():
            client.add(session, Note("released"))
        inner = session.begin_nested()
        client.add(session, Note("inner"))
        inner.rollback()
    client.add(session, Note("after"))
    session.commit()
    assert [each["text"] for each in committed()] == ["before", "released", "after"]
    assert before.job is not None


def test_an_outer_rollback_takes_back_what_was_released(session: Session, client: Client) -> None:
    """A job of a released savepoint is rolled back with the transaction around it."""
    with session.begin_nested():
        added = client.add(session, Note("a"))
    assert added.job is not None
    session.rollback()
    assert added.job is None


def test_a_flush_that_fails(session: Session, client: Client, committed: Any) -> None:
    """A failed flush leaves no job behind; in a savepoint, only that savepoint's jobs are lost."""
    session.add(Order(id=900_001))
    session.commit()
    session.expunge_all()
    client.add(session, Note("before"))
    savepoint = session.begin_nested()
    session.add(Order(id=900_001))
    inner = client.add(session, Note("inner"))
    with pytest.raises(IntegrityError), savepoint:
        session.flush()
    assert inner.job is None
    session.commit()
    assert [each["text"] for each in committed()] == ["before"]
    session.add(order := Order(id=900_001))
    client.add(session, Send(order))
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    session.commit()
    assert len(committed()) == 1


@pytest.mark.filterwarnings("ignore:The `objects` parameter of `Session.flush`")
def test_a_partial_flush(session: Session, client: Client, committed: Any) -> None:
    """A flush of selected objects leaves the jobs to the next flush of the whole session."""
    one, other = Order(), Order()
    session.add_all([one, other])
    added = client.add(session, Send(other))
    session.flush([one])
    assert added.job is None
    session.commit()
    assert added.job is not None
    assert committed()[0]["order"] == other.id


def test_objects_that_left(session: Session, client: Client, committed: Any) -> None:
    """The error names an object that left its session, by an expunge or a merge."""
    session.add(order := Order())
    client.add(session, Send(order))
    session.expunge(order)
    with pytest.raises(InvalidArgs, match="an Order that is in no session"):
        session.commit()
    session.rollback()
    assert committed() == []
    order = Order(id=900_002)
    merged = session.merge(order)
    with pytest.raises(InvalidArgs, match="an Order that is in no session"):
        client.add(session, Send(order))
    client.add(session, Send(merged))
    session.commit()
    assert committed()[0]["order"] == 900_002


def test_what_is_refused_at_once(session: Session, client: Client, host: Engine) -> None:
    """Args that no flush can make valid are refused by add, and the session stays usable."""
    session.add(order := Order())
    with Session(host) as other, other.no_autoflush:
        other.add(elsewhere := Order())
        for args, problem in [
            (Send(Order()), "an Order that is in no session"),
            (Send(Token()), "expected one to an Order"),  # type: ignore[arg-type]
            (Send(elsewhere), "did you flush"),
            (Note(5), r"\$.text is 5; expected str"),  # type: ignore[arg-type]
            (Model(order=Order()), "an Order that is in no session"),
        ]:
            with pytest.raises(InvalidArgs, match=problem):
                client.add(session, args)
    with pytest.raises(InvalidOption, match="opts"):
        client.add(session, Note(), {"queue": "mail"})  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="args"):
        client.add(session, order)  # type: ignore[arg-type]
    workers = Workers()

    @workers.register
    def send(args: Send) -> None: ...

    with pytest.raises(UnknownKind):
        Client(host, workers=workers).add(session, Note())
    with host.connect() as connection:
        for given in (host, connection, "session", None):
            with pytest.raises(NotATransaction):
                client.add(given, Note())  # type: ignore[arg-type]
    assert client.add(session, Send(order)).job is None
    session.commit()


def test_a_model_with_errors(session: Session, client: Client) -> None:
    """Args that wait for a flush but are invalid for another reason are refused by that flush."""

    @attrs.frozen
    class Bad(JobArgs, kind="bad_added"):
        order: Ref[Order]
        n: int

    session.add(order := Order())
    client.add(session, Bad(order, "x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgs, match=r"\$.n is 'x'"):
        session.flush()


def test_autobegin(host: Engine, client: Client) -> None:
    """Like session.add, add raises in a session that has not begun and has autobegin off."""
    with Session(host, autobegin=False) as session:
        with pytest.raises(InvalidRequestError):
            client.add(session, Note())
        with session.begin():
            added = client.add(session, Note())
        assert added.job is not None


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("where", ["instance", "maker", "class", "class first"])
@pytest.mark.parametrize(
    "name", ["before_commit", "before_flush", "after_flush", "after_flush_postexec"]
)
def test_within_the_hosts_listeners(
    name: str, where: str, clean: bool, host: Engine, client: Client, committed: Any
) -> None:
    """The first job of a session may be added within any of the application's listeners."""
    maker = sessionmaker(host)
    session = maker()
    target = {"instance": session, "maker": maker, "class": Session, "class first": Session}[where]
    done: list[Order] = []

    def add(given: Session, *_: object) -> None:
        if given is session and not done:
            done.append(order := Order())
            given.add(order)
            client.add(given, Send(order))
            client.add(given, Note(name))

    event.listen(target, name, add, insert=where == "class first")
    try:
        if not clean or name != "before_commit":
            session.add(Order())
        session.commit()
        (order,) = done
        assert [each.get("order") for each in committed()] == [order.id, None]
    finally:
        event.remove(target, name, add)
        session.close()


@pytest.mark.parametrize("name", ["before_insert", "after_insert"])
def test_within_a_mappers_events(
    name: str, session: Session, client: Client, committed: Any
) -> None:
    """A job that is added within a flush is inserted by it, whatever is rolled back later."""

    def add(_mapper: object, _connection: object, order: Order) -> None:
        client.add(session, Send(order))  # type: ignore[arg-type]

    event.listen(Order, name, add)
    try:
        session.add(order := Order())
        session.flush()
        session.rollback()
        session.add(order := Order())
        with suppress(KeyError), session.begin_nested():
            session.add(Order())
            session.flush()
            raise KeyError
        session.commit()
        assert [each["order"] for each in committed()] == [order.id]
    finally:
        event.remove(Order, name, add)


def test_a_listener_that_raises(session: Session, client: Client, committed: Any) -> None:
    """A before_flush listener that raises once delays the job, and does not duplicate it."""

    def fail(*_: object) -> None:
        event.remove(session, "before_flush", fail)
        raise RuntimeError("once")

    event.listen(session, "before_flush", fail)
    session.add(order := Order())
    client.add(session, Send(order))
    with pytest.raises(RuntimeError):
        session.commit()
    session.commit()
    assert len(committed()) == 1


def test_an_orphan_alone(session: Session, client: Client, committed: Any) -> None:
    """A flush with nothing but a pending orphan inserts the jobs, too."""
    session.add(order := Order())
    session.flush()
    line = Line(n=1)
    order.lines.append(line)
    order.lines.remove(line)
    client.add(session, Send(order))
    session.commit()
    assert len(committed()) == 1


def test_coalescing(session: Session, client: Client, committed: Any) -> None:
    """With coalescing, equal args and options in one transaction make one job."""
    session.add(order := Order())
    jobs = [client.add(session, Send(order), coalesce=True) for _ in range(3)]
    other = client.add(session, Send(order), coalesce=True, queue="mail")
    plain = client.add(session, Send(order))
    session.flush()
    jobs.append(client.add(session, Send(Ref(order)), InsertOpts(coalesce=True)))
    by_class = [client.add(session, Once("a")) for _ in range(2)]
    apart = client.add(session, Once("a"), coalesce=False)
    session.flush()
    assert len({job.job.id for job in jobs if job.job}) == 1
    assert all(job.job for job in [*jobs, *by_class])
    savepoint = session.begin_nested()
    inner = [client.add(session, Once("b")) for _ in range(2)]
    savepoint.rollback()
    assert inner[0].job is None
    outer = client.add(session, Once("b"))
    session.commit()
    assert outer.job is not None
    assert other.job is not None
    assert plain.job is not None
    assert apart.job is not None
    assert len(committed()) == 6
    client.add(session, Once("b"))
    session.commit()
    assert len(committed()) == 7, "another transaction has a job of its own"


def test_unique_jobs(session: Session, client: Client) -> None:
    """The result of a duplicate unique job is marked as such and has the job that exists."""
    session.add(order := Order())
    jobs = [client.add(session, Send(order), unique=UniqueOpts(by_args=True)) for _ in range(2)]
    session.commit()
    first, second = (job.result for job in jobs)
    assert first is not None
    assert second is not None
    assert second.skipped_as_duplicate
    assert second.job.id == first.job.id


def test_plugins_and_two_clients(host: Engine, session: Session, client: Client) -> None:
    """Each client inserts its own added jobs, with its own plugins and options."""
    seen: list[int] = []

    class Counting(Plugin):
        def insert_many(self, drafts: Any, call_next: Any) -> Any:
            seen.append(len(drafts))
            return call_next()

    other = Client(host, plugins=[Counting()], max_attempts=3)
    session.add(order := Order())
    client.add(session, Send(order))
    added = [other.add(session, Send(order)), other.add(session, Note())]
    session.commit()
    assert seen == [2]
    assert [job.job and job.job.max_attempts for job in added] == [3, 3]


def test_sessions_of_other_kinds(host: Engine, client: Client, committed: Any) -> None:
    """Scoped sessions, two-phase sessions and sessions in an outer transaction all work."""
    scoped = scoped_session(sessionmaker(host))
    scoped.add(order := Order())
    client.add(scoped, Send(order))
    scoped.commit()
    scoped.remove()
    with Session(host, twophase=True) as session:
        client.add(session, Note("two phases"))
        session.prepare()
        session.commit()
    with host.connect() as connection, connection.begin() as transaction:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            client.add(session, Note("gone"))
            session.rollback()
            joined = client.add(session, Note("joined"))
            session.commit()
        assert joined.job is not None
        transaction.commit()
    assert [each.get("text") for each in committed()] == [None, "two phases", "joined"]


def test_binds(host: Engine, client: Client, committed: Any) -> None:
    """A session with several databases inserts jobs into theirs, and refuses foreign objects."""
    sqlite = create_engine("sqlite://")
    Order.__table__.create(sqlite)  # type: ignore[attr-defined]
    begun: list[object] = []
    event.listen(sqlite, "begin", lambda *args: begun.append(args))
    for binds in ({RiverBase: host}, {Job: host}):
        for bind in (None, sqlite):
            with Session(bind, binds=binds) as session:  # type: ignore[arg-type]
                client.add(session, Note("a"))
                session.commit()
    assert len(committed()) == 4
    assert not begun, "a transaction was begun for nothing"
    with Session(sqlite, binds={RiverBase: host}) as session:
        session.add(order := Order())
        client.add(session, Send(order))
        with pytest.raises(InvalidArgs, match=r"refer to an Order of .*sqlite"):
            session.commit()
    assert len(committed()) == 4
    sqlite.dispose()


def test_what_a_host_sees(session: Session, client: Client) -> None:
    """An added job in session.new has a telling repr, and its attributes can be read."""
    client.add(session, Note("a"))
    (marker,) = session.new
    assert repr(marker).startswith("<riverrun's AddedJobs: <AddedJob Note(text='a'), not inserted")
    assert marker.__tablename__ == "riverrun_added"
    assert marker.id
    session.commit()
    assert not session.new
    assert not session.dirty


def test_a_host_that_reads_the_table_of_every_object(
    host: Engine, client: Client, committed: Any
) -> None:
    """Sessions that choose a database, and listeners that audit, by an object's table work."""
    audited: list[str] = []

    class Routed(Session):
        """Chooses by what the application has written into the table or its metadata."""

        def get_bind(self, mapper: Any = None, **_: Any) -> Engine:  # type: ignore[override]
            """Return the engine."""
            table = mapper.local_table
            names = table.info.get("bind"), table.metadata.info.get("bind"), table.schema
            assert names == (None, None, None)
            return host

    with Routed() as session:

        def audit(*_: object) -> None:
            audited.extend(each.__table__.fullname for each in session.new)

        event.listen(session, "before_flush", audit)
        client.add(session, Note("a"))
        session.commit()
    assert [each["text"] for each in committed()] == ["a"]
    assert audited == ["riverrun_added"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_sessions(
    driver: str, host_url: str, mapped_schema: str, client: Client, committed: Any
) -> None:
    """Jobs are added to an AsyncSession without await."""
    from sqlalchemy import make_url

    url, options = make_url(host_url).set(drivername=f"postgresql+{driver}"), {}
    if driver == "asyncpg":
        url = url.set(query={"host": url.query["host"], "port": url.query["port"]})
        options = {"connect_args": {"server_settings": {"search_path": f"{mapped_schema}"}}}

    async def run() -> None:
        engine = create_async_engine(url, **options)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(order := Order())
            added = client.add(session, Send(order))
            nested = await session.begin_nested()
            gone = client.add(session, Note("gone"))
            await session.flush()
            await nested.rollback()
            await session.commit()
            assert added.job is not None
            assert gone.job is None
        scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        client.add(scoped, Note("scoped"))
        await scoped.commit()
        await scoped.remove()
        await engine.dispose()

    asyncio.run(run())
    assert [each.get("text") for each in committed()] == [None, "scoped"]


def test_expired_and_detached_objects(
    session: Session, client: Client, statements: list[str], committed: Any
) -> None:
    """A reference to an expired object executes no statement; a detached one keeps its key."""
    session.add_all([order := Order(), other := Order()])
    session.commit()
    key = other.id
    session.commit()
    session.expunge(other)
    statements.clear()
    client.add(session, Send(order))
    client.add(session, Send(other))
    session.commit()
    assert len(statements) == 1
    assert committed()[1]["order"] == key


def test_a_key_that_changes(session: Session, client: Client, committed: Any) -> None:
    """If a key changes between add and flush, the job has the key that was flushed."""
    session.add(order := Order())
    session.flush()
    client.add(session, Send(order))
    order.id = 900_010
    session.commit()
    assert committed()[0]["order"] == 900_010


def test_the_announcement(host: Engine, client: Client) -> None:
    """A running client is notified of added jobs when they are committed."""
    workers, done = Workers(), []
    from threading import Event

    worked = Event()

    @workers.register
    def note(args: Note) -> None:
        done.append(args.text)
        worked.set()

    working = Client(host, workers=workers, queues=["default"], poll_interval=600)
    with working, Session(host) as session:
        working.add(session, Note("more"))
        session.commit()
        assert worked.wait(20), "the job was not worked"
    assert done == ["more"]


def test_imperative_and_local_bases(session: Session, client: Client) -> None:
    """The class that keeps added jobs is in none of the application's registries and metadata."""
    names = {mapper.class_.__name__ for mapper in RiverBase.registry.mappers}
    assert "AddedJobs" not in names
    assert "riverrun_added" not in RiverBase.metadata.tables
    assert registry().metadata.tables == {}
    assert isinstance(client.add(session, Note()), AddedJob)
    row: JobRow | None = client.add(session, Note()).job
    assert row is None
    session.execute(text("SELECT 1"))
