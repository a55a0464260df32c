"""Jobs that are worked only if an object is still as it was when they were inserted."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import attrs
import pytest
from sqlalchemy import DateTime, Engine, ForeignKey, NullPool, Numeric, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from orm.worker_tables import Account, Entry, host_engine_with_account
from riverrun import Client, InsertOpts, JobArgs, Workers, verbs
from riverrun.errors import InvalidOption, JobSuperseded
from riverrun.events import JobCancelled, JobCompleted, JobEvent, JobFailed
from riverrun.testing import rolled_back, rolled_back_async, work_one, work_one_async
from waiting import DEADLINE_S


class Own(DeclarativeBase):
    """The base of classes that inherit from each other."""


class Doc(Own):
    """A class with a version."""

    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    kind: Mapped[str]
    __mapper_args__: ClassVar = {
        "version_id_col": version,
        "polymorphic_on": "kind",
        "polymorphic_identity": "doc",
    }


class Letter(Doc):
    """A subclass with a table of its own, whose version is in its base class's table."""

    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(ForeignKey(Doc.id), primary_key=True)
    text: Mapped[str] = mapped_column(default="")
    __mapper_args__: ClassVar = {"polymorphic_identity": "letter"}


class Timed(Own):
    """A class whose version is the time of its last change."""

    __tablename__ = "timed_docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    changed: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    text: Mapped[str] = mapped_column(default="")
    __mapper_args__: ClassVar = {
        "version_id_col": changed,
        "version_id_generator": lambda _: datetime.now(UTC),
    }


class Counted(Own):
    """A class whose version is a decimal number, to which the column adds zeros."""

    __tablename__ = "counted_docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    text: Mapped[str] = mapped_column(default="")
    __mapper_args__: ClassVar = {
        "version_id_col": count,
        "version_id_generator": lambda count: (count or 0) + Decimal(1),
    }


@attrs.frozen
class Plain(JobArgs, kind="plain"):
    pass


@attrs.frozen
class PlainAsync(JobArgs, kind="plain_async"):
    pass


@attrs.frozen
class InSession(JobArgs, kind="in_session"):
    pass


@attrs.frozen
class InAsyncSession(JobArgs, kind="in_async_session"):
    pass


EACH = (Plain, PlainAsync, InSession, InAsyncSession)


@pytest.fixture
def host(database_url: str, schema: str) -> Iterator[Engine]:
    """The application's engine, with one account."""
    yield from host_engine_with_account(database_url, schema)


@pytest.fixture
def called() -> list[str]:
    """The kinds whose workers were called, in order."""
    return []


@pytest.fixture
def client(host: Engine, called: list[str]) -> Client:
    """A client with a worker of each kind."""
    workers = Workers()

    @workers.register
    def plain(args: Plain) -> None:
        called.append(args.kind)

    @workers.register
    async def plain_async(args: PlainAsync) -> None:
        called.append(args.kind)

    @workers.register
    def in_session(args: InSession, session: Session) -> None:
        called.append(args.kind)

    @workers.register
    async def in_async_session(args: InAsyncSession, session: AsyncSession) -> None:
        called.append(args.kind)

    return Client(host, workers=workers, queues={"default": 1})


def insert(session: Session, client: Client) -> None:
    """Insert a job of each kind that requires the account to be unchanged."""
    account = session.get_one(Account, 1)
    opts = InsertOpts(unless_changed=account, metadata={"own": 1})
    client.insert_many(session, [(args(), opts) for args in EACH])


@pytest.mark.parametrize("change", ["none", "by the ORM", "gone"])
def test_worked_only_while_unchanged(
    host: Engine, client: Client, called: list[str], change: str
) -> None:
    """A job whose object has changed is cancelled as superseded, without calling its worker."""
    with Session(host) as session, session.begin():
        insert(session, client)
    with Session(host) as session, session.begin():
        account = session.get_one(Account, 1)
        if change == "by the ORM":
            account.total += 1
        elif change == "gone":
            session.delete(account)
    events = client.subscribe(JobEvent)
    with client:
        ended = [events.get(timeout=DEADLINE_S) for _ in EACH]
    if change == "none":
        assert {type(each) for each in ended} == {JobCompleted}
        assert sorted(called) == sorted(args.kind for args in EACH)
        assert ended[0].job.metadata["own"] == 1
        return
    assert {type(each) for each in ended} == {JobCancelled}
    assert {type(each.error) for each in ended} == {JobSuperseded}
    assert called == []
    row = client.get(host, ended[0].job.id)
    problem = "is gone" if change == "gone" else "has version 2, and the job is of version 1"
    assert (row.state, problem in row.errors[0]["error"]) == ("cancelled", True)


