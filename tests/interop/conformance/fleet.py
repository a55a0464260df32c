"""A Go and a riverrun process on one schema: the two sides of a scenario."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text

from faults.proxy import Proxy
from interop.peers import Peers
from interop.rows import Rows
from interop.rpc import Process, RpcError
from riverrun.migrations import migrate
from waiting import DEADLINE_S, until

GO = "go"
PYTHON = "python"
BOTH = (GO, PYTHON)
# The side that acts first, and the side that acts second.
WAYS = ((GO, PYTHON), (PYTHON, GO))

SOON_S = 5.0

Job = dict[str, Any]


class Fleet(Rows):
    """One process for each side, kept from test to test, and more if a test asks for them."""

    def __init__(self, engine: Engine, schema: str, program: Path) -> None:
        self.engine = engine
        self.schema = schema
        self._program = program
        self._peers = Peers(engine, schema)
        self._sides: dict[str, Process] = {}
        self._others: list[Process] = []

    @property
    def go(self) -> Process:
        """The Go process, which runs River itself."""
        return self.side(GO)

    @property
    def python(self) -> Process:
        """The Python process, which runs riverrun."""
        return self.side(PYTHON)

    def side(self, name: str) -> Process:
        """Return the process of a side."""
        if name not in self._sides:
            self._sides[name] = self._start(name)
        return self._sides[name]

    def another(self, name: str) -> Process:
        """Start an additional process of a side for this test."""
        process = self._start(name)
        self._others.append(process)
        return process

    @contextmanager
    def behind_proxy(self, name: str) -> Iterator[tuple[Process, Proxy]]:
        """Start an additional process of a side that reaches the database through a proxy."""
        url = self.engine.url
        host, port = str(url.query.get("host") or url.host), int(url.port or 5432)
        is_socket = host.startswith("/")
        proxy = Proxy(Path(host) / f".s.PGSQL.{port}" if is_socket else (host, port))
        through = URL.create(
            url.drivername,
            url.username,
            url.password,
            "127.0.0.1",
            proxy.port,
            url.database,
            {"sslmode": "disable"},
        )
        try:
            yield self._start(name, through), proxy
        finally:
            proxy.close()

    def other(self, process: Process) -> Process:
        """Return the process of the other side."""
        return self.python if process is self.go else self.go

    def replace(self, name: str) -> Process:
        """Kill the process of a side, and return a new one."""
        self.side(name).kill()
        del self._sides[name]
        return self.side(name)

    def reset(self) -> None:
        """Stop additional processes and running clients, and delete all rows."""
        for process in self._others:
            process.kill()
        self._others.clear()
        for name in list(self._sides):
            process = self._sides[name]
            with suppress(RpcError, AssertionError):
                process.call("stop", cancel=True)
            try:
                process.call("reset")
            except (RpcError, AssertionError):
                process.kill()
                del self._sides[name]
        self.python.call("reset")

    def close(self) -> None:
        """End every process."""
        self._peers.close()

    def agreed(self, job_id: int) -> Job:
        """Return a job after checking that both sides read it alike."""
        seen = self.go.call("get", id=job_id), self.python.call("get", id=job_id)
        assert seen[0] == seen[1]
        return seen[0]

    def leads(self, client_id: str, within_s: float = DEADLINE_S) -> str:
        """Wait until a client leads; return the start of its term."""

        def asked() -> str | None:
            leader = self.go.call("leader")
            return leader["elected_at"] if leader["leader_id"] == client_id else None

        return until(asked, f"{client_id} leads", within_s)

    def listens(self, process: Process, connections: int = 1) -> None:
        """Wait until a process listens."""
        until(lambda: process.call("listener_count")["count"] >= connections, "listening")

    def waits_for_lock(self, process: Process) -> bool:
        """Return whether a process waits for another session's lock."""
        asked = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = :name AND wait_event_type = 'Lock'"
        )
        return bool(self.one(asked, name=process.name))

    def lock_awaited(self, process: Process) -> None:
        """Wait until a process waits for another session's lock."""
        until(lambda: self.waits_for_lock(process), f"{process.name} waits for a lock")

    @contextmanager
    def waiting(self, process: Process, method: str, **params: Any) -> Iterator[Callable[[], Any]]:
        """Call a method that has to wait; yield a function that returns its result."""
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(process.call, method, **params)
            yield lambda: answer.result(DEADLINE_S)

    @contextmanager
    def open(self) -> Iterator[Callable[..., Any]]:
        """Keep a transaction on the schema open during the block, and roll it back afterwards."""
        with self.engine.connect() as connection:
            connection.execute(text(f"SET search_path TO {self.schema}"))
            yield lambda statement, **values: connection.execute(text(statement), values)
            connection.rollback()
            connection.execute(text("RESET search_path"))
            connection.commit()

    def _start(self, name: str, url: URL | None = None) -> Process:
        return self._peers.go(self._program, url) if name == GO else self._peers.python(url)


def made(engine: Engine, schema: str, program: Path) -> Fleet:
    """Return a fleet on a schema that has been migrated."""
    migrate(engine, schema=schema)
    return Fleet(engine, schema, program)


def running(process: Process, job_id: int) -> Job:
    """Wait until a job runs."""
    return wait(process, job_id, "running")


def wait(process: Process, job_id: int, *states: str) -> Job:
    """Wait until a job is in one of `states`. Default: in any final state."""
    return process.call("wait", id=job_id, **({"states": list(states)} if states else {}))


def moment(text: str) -> datetime:
    """Return a time as a datetime that an adapter sent as text."""
    return datetime.fromisoformat(text)


def events(process: Process) -> list[str]:
    """Return the events that a process's client has received so far."""
    return list(process.call("runtime_stats")["events"] or [])


def await_events(process: Process, event: str, times: int = 1) -> None:
    """Wait until a process has received an event."""
    until(lambda: events(process).count(event) >= times, f"{event} x {times}")


def counted(process: Process, name: str) -> int:
    """Return one of a process's counters."""
    return int(process.call("runtime_stats")[name])


def failed(process: Process, code: int, method: str, **params: Any) -> str:
    """Return the message of a call that must fail with `code`."""
    with pytest.raises(RpcError) as caught:
        process.call(method, **params)
    assert caught.value.code == code
    return caught.value.message
