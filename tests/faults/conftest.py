"""Worker processes that tests start, stop and kill, and the audit of what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema, DropSchema

from faults.proxy import Proxy
from faults.server import Server
from faults.worker import Book, Send
from riverrun import InsertOpts, verbs
from riverrun.migrations import migrate
from riverrun.verbs.notify import notify_inserted
from schemas import new_schema_name
from waiting import until

WORKER = Path(__file__).with_name("worker.py")
LONG = os.environ.get("RIVERRUN_FAULTS") == "long"
"""Whether the tests run for minutes, with many and long faults, instead of seconds."""


class Plant:
    """Worker processes on one schema.

    Args:
        engine: An engine on the schema's database that connects past all faults.
        schema: A schema with riverrun's tables.
        url: The address to which workers connect by default.
    """

    def __init__(self, engine: Engine, schema: str, url: str | None = None) -> None:
        self.engine = engine
        self.schema = schema
        self.url = url or engine.url.render_as_string(hide_password=False)
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._started: list[subprocess.Popen[str]] = []
        with engine.begin() as connection:
            connection.execute(
                text(f"CREATE TABLE {schema}.effect (job_id bigint, attempt int, sort text)")
            )

    def worker(
        self,
        name: str,
        *,
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        ready: bool = True,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a worker process; unless `ready` is False, wait until it works.

        Args:
            name: The client's id.
            url: The address to connect to. Default: the plant's.
            environment: Additional environment variables.
            prefix: A program and its arguments that start the worker.
            ready: Whether to wait until the worker works.
            **options: Options of the worker's Client.
        """
        command = [*prefix, sys.executable, str(WORKER), url or self.url, self.schema, name]
        process = subprocess.Popen(
            [*command, json.dumps(options)],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        self.processes[name] = process
        if ready:
            self.wait_until_ready(process)
        return process

    def workers(self, *names: str) -> list[subprocess.Popen[str]]:
        """Start worker processes, and wait until all of them work."""
        processes = [self.worker(name, ready=False) for name in names]
        for process in processes:
            self.wait_until_ready(process)
        return processes

    def wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        """Wait until a worker process works."""
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def rows(self, statement: str) -> list[Any]:
        """Return the rows that a statement on the schema reads; `{s}` stands for its name."""
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement.format(s=self.schema))))

    def one(self, statement: str) -> Any:
        """Return the single value that a statement reads."""
        return self.rows(statement)[0][0]

    def wait(
        self,
        condition: Callable[[], bool],
        what: str,
        deadline_s: float,
        why: Callable[[], object] = lambda: "",
    ) -> None:
        """Wait until `condition` holds; on a timeout, `why` explains what is missing."""
        until(condition, what, deadline_s, why)

    def wait_until_done(self, deadline_s: float) -> None:
        """Wait until every job is completed."""
        unfinished = (
            "SELECT id, kind, state, queue, attempt, attempted_by FROM {s}.river_job"
            " WHERE state <> 'completed' ORDER BY id LIMIT 5"
        )
        self.wait(
            lambda: not self.rows(unfinished),
            "every job is completed",
            deadline_s,
            why=lambda: self.rows(unfinished),
        )

    @contextmanager
    def load(self) -> Iterator[set[int]]:
        """Insert two jobs every 10 ms; yield the ids of the jobs that are known to be committed."""
        ids: set[int] = set()
        stop = threading.Event()

        def feed() -> None:
            while not stop.wait(0.01):
                with suppress(SQLAlchemyError):
                    results = verbs.insert_many(self.engine, [Book(), Send()], schema=self.schema)
                    ids.update(result.job.id for result in results)

        thread = threading.Thread(target=feed, name="load")
        thread.start()
        try:
            self.wait(lambda: len(ids) > 50, "jobs are inserted", 20)
            done = "SELECT count(*) FROM {s}.river_job WHERE state = 'completed'"
            self.wait(lambda: self.one(done) > 20, "jobs are worked", 20)
            yield ids
        finally:
            stop.set()
            thread.join()

    def audit(self, ids: set[int], *, faults: int) -> list[Any]:
        """Check that nothing was lost or done too often; return all jobs with their `effects`.

        Args:
            ids: Jobs that must exist.
            faults: How many times work was cut off. Each may cause one more effect.
        """
        jobs = self.rows(
            "SELECT id, kind, state, queue, attempt,"
            " coalesce((metadata->>'river:rescue_count')::int, 0) AS rescues,"
            " (SELECT count(*) FROM {s}.effect WHERE job_id = j.id) AS effects"
            " FROM {s}.river_job j"
        )
        assert ids <= {job.id for job in jobs}, "jobs are lost"
        assert not [job for job in jobs if job.state != "completed"], "jobs are stuck"
        books = [job for job in jobs if job.kind == "book"]
        assert not [job for job in books if job.effects != 1], "an effect is not exactly once"
        assert not [job for job in jobs if not 1 <= job.effects <= 1 + faults], "too often"
        return jobs

    def prove_alive(self, deadline_s: float = 30) -> None:
        """Check that each worker receives notifications and works, and that a client leads."""
        soon = self.one("SELECT clock_timestamp() + interval '0.1 s'")
        later = InsertOpts(scheduled_at=soon)
        scheduled = verbs.insert(self.engine, Book(), later, schema=self.schema).job.id
        for name in self.processes:
            opts = InsertOpts(queue=name)
            job_id = verbs.insert(self.engine, Book(), opts, schema=self.schema).job.id
            self.notify(name)
            done = f"SELECT state FROM {{s}}.river_job WHERE id = {job_id}"
            self.wait(
                lambda done=done: self.one(done) == "completed",
                f"{name} works",
                deadline_s,
                why=lambda name=name, done=done: self._why_idle(name, done),
            )
        state = f"SELECT state FROM {{s}}.river_job WHERE id = {scheduled}"
        self.wait(lambda: self.one(state) == "completed", "a client leads", deadline_s)

    def _why_idle(self, name: str, statement: str) -> object:
        """Have a worker print the stacks of its threads and end; return what `statement` reads."""
        self.processes[name].send_signal(signal.SIGUSR2)
        self.processes[name].wait(10)
        return self.one(statement)

    def notify(self, queue: str) -> None:
        """Send the notification that a client sends after an insert into `queue`."""
        notify_inserted(self.engine, [queue], schema=self.schema)

    def stop(self) -> None:
        """Kill all remaining processes."""
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def plant(engine: Engine, schema: str) -> Iterator[Plant]:
    """Worker processes on the test's schema, all of which are killed when the test ends."""
    plant = Plant(engine, schema)
    yield plant
    plant.stop()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server of these tests' own, which they may shut down or crash.

    It is running again after each test.
    """
    with Server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A TCP proxy in front of the server."""
    proxy = Proxy(server.socket_path)
    yield proxy
    proxy.close()


@pytest.fixture
def shaken(server: Server, proxy: Proxy) -> Iterator[Plant]:
    """Workers that reach the server through the proxy, on a schema of the test's own."""
    with planted(server.engine(), proxy.url) as plant:
        yield plant


@contextmanager
def planted(engine: Engine, url: str | None = None) -> Iterator[Plant]:
    """Workers that reach `engine`'s server at `url`, on a schema of their own."""
    schema = new_schema_name("f")
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    migrate(engine, schema=schema)
    plant = Plant(engine, schema, url)
    try:
        yield plant
    finally:
        plant.stop()
    with engine.begin() as connection:
        # Longer than the server needs to notice a lost host and roll back its transactions.
        connection.execute(text("SET lock_timeout = '30s'"))
        connection.execute(DropSchema(schema, cascade=True))
