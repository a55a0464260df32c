"""Transactions committed in two phases: notifications are sent after the second."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from riverrun import Client, RawArgs, verbs
from riverrun.queries import notify as queries

JOB = RawArgs(kind="greet", encoded={})
TOPICS = ("river_insert", "river_control", "river_leadership")

Act = Callable[[Client, Session, int], object]


@pytest.fixture
def notified(host_url: str, schema: str) -> Iterator[Callable[[], list[str]]]:
    """What was notified since the last look, on any topic."""
    came: list[str] = []
    with psycopg.connect(host_url.replace("+psycopg", ""), autocommit=True) as driver:
        for topic in TOPICS:
            driver.execute(f'LISTEN "{schema!s}.{topic}"')  # type: ignore[arg-type]
        driver.add_notify_handler(lambda note: came.append(note.payload))

        def read() -> list[str]:
            driver.execute("SELECT pg_notify(%s, 'mark')", [f"{schema!s}.river_insert"])
            driver.execute("SELECT 1")
            payloads, came[:] = [each for each in came if each != "mark"], []
            return payloads

        yield read


ACTS: dict[str, tuple[Act, str]] = {
    "cancel": (lambda client, session, job_id: client.cancel(session, job_id), '"cancel"'),
    "pause": (lambda client, session, _: client.queues.pause(session, "*"), '"pause"'),
    "resume": (lambda client, session, _: client.queues.resume(session, "*"), '"resume"'),
    "update": (
        lambda client, session, _: client.queues.update(session, "default", metadata={"a": 1}),
        '"metadata_changed"',
    ),
    "resign": (lambda client, session, _: client.request_resign(session), '"request_resign"'),
    "insert": (lambda client, session, _: client.insert(session, JOB), '"queue": "default"'),
    "copy": (lambda client, session, _: client.insert_many_fast(session, [JOB]), '"default"'),
}


@pytest.mark.parametrize("act", ACTS)
def test_notifies_after_the_second_phase(
    act: str, host: Engine, notified: Callable[[], list[str]]
) -> None:
    """A transaction of two phases can be prepared, and its jobs are notified at its commit."""
    client = Client(host, notify="in_transaction")
    job_id = client.insert(host, JOB).job.id
    verbs.queues.upsert_queues(host, ["default"])
    do, expected = ACTS[act]
    notified()
    with Session(host, twophase=True) as session:
        do(client, session, job_id)
        session.prepare()
        assert notified() == []
        session.rollback()
        assert notified() == []
        do(client, session, job_id)
        session.commit()
        (payload,) = notified()
        assert expected in payload
        # The connection is as it was: in no transaction, and in use as before.
        driver: Any = session.connection().connection.driver_connection
        assert driver.autocommit is False
        session.rollback()
    assert host.pool.checkedout() == 0


def test_a_notice_that_cannot_be_sent(
    host: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error after the commit is logged, and the application's commit succeeds."""
    client = Client(host)
    verbs.queues.upsert_queues(host, ["default"])
    monkeypatch.setattr(queries, "notify", lambda **_: text("SELECT nowhere()"))
    with Session(host, twophase=True) as session:
        client.queues.pause(session, "default")
        session.commit()
        assert "a call after a commit failed" in caplog.text
        assert session.scalar(text("SELECT 1")) == 1
        session.commit()
    assert client.queues.get(host, "default").paused_at is not None
