"""Step 2, the sender: what is announced and when. It never keeps a process alive."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from announcements import Payloads, listening
from riverrun import Client, InsertOpts, RawArgs, UniqueOpts
from riverrun.clock import Clock
from riverrun.db.commit_hooks import after_commit
from riverrun.runtime.announcer import DEBOUNCE_S, Announcer
from waiting import DEADLINE_S, until

JOB = RawArgs(kind="greet", encoded={})
PAYLOAD = '{"queue": "default"}'


@pytest.fixture
def received(engine: Engine, schema: str) -> Iterator[Payloads]:
    """Return the payloads that a raw LISTEN received, in order."""
    with listening(engine.url, schema) as payloads:
        yield payloads


@pytest.fixture
def client(engine: Engine, schema: str) -> Client:
    """A client that only inserts jobs."""
    return Client(engine, schema=schema)


def announced(client: Client, received: Payloads) -> list[str]:
    """Wait until everything is announced; return the payloads that were received."""
    assert client.flush_announcements(DEADLINE_S), "not all was announced"
    return received()


def test_notifies_after_the_commit(client: Client, engine: Engine, received: Payloads) -> None:
    """A queue's name is announced after the commit, and nothing before it."""
    with Session(engine) as session:
        client.insert(session, JOB)
        assert announced(client, received) == []
        session.commit()
        assert announced(client, received) == [PAYLOAD]


def test_sends_nothing_for_a_rollback(client: Client, engine: Engine, received: Payloads) -> None:
    """Jobs that are rolled back are not announced, neither then nor by a later commit."""
    with Session(engine) as session:
        client.insert(session, JOB)
        session.rollback()
        session.connection()
        session.commit()
    assert announced(client, received) == []


def test_notifies_of_savepoints_with_the_whole(
    client: Client, engine: Engine, received: Payloads
) -> None:
    """Jobs inserted in a savepoint are announced when the whole transaction commits, not before."""
    with Session(engine) as session:
        with session.begin_nested():
            client.insert(session, JOB)
        assert announced(client, received) == []
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            raise ZeroDivisionError
        session.commit()
    assert announced(client, received) == [PAYLOAD]


def test_sends_nothing_for_a_savepoint_rolled_back(
    client: Client, engine: Engine, received: Payloads
) -> None:
    """Jobs of a savepoint that is rolled back are not announced; jobs inserted around it are."""
    with Session(engine) as session:
        outer = session.begin_nested()
        client.insert(session, JOB, InsertOpts(queue="outer"))
        with session.begin_nested():
            client.insert(session, JOB, InsertOpts(queue="inner"))
        outer.rollback()
        session.commit()
        assert announced(client, received) == []
        client.insert(session, JOB)
        with session.begin_nested() as savepoint:
            client.insert(session, JOB)
            client.insert(session, JOB, InsertOpts(queue="inner"))
            savepoint.rollback()
        session.commit()
        assert announced(client, received) == [PAYLOAD]


