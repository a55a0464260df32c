"""Hosts and servers vanish without closing their connections."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import create_engine

from faults.conftest import Plant
from faults.proxy import Proxy
from faults.server import Server
from faults.worker import Book, Send
from needs import need
from riverrun import Client, InsertOpts, JobArgs, JobContext, QueueConfig, Workers, verbs
from riverrun.client import services


@pytest.mark.parametrize(("given", "expected_ms"), [({}, 25_000), ({"tcp_user_timeout": 7}, 7)])
def test_a_server_that_vanished_is_noticed(
    proxy: Proxy, given: dict[str, Any], expected_ms: int
) -> None:
    """A client's connections notice a vanished server within 25 s, unless configured otherwise."""
    engine = create_engine(proxy.url, connect_args=given)
    Client(engine)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as end:
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == expected_ms
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    engine.dispose()


class Host:
    """A network namespace with one link to this host, which can be cut."""

    OURS, ITS = "10.213.77.1", "10.213.77.2"

    def __init__(self) -> None:
        self.name = f"rr{os.getpid()}"
        self._wire = f"v{os.getpid()}"
        self._ip("netns", "add", self.name)
        self._ip("link", "add", self._wire, "type", "veth", "peer", "wire", "netns", self.name)
        self._ip("addr", "add", f"{self.OURS}/30", "dev", self._wire)
        self._ip("link", "set", self._wire, "up")
        self._ip("-n", self.name, "addr", "add", f"{self.ITS}/30", "dev", "wire")
        self._ip("-n", self.name, "link", "set", "wire", "up")

    def cut_off(self) -> None:
        """Drop all packets in both directions without any notice."""
        nobody = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
        self._ip("neigh", "replace", self.ITS, "dev", self._wire, *nobody)
        self._ip("-n", self.name, "neigh", "replace", self.OURS, "dev", "wire", *nobody)

    def join_again(self) -> None:
        """Deliver packets again."""
        self._ip("neigh", "del", self.ITS, "dev", self._wire)
        self._ip("-n", self.name, "neigh", "del", self.OURS, "dev", "wire")

    def close(self) -> None:
        """Remove the namespace and its link."""
        self._ip("netns", "del", self.name)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def host() -> Iterator[Host]:
    """A network namespace of the test's own."""
    need("ip")
    host = Host()
    yield host
    host.close()


@pytest.mark.timeout(300)
def test_a_host_that_is_cut_off(server: Server, shaken: Plant, host: Host) -> None:
    """The leader's host vanishes: its jobs are rescued within 30 s and done by another worker.

    When the host is back, it works on, and commits no job that belongs to another worker by now.
    """
    server.let_in(f"{host.ITS}/32")
    url = f"postgresql+psycopg://postgres@{host.OURS}:{server.port}/postgres"
    shaken.worker("ada", url=url, prefix=("ip", "netns", "exec", host.name))
    leader = "SELECT max(leader_id) FROM {s}.river_leader WHERE expires_at > clock_timestamp()"
    shaken.wait(lambda: shaken.one(leader) == "ada", "ada leads", 20)
    shaken.worker("bob")
    with shaken.load() as ids:
        jobs = [kind(5.0) for _ in range(8) for kind in (Book, Send)]
        results = verbs.insert_many(shaken.engine, jobs, schema=shaken.schema)
        long = {result.job.id for result in results}
        adas = "SELECT id FROM {s}.river_job WHERE state = 'running' AND attempted_by[1] = 'ada'"
        at_work = lambda: {row.id for row in shaken.rows(adas)}  # noqa: E731
        shaken.wait(lambda: bool(at_work() & long), "ada is at work", 20)
        host.cut_off()
        began = time.monotonic()
    lost = f"{adas} AND attempt = 1"
    shaken.wait(lambda: not shaken.rows(lost), "its jobs are back", 60)
    assert time.monotonic() - began < 45
    shaken.wait_until_done(120)
    shaken.wait(lambda: shaken.one(leader) == "bob", "bob leads", 20)
    host.join_again()
    shaken.prove_alive(60)
    shaken.audit(ids | long, faults=1)


@attrs.frozen
class Hold(JobArgs, kind="hold"):
    """Args of a job that runs until the test releases it."""


