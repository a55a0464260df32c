"""How fast do riverrun and other Python job queues work waiting no-op jobs?

Each peer is a program under peers/. All peers share a virtual environment, which the first full run
creates. Without a `redis-server` on PATH, the two peers on Redis are left out.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
from sqlalchemy import Engine, text

from benchmarks import tools
from benchmarks.drain import ours, tuned
from benchmarks.harness import Comparison, LeftOut, Target
from benchmarks.peers.common import VARIABLE, Ledger
from riverrun.config import QueueConfig

PEERS = Path(__file__).with_name("peers")
DATABASE = "riverrun_peer"
DEADLINE_S = 180.0
OURS = "riverrun, tuned"
DEFAULTS = "riverrun, defaults"


class Failed(Exception):
    """A peer failed. It is left out, and the result says so."""


@attrs.frozen
class Peer:
    """Another job queue.

    Attributes:
        name: Its name for readers.
        module: The module of its program under peers/.
        package: The package that it needs.
        redis: Whether its jobs are in Redis.
    """

    name: str
    module: str
    package: str
    redis: bool = False


ALL = (
    Peer("procrastinate", "with_procrastinate", "procrastinate"),
    Peer("PgQueuer", "with_pgqueuer", "pgqueuer"),
    Peer("Oban (Python)", "with_oban", "oban"),
    Peer("chancy", "with_chancy", "chancy"),
    Peer("Dramatiq, on Redis", "with_dramatiq", "dramatiq", redis=True),
    Peer("Celery, on Redis", "with_celery", "celery", redis=True),
)


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Drain the same number of jobs by each side in turns, five times."""
    jobs, rounds = (200, 1) if small else (5_000, 5)
    try:
        environment = tools.environment(PEERS / "requirements.txt", make=not small)
    except tools.Unavailable as error:
        if small:
            raise LeftOut(str(error)) from error
        raise
    sides: dict[str, Callable[[], float]] = {
        OURS: lambda: tuned(engine, jobs),
        DEFAULTS: lambda: ours(engine, jobs, slots=QueueConfig().max_workers),
    }
    notes = [
        "A peer's clock runs from its first job to its last, which is to its favour.",
        "Redis syncs its file once a second; PostgreSQL waits for its disk at each commit.",
    ]
    found = installed(environment)
    for peer in ALL:
        reason = missing(found, peer)
        if reason is None:
            sides[peer.name] = lambda peer=peer: drain(engine, environment, peer, jobs)  # type: ignore[misc]
        else:
            notes.append(f"{peer.name} is left out: {reason}.")
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in list(sides.items()):
            try:
                samples[side].append(measure())
            except Failed as error:
                if small:
                    raise
                # Leave it out: it may fail again, and fewer runs give no fair median.
                notes.append(f"{side} is left out: {error}.")
                del sides[side], samples[side]
    peers = [side for side in samples if side not in (OURS, DEFAULTS)]
    return [
        Comparison(
            question=f"drain of {jobs:,} no-op jobs, beside peers",
            unit="jobs/s",
            samples=samples,
            targets=[Target(OURS, 1.0, peer) for peer in peers],
            settings={"versions": found},
            notes=notes,
        )
    ]


def drain(engine: Engine, environment: Path, peer: Peer, jobs: int) -> float:
    """Return the jobs per second of a peer, after checking that it called each job once."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="riverrun-peer-"))
        settings = {"url": "", "redis": "", "ledger": f"{folder}/ledger", "jobs": jobs}
        if peer.redis:
            settings["redis"] = stack.enter_context(redis(folder))
        else:
            settings["url"] = stack.enter_context(database(engine))
        ledger = Ledger.make(settings["ledger"], jobs)  # type: ignore[arg-type]
        variables = {**os.environ, VARIABLE: json.dumps(settings), "PYTHONPATH": str(PEERS)}
        ask(environment, peer, "fill", variables)
        if not peer.redis:
            with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text("CHECKPOINT"))
        with subprocess.Popen(
            command(environment, peer, "work"),
            env=variables,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as worker:
            try:
                await_calls(ledger, worker, peer)
                unfinished = await_records(environment, peer, variables)
            finally:
                end(worker)
        if unfinished:
            raise Failed(f"{unfinished} jobs were called, and are not done in its own records")
        calls = ledger.calls()
        twice = sum(times > 1 for _, times in calls)
        if twice:
            raise Failed(f"{twice} jobs were called more than once")
        at = [moment for moment, _ in calls]
        return jobs / (max(at) - min(at))


def await_calls(ledger: Ledger, worker: subprocess.Popen[str], peer: Peer) -> None:
    """Wait until every job has been called."""
    deadline = time.monotonic() + DEADLINE_S
    while left := sum(not times for _, times in ledger.calls()):
        if worker.poll() is not None:
            raise Failed(f"{peer.module} ended with {worker.returncode}, {left} jobs left")
        if time.monotonic() > deadline:
            raise Failed(f"{left} jobs were not called within {DEADLINE_S:g} s")
        threading.Event().wait(0.2)


def await_records(environment: Path, peer: Peer, variables: Mapping[str, str]) -> int:
    """Wait up to ten seconds; return how many jobs are still unfinished in the peer's records."""
    deadline = time.monotonic() + 10
    while left := int(ask(environment, peer, "unfinished", variables)):
        if time.monotonic() > deadline:
            return left
    return 0


def end(worker: subprocess.Popen[str]) -> None:
    """Ask a worker to end; if it does not, kill it and all processes that it started."""
    worker.terminate()
    try:
        worker.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()


def ask(environment: Path, peer: Peer, what: str, variables: Mapping[str, str]) -> str:
    """Run a command of a peer's program, and return its output."""
    done = subprocess.run(
        command(environment, peer, what),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Failed(f"{peer.module} {what} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout.strip()


def command(environment: Path, peer: Peer, what: str) -> list[str]:
    """Return the command line of a peer's program."""
    return [str(environment / "bin" / "python"), str(PEERS / f"{peer.module}.py"), what]


def missing(found: Mapping[str, str], peer: Peer) -> str | None:
    """Return why a peer cannot be measured here; None if it can."""
    if peer.redis and shutil.which("redis-server") is None:
        return "there is no `redis-server` on PATH"
    if peer.package not in found:
        return f"{peer.package} cannot be installed on this Python"
    return None


def installed(environment: Path) -> dict[str, str]:
    """Return the installed versions of the peers."""
    done = subprocess.run(
        [str(environment / "bin" / "pip"), "list", "--format=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {peer.package for peer in ALL}
    return {
        package["name"]: package["version"]
        for package in json.loads(done.stdout)
        if package["name"] in names
    }


@contextlib.contextmanager
def database(engine: Engine) -> Iterator[str]:
    """Yield the URL of an empty database on the same server."""
    drop = text(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(drop)
        connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    try:
        url = engine.url.set(drivername="postgresql", database=DATABASE)
        yield url.render_as_string(hide_password=False)
    finally:
        with autocommit.connect() as connection:
            connection.execute(drop)


@contextlib.contextmanager
def redis(folder: str) -> Iterator[str]:
    """Yield the URL of a Redis server with an append-only file that is synced once a second."""
    socket = f"{folder}/redis.sock"
    options = {
        "port": "0",
        "unixsocket": socket,
        "dir": folder,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    with subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while not Path(socket).exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise Failed("redis-server did not start")
                threading.Event().wait(0.02)
            yield f"unix://{socket}"
        finally:
            server.terminate()
