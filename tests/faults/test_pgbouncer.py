"""PgBouncer in transaction mode between clients and their database."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from faults.worker import Book, Send
from needs import need
from network import free_ports
from riverrun import Client, QueueConfig, RawArgs, Workers
from riverrun.errors import InvalidOption
from waiting import DEADLINE_S, until

WORKER = Path(__file__).with_name("pooled_worker.py")
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
"""


@pytest.fixture
def pooled(engine: Engine) -> Iterator[Engine]:
    """An engine on the test's database, through a PgBouncer of the test's own."""
    program = need("pgbouncer")
    url, port = engine.url, free_ports(1)
    # PgBouncer refuses to run as root, and its user must be able to read its settings.
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "pgbouncer.ini"
        configuration = CONFIGURATION.format(
            host=url.host or url.query.get("host"),
            port=url.port or url.query.get("port") or 5432,
            user=url.username,
            password=f"password={url.password}" if url.password else "",
            own_port=port,
        )
        settings.write_text(configuration)
        Path(folder).chmod(0o755)
        process = subprocess.Popen([program, "-q", str(settings)], user=user)
        address = make_url(f"postgresql+psycopg://{url.username}@127.0.0.1:{port}/{url.database}")
        through = create_engine(
            address, poolclass=NullPool, connect_args={"prepare_threshold": None}
        )
        try:
            until(lambda: _answers(through), "pgbouncer answers")
            yield through
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def _answers(engine: Engine) -> bool:
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False


class Pair:
    """Two workers behind the pooler, and a client of the test's own that inserts."""

    def __init__(self, pooled: Engine, direct: Engine, schema: str, *, listen: bool) -> None:
        self.direct, self.schema = direct, schema
        self.client = Client(pooled, schema=schema)
        with direct.begin() as connection:
            connection.execute(
                text(f"CREATE TABLE {schema}.effect (job_id bigint, attempt int, sort text)")
            )
        urls = [
            each.url.render_as_string(hide_password=False)
            for each in ([pooled, direct] if listen else [pooled])
        ]
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(WORKER), urls[0], schema, name, *urls[1:]],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("one", "two")
        ]

    def wait_for(self, line: str) -> None:
        """Wait until both workers print `line`."""
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{line}\n"

    def one(self, statement: str) -> Any:
        """Return the single value that a statement reads, past the pooler."""
        with self.direct.connect() as connection:
            return connection.execute(text(statement.format(s=self.schema))).scalar()

    def state(self, job_id: int) -> str:
        """Return a job's state."""
        return str(self.one(f"SELECT state FROM {{s}}.river_job WHERE id = {job_id}"))

    def close(self) -> None:
        """Kill the workers that still run."""
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("listen", [False, True], ids=["poll", "listen"])
def test_works_behind_pgbouncer(
    pooled: Engine, engine: Engine, schema: str, *, listen: bool
) -> None:
    """Inserts, attempts, pauses, cancels and leadership work through the pooler.

    A worker with a direct address listens past it.
    """
    pair = Pair(pooled, engine, schema, listen=listen)
    try:
        pair.wait_for("ready")
        _drill(pair, listen=listen)
    finally:
        pair.close()


def _drill(pair: Pair, *, listen: bool) -> None:
    client, where = pair.client, pair.client.engine
    listeners = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'listener-%'"
    until(lambda: pair.one(listeners) == (2 if listen else 0), "both listen past the pooler")
    client.insert_many(where, [kind() for _ in range(60) for kind in (Book, Send)])
    client.insert_many_fast(where, [Book() for _ in range(30)])
    open_jobs = "SELECT count(*) FROM {s}.river_job WHERE state <> 'completed'"
    until(lambda: pair.one(open_jobs) == 0, "every job is completed")
    assert pair.one("SELECT count(*) FROM {s}.effect") == 150
    assert pair.one("SELECT count(DISTINCT job_id) FROM {s}.effect") == 150
    assert pair.one("SELECT leader_id FROM {s}.river_leader") in ("one", "two")

    endless = client.insert(where, RawArgs(kind="endure", encoded={})).job.id
    until(lambda: pair.state(endless) == "running", "the job begins")
    client.cancel(where, endless)
    until(lambda: pair.state(endless) == "cancelled", "the job is cancelled")

    client.queues.pause(where, "default")
    pair.wait_for("QueuePaused")
    waits = client.insert(where, Book()).job.id
    client.flush_announcements()
    assert pair.state(waits) == "available"
    client.queues.resume(where, "default")
    pair.wait_for("QueueResumed")
    until(lambda: pair.state(waits) == "completed", "the job that waited is worked")

    for process in pair.processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(DEADLINE_S) for process in pair.processes] == [0, 0]
    assert pair.one("SELECT count(*) FROM {s}.riverrun_client") == 0
    assert pair.one("SELECT count(*) FROM {s}.river_leader") == 0


def test_listens_to_no_other_database(engine: Engine, schema: str, empty_database: Engine) -> None:
    """A client refuses to start with a `listen_engine` on another database.

    It would never receive a notification there.
    """
    workers = Workers()
    workers.register(kind="greet")(_work)
    client = Client(
        engine,
        workers=workers,
        queues={"default": QueueConfig()},
        schema=schema,
        listen_engine=empty_database,
    )
    with pytest.raises(InvalidOption, match="listen_engine is 'riverrun_own"):
        client.start()
    with pytest.raises(InvalidOption, match="none with poll_only=True"):
        Client(engine, poll_only=True, listen_engine=engine)


def _work(args: RawArgs) -> None:
    """Do nothing."""