@attrs.frozen
class Note(JobArgs, kind="note"):
    """Args of a job that does nothing."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pre_ping", [False, True])
def test_connections_that_a_proxy_forgot(
    proxy: Proxy, shaken: Plant, pre_ping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client recovers by itself if its connections are acknowledged but never answered.

    It keeps its lead and its jobs, receives notifications and works, while the old connections stay
    open.
    """
    monkeypatch.setattr(services, "ANSWER_S", 3.0)
    monkeypatch.setattr(services, "MAINTENANCE_S", 3.0)
    workers, begun, enough = Workers(), threading.Event(), threading.Event()
    ends: list[bool] = []

    @workers.register
    def hold(args: Hold, ctx: JobContext) -> None:
        begun.set()
        enough.wait(100)
        ends.append(ctx.cancelled)

    @workers.register
    def note(args: Note) -> None:
        pass

    def put(job: JobArgs, **opts: Any) -> int:
        return verbs.insert(shaken.engine, job, InsertOpts(**opts), schema=shaken.schema).job.id

    def completed(job_id: int) -> bool:
        query = f"SELECT state = 'completed' FROM {{s}}.river_job WHERE id = {job_id}"
        return bool(shaken.one(query))

    queues = {"default": QueueConfig(poll_interval=0.2), "rare": QueueConfig(poll_interval=3600)}
    # A connection that is being made when the proxy forgets has no statement that could be late.
    options = {"connect_timeout": 5}
    engine = create_engine(proxy.url, pool_pre_ping=pre_ping, connect_args=options)
    pids = "SELECT pid FROM pg_stat_activity WHERE client_addr IS NULL AND pid <> pg_backend_pid()"
    beat = "SELECT heartbeat_at FROM {s}.riverrun_client"
    with Client(engine, workers=workers, queues=queues, schema=shaken.schema) as client:
        try:
            held = put(Hold())
            assert begun.wait(30)
            shaken.wait(lambda: client.leads, "it leads", 30)
            old, beaten = {row.pid for row in shaken.rows(pids)}, shaken.one(beat)
            proxy.forget()
            later = shaken.one("SELECT clock_timestamp()") + timedelta(seconds=1)
            jobs = [put(Note()), put(Note(), scheduled_at=later)]
            shaken.wait(lambda: all(map(completed, jobs)), "it works and schedules", 60)
            shaken.wait(lambda: shaken.one(beat) > beaten, "a heartbeat is written", 30)
            term = "SELECT elected_at FROM {s}.river_leader"
            elected = shaken.one(term)

            def is_notified() -> bool:
                job_id = put(Note(), queue="rare")
                shaken.notify("rare")
                return threading.Event().wait(0.5) or completed(job_id)

            shaken.wait(is_notified, "a notification arrives", 60)
            assert client.leads
            assert shaken.one(term) == elected
        except BaseException:
            proxy.cut()  # otherwise the client could not stop
            raise
        finally:
            enough.set()
        shaken.wait(lambda: completed(held), "what it had is completed", 30)
        assert shaken.one(f"SELECT attempt FROM {{s}}.river_job WHERE id = {held}") == 1
        assert ends == [False]
        gone = old - {row.pid for row in shaken.rows(pids)}
        assert not gone, "connections were closed that should stay half-open"
    proxy.cut()  # a transaction may be open on one of them, whose locks would stay
    engine.dispose()


@pytest.mark.timeout(120)
def test_a_stop_while_no_connection_is_answered(
    proxy: Proxy, shaken: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop ends although open connections and new ones get no answer.

    It has outcomes to write, and jobs of several queues to give back.
    """
    for limit in ("ANSWER_S", "SIGN_S", "FLUSH_S", "PATIENCE_S"):
        monkeypatch.setattr(services, limit, 1.0)
    for limit in ("CONNECT_S", "HURRIED_CONNECT_S"):
        monkeypatch.setattr(services, limit, 2, raising=False)
    workers, begun = Workers(), threading.Event()

    @workers.register
    def note(args: Note) -> None:
        begun.set()

    engine = create_engine(proxy.url)
    queues = ["one", "two", "three"]
    client = Client(engine, workers=workers, queues=queues, schema=shaken.schema)
    client.start()
    for name in queues:
        jobs = [(Note(), InsertOpts(queue=name))] * 3_000
        verbs.insert_many_fast(shaken.engine, jobs, schema=shaken.schema)
    assert begun.wait(30)
    proxy.silence()
    stopping = threading.Thread(target=client.stop)
    stopping.start()
    stopping.join(40)
    late = stopping.is_alive()
    proxy.refuse()
    stopping.join()
    engine.dispose()
    assert not late, "the stop took longer than 40 s"
