"""A client's own statements that take too long are cancelled."""

import threading
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

from factories import only_state
from riverrun import JobContext, verbs
from riverrun.client import services
from riverrun.runtime import statement_canceller
from runtime.conftest import App, Task
from waiting import until


def test_what_waits_for_a_lock_is_ended_and_tried_again(
    engine: Engine,
    schema: str,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A completion that waits for the application's lock is cancelled and written afterwards.

    Its connection is kept, and nothing is left waiting.
    """
    monkeypatch.setattr(services, "ANSWER_S", 0.5)
    begun, locked = threading.Event(), threading.Event()

    def work(args: Task, ctx: JobContext) -> None:
        begun.set()
        assert locked.wait(30)

    own = create_engine(engine.url)
    app.run(work, engine=own)
    job_id = verbs.insert(engine, Task(), schema=schema).job.id
    assert begun.wait(30)
    waiting = text(
        "SELECT a.pid, a.query FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
        " WHERE NOT l.granted AND a.query LIKE :table"
    )

    def who_waits() -> list[Any]:
        # In a transaction of its own: the one that holds the lock would read the same each time.
        with engine.connect() as connection:
            return list(connection.execute(waiting, {"table": f"%{schema}%"}))

    with engine.begin() as connection:
        lock = text(f"SELECT FROM {schema}.river_job WHERE id = :id FOR UPDATE")
        connection.execute(lock, {"id": job_id})
        locked.set()
        tries = lambda: caplog.text.count("could not write the outcomes of 1 jobs")  # noqa: E731
        until(lambda: tries() >= 3, "it is given up and tried again")
        until(lambda: len(who_waits()) <= 1, "none but one waits", 10, why=who_waits)
    until(lambda: only_state(engine, schema) == "completed", "it is completed")
    assert "closed a connection" not in caplog.text
    app.stop()
    own.dispose()


def test_a_request_to_cancel_that_does_not_return(
    engine: Engine,
    schema: str,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A request to cancel that is never answered keeps no later statement from being given up.

    That may happen with a libpq older than 17, whose requests have no time limit.
    """
    monkeypatch.setattr(services, "SIGN_S", 0.5)
    monkeypatch.setattr(statement_canceller, "GRACE_S", 0.5)
    over = threading.Event()
    monkeypatch.setattr(psycopg.Connection, "cancel_safe", lambda *_, **__: over.wait())
    own = create_engine(engine.url)
    client, _ = app.run(engine=own)
    with engine.begin() as connection:
        lock = text(f"LOCK TABLE {schema}.riverrun_client IN ACCESS EXCLUSIVE MODE")
        connection.execute(lock)
        closed = lambda: caplog.text.count("closed a connection")  # noqa: E731
        until(lambda: closed() >= 2, "two heartbeats are given up")
        assert not client.healthy
    until(lambda: client.healthy, "a heartbeat is written")
    app.stop()
    over.set()
    own.dispose()
