"""Step 2, the receiver: what is received, what is ignored, and how it recovers from a cut."""

import queue
import random
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import Engine, NullPool, create_engine, event, text

from riverrun.runtime.notifier import Notifier
from riverrun.wire.topics import Topic
from waiting import DEADLINE_S


class Receiver:
    """A notifier, and a record of its calls."""

    def __init__(self, engine: Engine, schema: str | None) -> None:
        self.received: queue.Queue[tuple[Topic, Mapping[str, Any]]] = queue.Queue()
        self.listening: queue.Queue[None] = queue.Queue()
        self.engine = engine
        self.schema = schema
        self.notifier = Notifier(
            engine,
            schema=schema,
            on_notification=self._receive,
            on_listening=lambda: self.listening.put(None),
            rng=random.Random(1),
        )

    def _receive(self, topic: Topic, payload: Mapping[str, Any]) -> None:
        self.received.put((topic, payload))
        if payload.get("fail"):
            raise RuntimeError("a listener that fails")

    def notify(self, *payloads: str, topic: str = "river_insert") -> None:
        """Send `payloads` in order."""
        with self.engine.begin() as connection:
            for payload in payloads:
                connection.execute(
                    text("SELECT pg_notify(:channel, :payload)"),
                    {"channel": f"{self.schema!s}.{topic}", "payload": payload},
                )


@pytest.fixture
def receiver(engine: Engine, schema: str) -> Iterator[Receiver]:
    """A notifier that is listening."""
    receiver = Receiver(engine, schema)
    receiver.notifier.start()
    receiver.listening.get(timeout=DEADLINE_S)
    yield receiver
    assert receiver.notifier.stop(DEADLINE_S), "the notifier did not end"


def test_receives_both_topics(receiver: Receiver) -> None:
    """Notifications of inserts and of controls are passed on with their payloads."""
    receiver.notify('{"queue": "a"}')
    assert receiver.received.get(timeout=DEADLINE_S) == (Topic.insert, {"queue": "a"})
    receiver.notify('{"action": "cancel"}', topic="river_control")
    assert receiver.received.get(timeout=DEADLINE_S) == (Topic.control, {"action": "cancel"})


def test_listens_where_a_listener_has_begun_a_transaction(engine: Engine, schema: str) -> None:
    """It listens on connections on which the pool's listener has set the search path."""
    own = create_engine(engine.url)

    @event.listens_for(own, "checkout")
    def check_out(driver: psycopg.Connection[Any], *_: object) -> None:
        driver.execute(f"SET search_path TO {schema}")

    receiver = Receiver(own, None)
    receiver.notifier.start()
    try:
        receiver.listening.get(timeout=DEADLINE_S)
        receiver.schema = schema
        receiver.notify('{"queue": "a"}')
        assert receiver.received.get(timeout=DEADLINE_S) == (Topic.insert, {"queue": "a"})
    finally:
        assert receiver.notifier.stop(DEADLINE_S), "the notifier did not end"
        own.dispose()


@pytest.mark.skipif(psycopg.version.__version__ < "3.3", reason="there close() never returns one")
def test_returns_no_connection_that_has_listened(engine: Engine, schema: str) -> None:
    """An application's psycopg_pool gets no connection back that listens or is in autocommit."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with ConnectionPool(url, min_size=1, max_size=2, close_returns=True, open=True) as pool:
        own = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=pool.getconn)
        receiver = Receiver(own, schema)
        receiver.notifier.start()
        receiver.listening.get(timeout=DEADLINE_S)
        assert receiver.notifier.stop(DEADLINE_S), "the notifier did not end"
        connections = [pool.getconn(timeout=DEADLINE_S) for _ in range(2)]
        listens = "SELECT count(*) FROM pg_listening_channels()"
        assert [each.autocommit for each in connections] == [False, False]
        assert [each.execute(listens).fetchone() for each in connections] == [(0,), (0,)]
        for each in connections:
            pool.putconn(each)


def test_receives_what_arrives_with_another_answer(
    engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification that comes with the answer to the check of a silent connection is not lost."""
    payload = '{"queue": "a"}'
    ping = f"SELECT pg_notify('{schema!s}.river_insert', '{payload}')"
    monkeypatch.setattr("riverrun.runtime.notifier.PING", ping)
    monkeypatch.setattr("riverrun.runtime.notifier.PING_S", 0.01)
    receiver = Receiver(engine, schema)
    receiver.notifier.start()
    try:
        assert receiver.received.get(timeout=DEADLINE_S) == (Topic.insert, {"queue": "a"})
    finally:
        assert receiver.notifier.stop(DEADLINE_S), "the notifier did not end"


def test_ignores_garbage(receiver: Receiver) -> None:
    """A payload that is no object, or a listener that fails, does not affect later ones."""
    receiver.notify("", "{", "[1]", "7", '{"fail": true}', '{"queue": "a"}')
    assert receiver.received.get(timeout=DEADLINE_S)[1] == {"fail": True}
    assert receiver.received.get(timeout=DEADLINE_S)[1] == {"queue": "a"}


def test_listens_again_when_it_is_cut_off(receiver: Receiver) -> None:
    """After its connection was killed it listens again, reports that, and receives again."""
    with receiver.engine.begin() as connection:
        killed = connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE :listen"
            ),
            {"listen": f'LISTEN "{receiver.schema!s}.%'},
        ).scalar_one()
    assert killed == 1
    receiver.listening.get(timeout=DEADLINE_S)
    receiver.notify('{"queue": "a"}')
    assert receiver.received.get(timeout=DEADLINE_S)[1] == {"queue": "a"}


def test_may_be_stopped_before_and_twice(engine: Engine, schema: str) -> None:
    """stop() may be called before start() and twice, and start() after stop()."""
    receiver = Receiver(engine, schema)
    assert receiver.notifier.stop(DEADLINE_S)
    for _ in range(2):
        receiver.notifier.start()
        receiver.listening.get(timeout=DEADLINE_S)
        assert receiver.notifier.stop(DEADLINE_S)
        assert receiver.notifier.stop(DEADLINE_S)
