"""How a client, its probes and its metrics report that something is wrong."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError

from riverrun import InsertOpts, QueueConfig
from riverrun.cli import probes
from riverrun.instrumentation.prometheus import instrument
from riverrun.runtime import health, passed_over
from riverrun.verbs.status import list_clients, unworked_queues
from runtime.conftest import Task
from waiting import DEADLINE_S, until


def test_a_queue_that_no_client_works_is_reported(app: Any) -> None:
    """A queue with due jobs that is not paused and that no client works is reported.

    There is no threshold. River's clients count as clients.
    """
    client = app.client()

    def look() -> list[str]:
        return unworked_queues(app.engine, dead_s=20, schema=app.schema)

    def do(statement: str) -> None:
        with app.engine.begin() as connection:
            connection.execute(text(statement.format(s=app.schema)))

    assert look() == []
    client.insert(app.engine, Task(), InsertOpts(queue="mial"))
    client.insert(app.engine, Task(), InsertOpts(queue="zoo"))
    assert look() == ["mial", "zoo"]
    do(
        "INSERT INTO {s}.riverrun_client (id, hostname, pid, queues)"
        " VALUES ('a', 'host', 1, '{{zoo}}')"
    )
    assert look() == ["mial"]
    do("UPDATE {s}.riverrun_client SET heartbeat_at = now() - interval '21 s'")
    assert look() == ["mial", "zoo"]
    do("INSERT INTO {s}.river_queue (name, paused_at, updated_at) VALUES ('mial', now(), now())")
    assert look() == ["zoo"]
    do("UPDATE {s}.river_queue SET paused_at = NULL")
    assert look() == ["mial", "zoo"]
    do(
        "INSERT INTO {s}.river_leader (elected_at, expires_at, leader_id)"
        " VALUES (now(), now() + interval '15 s', 'gopher')"
    )
    assert look() == ["zoo"]
    do("UPDATE {s}.river_queue SET updated_at = now() - interval '12 min'")
    assert look() == ["mial", "zoo"]


def test_a_client_reports_queues_that_no_client_works(app: Any) -> None:
    """Each client's own health reports jobs that wait in a queue that no client works."""
    client = app.client()
    client.insert(app.engine, Task(), InsertOpts(queue="mial"))
    client.start()
    until(lambda: any("'mial'" in problem for problem in client.problems), "the client reports it")
    assert not client.healthy


def test_held_outcomes_are_reported(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While outcomes cannot be written, a client is unhealthy and its metrics count them."""
    monkeypatch.setattr(health, "HELD_S", 0.2)
    release, begun = threading.Event(), threading.Event()

    def body(args: Task, ctx: Any) -> None:
        begun.set()
        release.wait(DEADLINE_S)

    client, events = app.run(body)
    registry = CollectorRegistry()
    instrument(client, registry=registry, count_interval=3600)
    client.insert(app.engine, Task())
    assert begun.wait(DEADLINE_S)
    until(lambda: client.healthy, "it is healthy")
    assert registry.get_sample_value("riverrun_healthy") == 1
    with app.engine.begin() as connection:
        lock = f"LOCK TABLE {app.schema}.river_job IN ACCESS EXCLUSIVE MODE"
        connection.execute(text(lock))
        release.set()
        until(lambda: any("held" in each for each in client.problems), "it is unhealthy")
    events.get(DEADLINE_S)
    until(lambda: client.healthy, "it is healthy again")
    assert registry.get_sample_value("riverrun_held_outcomes") == 0
    assert registry.get_sample_value("riverrun_refused_outcomes") == 0


def test_claims_that_fail_are_reported(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose claims fail for long is unhealthy until one succeeds."""
    monkeypatch.setattr(health, "FAILING_S", 0.0)

    def fail(*_: Any, **__: Any) -> Any:
        raise InterfaceError("claim", {}, Exception())

    client, _ = app.run()
    with monkeypatch.context() as patched:
        patched.setattr(passed_over, "claim_jobs", fail)
        client.insert(app.engine, Task())
        problem = "jobs of queue 'default' cannot be claimed"
        until(lambda: any(problem in each for each in client.problems), "it is reported")
    until(lambda: not client.problems, "a claim succeeds")


def test_a_queue_whose_slots_are_all_stuck_is_reported(app: Any) -> None:
    """A queue that works nothing, as its workers do not end, is a problem until a slot is free."""
    release, begun = threading.Event(), threading.Semaphore(0)

    def body(args: Task, ctx: Any) -> None:
        begun.release()
        release.wait(DEADLINE_S)

    client, _ = app.run(body, slots=2, job_timeout=0.1, job_stuck_threshold=0)
    client.insert(app.engine, Task())
    begun.acquire(timeout=DEADLINE_S)
    stuck = client._services._stuck_jobs
    until(lambda: stuck._reported, "one job is stuck")
    assert not client.problems
    client.insert(app.engine, Task())
    problem = (
        "queue 'default' works nothing: each of its 2 slots has a job that goes on although it "
        "was cancelled"
    )
    until(lambda: client.problems == (problem,), "it is reported")
    release.set()
    until(lambda: not client.problems, "a slot is free")


@pytest.fixture
def port(app: Any) -> Iterator[int]:
    """The port of a client's health probes."""
    server = probes.Probes(app.client(), "127.0.0.1", 0)
    server.start()
    yield server._server.server_address[1]
    server.stop()


def get(port: int, path: str) -> tuple[int, str]:
    """Return the status and the body of the response."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as asking:
        asking.request("GET", path)
        answer = asking.getresponse()
        return answer.status, answer.read().decode()


def test_readyz_says_why(port: int) -> None:
    """/readyz names each problem in a line of its own; /livez is about the process alone."""
    assert get(port, "/readyz") == (503, "the client does not work\n")
    assert get(port, "/livez") == (200, "ok\n")


def test_probes_are_answered_while_strangers_hold_connections(port: int) -> None:
    """Connections that send nothing neither block the probes nor take a thread each."""
    silent = [
        socket.create_connection(("127.0.0.1", port)) for _ in range(3 * probes.CONNECTIONS_MAX)
    ]

    def is_answered() -> bool:
        try:
            return get(port, "/livez") == (200, "ok\n")
        except ConnectionError:  # closed, while those that were hung up on are still counted
            return False

    try:
        until(is_answered, "an answer")
        serving = [each for each in threading.enumerate() if "process_request" in each.name]
        assert len(serving) <= 2 * probes.CONNECTIONS_MAX
    finally:
        for each in silent:
            each.close()


def test_a_request_has_an_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is closed in time, even if its caller keeps sending a little."""
    monkeypatch.setattr(probes, "LONGEST_S", 0.5)
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.settimeout(0.05)
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                slow.sendall(b"X-Slow: 1\r\n")
                if slow.recv(100) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("the connection was kept open")


def test_others_see_how_a_client_is(app: Any) -> None:
    """A heartbeat records a client's slots, its number of running jobs and its problems."""
    client, _ = app.run(queues={"default": QueueConfig(max_workers=3)})
    (row,) = list_clients(app.engine, schema=app.schema)
    assert (row.id, dict(row.slots), row.running, row.problems) == (
        *(client.id, {"default": 3}),
        *(0, ()),
    )