def test_the_version_of_a_subclass(host: Engine, client: Client, called: list[str]) -> None:
    """Of an object of a joined subclass its own version counts, and no other object's."""
    Own.metadata.create_all(host)
    with Session(host) as session:
        first, letter = Letter(), Letter()
        session.add_all([first, letter])
        session.flush()
        same = client.insert(session, Plain(), unless_changed=letter).job
        session.commit()
        first.text = "changed"
        session.commit()
        assert work_one(host, client, same).state == "completed"
        changed = client.insert(session, Plain(), unless_changed=letter).job
        letter.text = "changed"
        session.commit()
        worked = work_one(host, client, changed)
        assert (worked.state, called) == ("cancelled", ["plain"])
        assert "has version 2" in str(worked.error)


@pytest.mark.parametrize("cls", [Timed, Counted])
def test_versions_of_other_types(
    host: Engine, client: Client, called: list[str], cls: type[Any]
) -> None:
    """A version is the same whatever the time zone, and before and after it is stored."""
    Own.metadata.create_all(host)
    zone = host.url.update_query_dict({"options": f"{host.url.query['options']} -c TimeZone=Japan"})
    for url in (host.url, zone):
        with Session(engine := create_engine(url)) as session:
            session.add(doc := cls())
            session.flush()
            jobs = [client.insert(session, Plain(), unless_changed=doc).job]
            session.commit()
            jobs.append(client.insert(session, Plain(), unless_changed=doc).job)
            session.commit()
            assert [work_one(host, client, job).state for job in jobs] == ["completed"] * 2
            changed = client.insert(session, Plain(), unless_changed=doc).job
            doc.text = "changed"
            session.commit()
            assert work_one(host, client, changed).state == "cancelled"
        engine.dispose()
    assert called == ["plain"] * 4


def test_in_tests(host: Engine, client: Client, called: list[str]) -> None:
    """In a test, the object is compared in the test's own transaction."""
    for change in (False, True):
        with rolled_back(host) as session:
            account = session.get_one(Account, 1)
            job = client.insert(session, InSession(), unless_changed=account).job
            other = client.insert(session, Plain(), unless_changed=account).job
            if change:
                account.total += 1
                session.flush()
            states = {work_one(session, client, each).state for each in (job, other)}
            assert states == {"cancelled" if change else "completed"}
    asyncio.run(in_async_tests(host, client))
    assert sorted(called) == ["in_async_session", "in_session", "plain", "plain_async"]


async def in_async_tests(host: Engine, client: Client) -> None:
    """Make the same checks in the transaction of an AsyncSession."""
    engine = create_async_engine(host.url, poolclass=NullPool)
    for args in (InAsyncSession(), PlainAsync()):
        async with rolled_back_async(engine) as session:
            account = await session.get_one(Account, 1)
            one = await client.insert_async(session, args, unless_changed=account)
            assert (await work_one_async(session, client, one.job)).state == "completed"


@pytest.mark.parametrize("how", ["dirty", "new", "transient", "unversioned", "no object"])
def test_what_cannot_be_compared_is_refused(host: Engine, client: Client, how: str) -> None:
    """An object without a version, or with a version that the next flush changes, is refused."""
    with Session(host) as session:
        given: Any = session.get_one(Account, 1)
        match how:
            case "dirty":
                given.total = 7
            case "new":
                session.add(given := Account(id=2))
            case "transient":
                given = Account(id=3)
            case "unversioned":
                session.add(given := Entry(name="first"))
                session.flush()
            case "no object":
                given = 7
        with pytest.raises(InvalidOption, match="unless_changed"):
            client.insert(session, Plain(), unless_changed=given)


def test_a_class_that_is_not_known_here(host: Engine, client: Client, called: list[str]) -> None:
    """No module that a row names is imported: the attempt fails, and says what to import."""
    with Session(host) as session, session.begin():
        account = session.get_one(Account, 1)
        job = client.insert(session, Plain(), unless_changed=account, max_attempts=1).job
    with host.begin() as connection:
        elsewhere = "replace(metadata::text, 'orm.worker_tables', 'antigravity')::jsonb"
        connection.execute(text(f"UPDATE river_job SET metadata = {elsewhere}"))
    events = client.subscribe(JobEvent)
    with client:
        failed = events.get(timeout=DEADLINE_S)
    assert (type(failed), called) == (JobFailed, [])
    assert "import its module" in verbs.get(host, job.id).errors[0]["error"]
