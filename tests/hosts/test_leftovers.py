"""Clients that are dropped or stopped leave nothing behind in their process."""

import atexit
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from riverrun import Client, InsertOpts, QueueConfig, RawArgs, Workers
from riverrun.runtime.announcer import IDLE_S
from waiting import DEADLINE_S, until

JOB = RawArgs(kind="greet", encoded={})
WORKERS = Workers()


@WORKERS.register(kind="greet")
def greet(args: RawArgs) -> None:
    """Work."""


@pytest.fixture
def own(database_url: str) -> Iterator[Engine]:
    """An engine that no other test has touched."""
    own = create_engine(database_url)
    yield own
    own.dispose()


def in_a_session(client: Client) -> None:
    """Insert as a web application does."""
    with Session(client.engine) as session, session.begin():
        client.insert(session, JOB)


def by_the_engine(client: Client) -> None:
    """Insert as a script does."""
    client.insert(client.engine, JOB)


def then_stopped(client: Client) -> None:
    """Insert, and stop a client that only inserts."""
    in_a_session(client)
    client.stop()


def rolled_back(client: Client) -> None:
    """Insert in a transaction that is rolled back."""
    with Session(client.engine) as session:
        client.insert(session, JOB)


def never_ended(client: Client) -> None:
    """Insert in a transaction that is forgotten."""
    client.insert(client.engine.connect(), JOB)


def _listeners(engine: Engine) -> int:
    return sum(
        len(list(getattr(target.dispatch, name)))
        for target in (engine, engine.pool, engine.dialect)
        for name in target.dispatch._event_names
    )


def _threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("riverrun.")]


@pytest.fixture(autouse=True)
def _no_threads_of_others() -> None:
    """Other tests of this process may have left an announcer that is idle for a moment yet."""
    gc.collect()
    until(lambda: not _threads(), "the end of other tests' threads")


@pytest.mark.parametrize(
    ("use", "count"),
    [(in_a_session, 1000), (by_the_engine, 200), (then_stopped, 200), (rolled_back, 200)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_thousand_clients(
    own: Engine, schema: str, use: Callable[[Client], None], count: int
) -> None:
    """Making, using and dropping many clients leaves no clients, threads or listeners behind."""

    def drop() -> "weakref.ref[Client]":
        client = Client(own, schema=schema)
        use(client)
        return weakref.ref(client)

    drop()
    until(lambda: not _threads(), "the end of the first client's thread")
    gc.collect()
    before = _listeners(own), atexit._ncallbacks(), own.get_execution_options()  # type: ignore[attr-defined]
    dropped = [drop() for _ in range(count)]
    gc.collect()
    until(lambda: not _threads(), "the end of every thread")
    gc.collect()
    assert [each for each in dropped if each() is not None] == []
    after = _listeners(own), atexit._ncallbacks(), own.get_execution_options()  # type: ignore[attr-defined]
    assert after == before
    assert own.pool.checkedout() == 0


def test_clients_that_work(own: Engine, schema: str) -> None:
    """A client that was started and stopped is dropped like any other."""

    def drop() -> "weakref.ref[Client]":
        client = Client(own, schema=schema, workers=WORKERS, queues={"default": QueueConfig()})
        with client:
            in_a_session(client)
        return weakref.ref(client)

    drop()
    until(lambda: not _threads(), "the end of the first client's threads")
    before = _listeners(own), atexit._ncallbacks()  # type: ignore[attr-defined]
    dropped = [drop() for _ in range(5)]
    assert _threads() == []
    gc.collect()
    assert [each for each in dropped if each() is not None] == []
    assert (_listeners(own), atexit._ncallbacks()) == before  # type: ignore[attr-defined]


def test_engines_that_are_dropped(database_url: str, schema: str) -> None:
    """An engine is dropped with its clients, also where a transaction of it was forgotten."""

    def drop(use: Callable[[Client], None]) -> "weakref.ref[Engine]":
        engine = create_engine(database_url)
        use(Client(engine, schema=schema))
        engine.dispose()
        return weakref.ref(engine)

    for use in (in_a_session, rolled_back, then_stopped):
        engine = drop(use)
        until(lambda: not _threads(), "the end of the announcer")
        gc.collect()
        assert engine() is None, use.__name__


@pytest.mark.filterwarnings("ignore:The garbage collector is trying:Warning")
def test_transactions_that_are_forgotten(own: Engine, schema: str) -> None:
    """A transaction that is neither committed nor rolled back holds no client."""
    client = Client(own, schema=schema)
    never_ended(client)
    reference = weakref.ref(client)
    del client
    gc.collect()  # the transaction
    gc.collect()  # and then what it kept
    assert reference() is None


def test_dropped_before_its_commit(own: Engine, schema: str) -> None:
    """Inserted jobs are announced even if their client is gone before the commit."""
    woken: list[str] = []

    class Wakes:
        def __call__(self, name: str) -> bool:
            woken.append(name)
            return False

    with Session(own) as session:
        client = Client(own, schema=schema)
        client._inserter._announcer._on_committed = Wakes()
        client.insert(session, JOB)
        del client
        gc.collect()
        session.commit()
    assert woken == ["default"]


def test_the_thread_ends_when_idle(own: Engine, schema: str) -> None:
    """A client that inserts nothing has no thread; it starts another when it inserts again."""
    client = Client(own, schema=schema, notify="after_commit")
    for _ in range(2):
        in_a_session(client)
        assert client.flush_announcements(DEADLINE_S), "not all was announced"
        assert _threads() == ["riverrun.announcer"]
        until(lambda: not _threads(), f"the end of the thread after {IDLE_S:g} s")


def test_a_stopped_client_inserts(own: Engine, schema: str) -> None:
    """stop() may be called twice, and what is inserted after it is announced as before."""
    client = Client(own, schema=schema)
    for _ in range(3):
        in_a_session(client)
        client.stop()
        assert _threads() == []
        client.stop()


def test_names_of_queues_are_forgotten(own: Engine, schema: str) -> None:
    """An announcer does not keep the name of each queue that it ever announced."""
    client = Client(own, schema=schema)
    announcer: Any = client._inserter._announcer
    with Session(own) as session, session.begin():
        for number in range(500):
            client.insert(session, JOB, InsertOpts(queue=f"queue_{number}"))
    assert client.flush_announcements(DEADLINE_S), "not all was announced"
    in_a_session(client)
    assert client.flush_announcements(DEADLINE_S), "not all was announced"
    client.insert(own, JOB)
    assert client.flush_announcements(DEADLINE_S), "not all was announced"
    assert len(announcer._announced_at) < 500
