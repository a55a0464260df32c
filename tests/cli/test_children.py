"""Child processes that workers start under `riverrun work`: their signals, files and end."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cli.test_processes import alive
from factories import insert_job, only_state
from processes import end, read_began
from riverrun import JobState, verbs
from waiting import until

Start = Callable[..., subprocess.Popen[str]]

REPORT = """
import json, os, pathlib, sys, time

HERE = pathlib.Path(__file__).parent

def report(name):
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink("/proc/self/fd/" + fd)
        except FileNotFoundError:
            pass
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    facts = {key: int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigCgt")}
    facts.update(pid=os.getpid(), fds=fds)
    (HERE / (name + ".tmp")).write_text(json.dumps(facts))
    (HERE / (name + ".tmp")).rename(HERE / (name + ".json"))
    time.sleep(60)

if __name__ == "__main__":
    report(sys.argv[1])
"""
APP = """
import multiprocessing, os, subprocess, sys, threading, time
import attrs
from sqlalchemy import create_engine, text
from report import HERE, report
from riverrun import Client, JobArgs, QueueConfig, Workers

workers = Workers()
@attrs.frozen
class OfThread(JobArgs, kind="thread"):
    how: str
@attrs.frozen
class OfCoroutine(JobArgs, kind="coroutine"):
    how: str
@attrs.frozen
class OfProcess(JobArgs, kind="process"):
    how: str
@attrs.frozen
class Pool(JobArgs, kind="pool"):
    pass
@attrs.frozen
class Writes(JobArgs, kind="writes"):
    pass

def begin(name, how):
    command = [sys.executable, "-S", str(HERE / "report.py"), name]
    if how == "exec":
        subprocess.Popen(command)
    elif how == "preexec":
        subprocess.Popen(command, preexec_fn=lambda: None)
    elif how == "os.fork":
        if os.fork() == 0:
            report(name)
    else:
        context = multiprocessing.get_context(how)
        context.Process(target=report, args=(name,)).start()

@workers.register
def thread(args: OfThread) -> None:
    begin("thread-" + args.how, args.how)

@workers.register
async def coroutine(args: OfCoroutine) -> None:
    begin("coroutine-" + args.how, args.how)

@workers.register(executor="process")
def process(args: OfProcess) -> None:
    begin("process-" + args.how, args.how)

@workers.register
def pool(args: Pool) -> None:
    print("began pool", flush=True)
    with multiprocessing.get_context("fork").Pool(1) as p:
        try:
            p.apply_async(time.sleep, (600,)).get(timeout=0.1)
        except multiprocessing.TimeoutError:
            pass

@workers.register(timeout=0)
def writes(args: Writes, ctx) -> None:
    with ctx.transaction() as session:
        session.execute(text("SELECT 1"))
        begin("writes", "os.fork")
        print("began", flush=True)
        threading.Event().wait()

client = Client(
    create_engine({url!r}),
    schema={schema!r},
    workers=workers,
    queues={{"default": QueueConfig(max_workers=4)}},
    hard_stop_timeout=0.2,
)
"""

WAYS = [
    *(("thread", how) for how in ("os.fork", "fork", "spawn", "exec", "preexec")),
    *((kind, how) for kind in ("coroutine", "process") for how in ("os.fork", "exec")),
]
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Return a function that waits for the report of a child; kill the children at the end."""
    (tmp_path / "report.py").write_text(REPORT)

    def wait(name: str) -> dict[str, Any]:
        path = tmp_path / f"{name}.json"
        until(path.exists, f"the report of {name}")
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    yield wait
    for path in tmp_path.glob("*.json"):
        pid = json.loads(path.read_text())["pid"]
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def sockets(fds: dict[str, str]) -> set[str]:
    """Return the sockets among open files, except the standard streams."""
    return {file for fd, file in fds.items() if int(fd) > 2 and file.startswith("socket:")}


def held(pid: int) -> set[str]:
    """Return the sockets that a process holds."""
    folder = Path(f"/proc/{pid}/fd")
    return sockets({path.name: os.readlink(path) for path in folder.iterdir() if path.is_symlink()})


@pytest.mark.parametrize("options", [(), ("-p", "2")], ids=["one", "two"])
def test_a_child_is_as_one_of_a_plain_script(
    start: Start,
    engine: Engine,
    database_url: str,
    schema: str,
    free_port: int,
    children: Callable[[str], dict[str, Any]],
    options: Sequence[str],
) -> None:
    """However a child is started, it has default signals and none of the worker's sockets.

    SIGTERM ends it, and one that is left behind keeps neither the worker's exit nor its port.
    """
    options = ["--health-port", str(free_port), *options]
    process = start(database_url, schema, source=APP, options=options)
    found = {}
    for kind, how in WAYS:
        # One by one: in any Python program, a child forked while another thread starts a program
        # keeps that thread waiting.
        insert_job(engine, schema, kind=kind, args={"how": how})
        found[f"{kind}-{how}"] = children(f"{kind}-{how}")
    works = [client.pid for client in verbs.list_clients(engine, schema=schema)]
    parents = {process.pid, *works}
    ours = set().union(*map(held, parents))
    for name, report in found.items():
        for number in STOPS:
            bit = 1 << (number - 1)
            assert not report["SigIgn"] & bit, (name, number)
            assert number == signal.SIGINT or not report["SigCgt"] & bit, (name, number)
        assert report["SigBlk"] == 0, name
        assert not sockets(report["fds"]) & ours, name
    process.send_signal(signal.SIGTERM)
    # Do not wait for the end of its streams: its children hold them too, as in any program.
    until(lambda: process.poll() is not None, "the worker's end")
    assert process.returncode == 0
    with socket.create_server(("127.0.0.1", free_port)):
        pass
    for name, report in found.items():
        if alive(report["pid"]):
            os.kill(report["pid"], signal.SIGTERM)
        until(lambda pid=report["pid"]: not alive(pid), f"the end of {name}")


def test_a_pool_that_is_left_ends(
    start: Start, engine: Engine, database_url: str, schema: str, children: object
) -> None:
    """A worker that leaves the block of a pool ends the pool's busy child, as in any script."""
    insert_job(engine, schema, kind="pool")
    process = start(database_url, schema, source=APP)
    read_began(process)
    until(lambda: only_state(engine, schema) is JobState.completed, "the end of the job")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_a_child_keeps_no_transaction_open(
    start: Start,
    engine: Engine,
    database_url: str,
    schema: str,
    children: Callable[[str], dict[str, Any]],
) -> None:
    """Locks of a killed worker are released, even if a child that it forked lives on."""
    insert_job(engine, schema, kind="writes")
    process = start(database_url, schema, source=APP)
    read_began(process)
    assert alive(children("writes")["pid"])
    process.kill()

    def open_transactions() -> int:
        with engine.connect() as connection:
            return connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
                " AND datname = current_database() AND query = 'SELECT 1'"
            ).scalar_one()

    until(lambda: open_transactions() == 0, "the end of the transaction")
    assert alive(children("writes")["pid"])
