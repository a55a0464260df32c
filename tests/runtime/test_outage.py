"""What is logged while the database cannot be reached, and about errors of the application."""

import logging
import threading
from collections.abc import Sequence

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, text

from riverrun import Client, Plugin, QueueConfig, RawArgs, Workers
from riverrun.migrations import migrate
from riverrun.runtime.outage import log_success
from waiting import DEADLINE_S, until

workers = Workers()


@workers.register(kind="plain")
def plain(args: RawArgs) -> None:
    """Do nothing."""


def test_an_outage_is_one_warning_and_one_line_when_it_is_over(
    engine: Engine, empty_database: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """During an outage its cause is logged once, however many threads meet it.

    When it is over, one more line is logged.
    """
    migrate(empty_database)
    name = empty_database.url.database
    empty_database.dispose()

    def allow(yes: bool) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}"))
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(others), {"name": name})

    def logged(part: str) -> list[str]:
        return [each.getMessage() for each in caplog.records if part in each.getMessage()]

    host = create_engine(empty_database.url)
    queues = {
        queue: QueueConfig(max_workers=2, poll_interval=0.1) for queue in ("one", "two", "three")
    }
    client = Client(host, workers=workers, queues=queues)
    caplog.set_level(logging.INFO, logger="riverrun")
    with client:
        until(lambda: client.leads, "the client leads")
        allow(False)
        until(lambda: not client.healthy, "the outage is noticed")
        until(lambda: logged("cannot be reached"), "the outage is logged")
        allow(True)
        until(lambda: logged("can be reached again"), "the end of the outage is logged")
    warnings = [
        each
        for each in caplog.records
        if each.levelno >= logging.WARNING and each.name.startswith("riverrun")
    ]
    texts = {
        each.getMessage() for each in warnings if "lost the leadership" not in each.getMessage()
    }
    assert len(texts) == 1, texts
    (line,) = texts
    assert "the database cannot be reached: OperationalError" in line
    host.dispose()


def test_an_outage_of_listen_engine_is_told_from_the_database_s(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While only `listen_engine` finds no way to the database, one line says so."""
    caplog.set_level(logging.INFO, logger="riverrun")
    cut, tries = threading.Event(), threading.Semaphore(0)
    listen = create_engine(engine.url, connect_args={"application_name": schema})

    @event.listens_for(listen, "do_connect")
    def refuse(*_: object) -> None:
        if cut.is_set():
            tries.release()
            raise psycopg.OperationalError("no way")

    def logged(part: str) -> list[str]:
        return [each.getMessage() for each in caplog.records if part in each.getMessage()]

    client = Client(
        engine, workers=workers, queues=["default"], schema=schema, listen_engine=listen
    )
    with client:
        statement = text("SELECT pid FROM pg_stat_activity WHERE application_name = :name")

        def listeners() -> Sequence[int]:
            with engine.connect() as connection:
                return connection.scalars(statement, {"name": schema}).all()

        until(listeners, "it listens")
        cut.set()
        with engine.begin() as connection:
            for pid in listeners():
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        for _ in range(4):  # tries, between which heartbeats succeed
            assert tries.acquire(timeout=DEADLINE_S)
            log_success(client._services.heartbeat._engine)
        assert len(logged("the database cannot be reached by listen_engine")) == 1
        cut.clear()
        until(lambda: logged("can be reached by listen_engine again"), "it listens again")
    assert not logged("the database cannot be reached:")
    assert not logged("the database can be reached again")


class Card(Exception):
    """An application's error with args in its text."""


class Broken(Plugin):
    """A plugin that fails in a method where no error is expected."""

    def periodic_jobs_start(self) -> None:
        """Fail."""
        raise Card("4111-SECRET\nCRITICAL root: forged")


def test_an_error_of_the_application_is_logged_without_its_text(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin's error is logged by its class and frames; its text may contain args."""
    client = Client(
        engine,
        workers=workers,
        queues={"one": QueueConfig()},
        schema=schema,
        plugins=[Broken()],
    )
    with client:
        until(lambda: "periodic_jobs_start" in caplog.text, "the error is logged")
    assert "Card" in caplog.text
    assert "test_outage.py" in caplog.text
    assert "4111" not in caplog.text
    assert "forged" not in caplog.text