@pytest.mark.parametrize("way", ["engine", "connection", "driver"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_notifies_at_once_in_autocommit(
    client: Client, engine: Engine, received: Payloads, driver: str, way: str
) -> None:
    """In autocommit a job is committed by its INSERT and is announced without a commit()."""
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if way == "engine" else {}
    if way == "driver":
        if driver == "asyncpg":
            pytest.skip("asyncpg has no such argument")
        options = {"connect_args": {"autocommit": True}}
    url = engine.url.set(drivername=f"postgresql+{driver}")

    async def insert() -> None:
        engine = create_async_engine(url, **options)
        async with engine.connect() as connection:
            if way == "connection":
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.run_sync(client.insert, JOB)
            assert announced(client, received) == [PAYLOAD]
            async with AsyncSession(connection) as session:
                await session.run_sync(client.insert, JOB)
                assert announced(client, received) == [PAYLOAD]
        await engine.dispose()

    asyncio.run(insert())
    if driver == "psycopg":
        own = create_engine(url, **options)
        with own.connect() as connection:
            if way == "connection":
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            client.insert(connection, JOB)
            assert announced(client, received) == [PAYLOAD]
        own.dispose()


def test_notifies_of_the_second_phase(client: Client, engine: Engine, received: Payloads) -> None:
    """A two-phase transaction announces at its second phase, and nothing if that is a rollback."""
    with Session(engine, twophase=True) as session:
        client.insert(session, JOB)
        session.prepare()
        assert announced(client, received) == []
        session.commit()
        assert announced(client, received) == [PAYLOAD]
        client.insert(session, JOB)
        session.prepare()
        session.rollback()
        assert announced(client, received) == []


def test_notifies_in_a_long_lived_connection(
    client: Client, engine: Engine, received: Payloads
) -> None:
    """Each commit is announced, also when the connection stays open."""
    with engine.connect() as connection:
        for _ in range(2):
            client.insert(connection, JOB)
            connection.commit()
            assert announced(client, received) == [PAYLOAD]


def test_notifies_of_an_engine_s_own_commit(
    client: Client, engine: Engine, received: Payloads
) -> None:
    """A call given an Engine commits before it returns, and its jobs are announced."""
    client.insert(engine, JOB)
    assert announced(client, received) == [PAYLOAD]


def test_notifies_of_many_commits_at_once(engine: Engine, schema: str, received: Payloads) -> None:
    """However many transactions commit, at most one notification is sent in 10 ms after them."""
    client = Client(engine, schema=schema, notify="after_commit")
    began = time.monotonic()
    for _ in range(100):
        client.insert(engine, JOB)
    count = len(announced(client, received))
    assert 1 <= count <= 1 + (time.monotonic() - began) / DEBOUNCE_S


def test_wakes_this_process_with_the_commit(engine: Engine) -> None:
    """A commit that succeeds wakes this process's producer before commit() returns."""
    woken: list[str] = []
    announcer = Announcer(
        engine, schema=None, on_committed=lambda name: not woken.append(name), clock=Clock()
    )
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        for name in ("first", "second"):
            connection.execute(text("SELECT 1"))
            after_commit(connection, announcer.committed, name)
            connection.commit()
            assert woken == [name]
            woken.clear()
            assert "commit" not in vars(driver)
        connection.execute(text("CREATE TEMPORARY TABLE one (n int UNIQUE DEFERRABLE)"))
        connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        connection.execute(text("INSERT INTO one VALUES (1), (1)"))
        after_commit(connection, announcer.committed, "third")
        with pytest.raises(IntegrityError):
            connection.commit()
        connection.rollback()
        assert woken == []
        assert "commit" not in vars(driver)
    assert announcer.stop(DEADLINE_S)


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements of the host's engine that contain a notification."""
    seen: list[str] = []

    def look(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "pg_notify" in statement:
            seen.append(statement.split()[0])

    event.listen(engine, "before_cursor_execute", look)
    yield seen
    event.remove(engine, "before_cursor_execute", look)


@pytest.mark.parametrize("unique", [None, UniqueOpts(by_args=True)], ids=["plain", "unique"])
@pytest.mark.parametrize("count", [1, 3])
def test_few_inserts_notify_by_themselves(
    client: Client,
    engine: Engine,
    received: Payloads,
    statements: list[str],
    unique: UniqueOpts | None,
    count: int,
) -> None:
    """An insert into a known queue notifies at its own commit, once, and only if it inserts."""
    client.insert(engine, JOB)  # The announcer's thread looks the queue up.
    assert announced(client, received) == [PAYLOAD]
    statements.clear()
    jobs = [
        (RawArgs(kind="greet", encoded={"n": n}), InsertOpts(unique=unique)) for n in range(count)
    ]
    with Session(engine) as session:
        client.insert_many(session, jobs)
        client.insert(session, RawArgs(kind="greet", encoded={"n": -1}))
        assert received() == []
        session.commit()
        assert received() == [PAYLOAD]
    with Session(engine) as session:
        with session.begin_nested() as savepoint:
            client.insert_many(session, jobs)
            savepoint.rollback()
        session.commit()
        assert received() == []
    with Session(engine) as session:
        client.insert_many(session, jobs)
        session.commit()
        assert received() == ([PAYLOAD] if unique is None else [])
    assert statements == ["INSERT"] * 3


def test_many_inserts_leave_it_to_the_thread(
    client: Client, engine: Engine, statements: list[str]
) -> None:
    """Where many transactions commit, an INSERT does not notify; the announcer's thread does."""
    client.insert(engine, JOB)
    assert client.flush_announcements(DEADLINE_S), "not all was announced"
    statements.clear()
    inserted = 0

    def leaves_one() -> bool:
        nonlocal inserted
        client.insert(engine, JOB)
        inserted += 1
        return statements.count("INSERT") < inserted

    until(leaves_one, "an INSERT that does not notify")


class Ticking(Clock):
    """A clock that goes on at each reading, and not otherwise."""

    def __init__(self) -> None:
        self.at, self.step = 0.0, 0.0

    def monotonic(self) -> float:
        """Return the time after one more step."""
        self.at += self.step
        return self.at


@pytest.mark.parametrize(("took_s", "limit"), [(2**-12, 100), (2**-9, 51), (2**-1, 10)])
def test_quick_commits_notify_more_often(
    engine: Engine, schema: str, took_s: float, limit: int
) -> None:
    """Inserts notify while their commits keep others waiting for a tenth of the time."""
    clock = Ticking()
    announcer = Announcer(
        engine, schema=schema, on_committed=lambda _: False, own_queues={"default"}, clock=clock
    )

    def allowed() -> int:
        clock.step = 0.0
        clock.at += 2.0
        count = 0
        while announcer.leaves_to_insert("default"):
            announcer.notified("default")
            count += 1
        return count

    assert allowed() == 10
    clock.step = took_s
    announcer.committed("default")
    assert announcer.stop(DEADLINE_S)
    assert allowed() == limit
    clock.at += 10.0
    assert allowed() == 10


@pytest.mark.parametrize(("notify", "expected"), [("in_transaction", [PAYLOAD]), ("off", [])])
def test_other_ways_to_notify(
    engine: Engine, schema: str, received: Payloads, notify: str, expected: list[str]
) -> None:
    """With `in_transaction` the commit itself notifies; with `off` nothing does."""
    client = Client(engine, schema=schema, notify=notify)
    with Session(engine) as session:
        client.insert(session, JOB)
        assert received() == []
        session.commit()
        assert received() == expected


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_notifies_of_an_async_session(
    client: Client, engine: Engine, received: Payloads, driver: str
) -> None:
    """The commit of an AsyncSession is announced like any other, with either driver."""
    url = engine.url.set(drivername=f"postgresql+{driver}")

    async def insert() -> None:
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session:
            await session.run_sync(client.insert, JOB)
            await session.commit()
        await engine.dispose()

    asyncio.run(insert())
    assert announced(client, received) == [PAYLOAD]


SCRIPT = """
import os, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from riverrun import Client, InsertOpts, RawArgs, UniqueOpts
from riverrun.clock import Clock
from riverrun.runtime.announcer import DEBOUNCE_S, Announcer

engine = create_engine({url!r})
client = Client(engine, schema={schema!r})

def insert():
    with Session(engine) as session, session.begin():
        client.insert(session, RawArgs(kind="greet", encoded={{}}))

"""
ENDS_AT_ONCE = "insert()\n"
FORKS = """
insert()
assert client.flush_announcements(10)
pid = os.fork()
if pid == 0:
    engine.dispose(close=False)
    insert()
    os._exit(0 if client.flush_announcements(10) else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
STAYS_OPEN = """
session = Session(engine)
client.insert(session, RawArgs(kind="greet", encoded={}))
"""


@pytest.mark.parametrize(
    ("body", "count"), [(ENDS_AT_ONCE, 1), (FORKS, 2), (STAYS_OPEN, 0)], ids=["end", "fork", "open"]
)
def test_notifies_before_its_process_ends(
    database_url: str, schema: str, received: Payloads, body: Any, count: int
) -> None:
    """A short script announces its jobs before it exits, and so does a forked child.

    An open transaction does not keep the script from exiting.
    """
    script = SCRIPT.format(url=database_url, schema=schema) + body
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert received() == [PAYLOAD] * count


def test_no_thread_outlives_its_interpreter(database_url: str, schema: str) -> None:
    """The thread has ended when the interpreter ends: Python aborts mod_wsgi's if it has not."""
    # Called after riverrun's own function, which is registered later.
    looks = (
        "import atexit, threading\n"
        "atexit.register(lambda: print([each.name for each in threading.enumerate()]))\n"
    )
    script = looks + SCRIPT.format(url=database_url, schema=schema) + ENDS_AT_ONCE
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert run.stdout == "['MainThread']\n", run.stderr


@pytest.mark.parametrize("own", [True, False], ids=["own-transaction", "joined"])
def test_a_commit_does_not_fail_for_want_of_a_thread(
    client: Client, engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Jobs are inserted even if no thread can be started, as while an interpreter exits."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    if own:
        client.insert(engine, JOB)
    else:
        with engine.begin() as connection:
            client.insert(connection, JOB)
    monkeypatch.undo()
    assert len(client.list_jobs(engine).jobs) == 1
    client.insert(engine, JOB)
    assert client.flush_announcements(DEADLINE_S), "what came later was not announced"


def test_a_queue_that_no_client_has_worked_is_warned_of_once(
    client: Client, engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A process warns once of a queue unknown to all clients, and not of known or own queues."""
    client.queues.add("own", 1)  # no client has worked it so far
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {schema}.river_queue (name, updated_at) VALUES ('mail', now())")
        )
    for queue in ("mial", "mail", "own", "mial"):
        client.insert(engine, JOB, InsertOpts(queue=queue))
        assert client.flush_announcements(DEADLINE_S), "not all was announced"
    found = [each.getMessage() for each in caplog.records if "is its name right" in each.message]
    # A retry or a new time makes jobs wait there, too, not only an insert.
    asked = "is its name right?"
    assert found == [f"jobs wait in queue 'mial', which no client has worked so far; {asked}"]
