"""How soon does a worker process claim its first job, and how long does the import take?"""

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
from sqlalchemy import Engine, text

from benchmarks.harness import SCHEMA, Comparison, Target, fill, in_turns, schema
from benchmarks.profiler import SHOWN

SQLALCHEMY = "SQLAlchemy and psycopg"
RIVERRUN = "riverrun"
BEYOND = "riverrun, beyond SQLAlchemy and psycopg"
WORK = "from `riverrun work` to the first claim"

_LIBRARIES = "sqlalchemy.orm, sqlalchemy.dialects.postgresql.psycopg, psycopg"
"""What an application on PostgreSQL imports anyway, at the latest with its first engine."""

_OF_WORK = "riverrun.cli.main, riverrun.cli.work, riverrun.bench.work"
"""What `riverrun work` imports beyond that, with the application below."""

_APP = """
import os

from sqlalchemy import create_engine

from riverrun import Client, QueueConfig, Workers
from riverrun.bench.work import NoOp

workers = Workers()


@workers.register
def no_op(args: NoOp) -> None:
    pass


engine = create_engine(os.environ["BENCHMARK_URL"])
schema = os.environ["BENCHMARK_SCHEMA"]
client = Client(engine, workers=workers, queues={"default": QueueConfig()}, schema=schema)
"""


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Import riverrun in new processes, and start `riverrun work`."""
    return [imported(small=small), started(engine, small=small)]


def imported(*, small: bool) -> Comparison:
    """Measure the import of riverrun beside that of the libraries it is used with."""
    rounds = 2 if small else 15
    samples = in_turns(
        {
            SQLALCHEMY: lambda: import_s(_LIBRARIES),
            RIVERRUN: lambda: import_s(f"{_LIBRARIES}, riverrun"),
        },
        rounds,
    )
    pairs = zip(samples[RIVERRUN], samples[SQLALCHEMY], strict=True)
    samples[BEYOND] = [ours - theirs for ours, theirs in pairs]
    comparison = Comparison(
        question="import in a new process, from compiled files",
        unit="s",
        samples=samples,
        targets=[Target(BEYOND, 0.15, percentile=50)],
        less=True,
    )
    return with_imports(comparison, BEYOND, ["-c", f"import {_LIBRARIES}, riverrun"])


def with_imports(comparison: Comparison, side: str, arguments: Sequence[str]) -> Comparison:
    """Return a comparison with the times of the imports of `side`, if that missed its target.

    Args:
        comparison: The comparison.
        side: The side.
        arguments: Python's arguments for a process that imports the same, and ends.
    """
    if side not in comparison.missed():
        return comparison
    command = [sys.executable, "-X", "importtime", *arguments]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return attrs.evolve(comparison, profiles={side: imports(log)})


def imports(log: str) -> str:
    """Return the seconds that each package takes to import, from a log of `-X importtime`."""
    took_us: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for line in log.splitlines():
        own_us, _, name = map(str.strip, line.removeprefix("import time:").split("|"))
        if own_us.isdecimal():  # not the heading
            package = name.partition(".")[0]
            took_us[package] += int(own_us)
            modules[package] += 1
    lines = [f"{'seconds':>8} {'modules':>8}  package, of {took_us.total() / 1e6:.2f} s traced"]
    for package, own_us in took_us.most_common(SHOWN):
        lines.append(f"{own_us / 1e6:8.3f} {modules[package]:8}  {package}")
    return "\n".join(lines)


def import_s(names: str) -> float:
    """Return the seconds that a new process takes to import modules."""
    program = (
        "import time; began = time.perf_counter()\n"
        f"import {names}\n"
        "print(time.perf_counter() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def started(engine: Engine, *, small: bool) -> Comparison:
    """Measure from the start of the command to the `attempted_at` of the first job."""
    with schema(engine) as name, TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(_APP)
        samples = [start_s(engine, name, folder) for _ in range(2 if small else 9)][1:]
    assert statistics.median(samples) > 0
    comparison = Comparison(
        question="start of a worker process, with a job that waits",
        unit="s",
        samples={WORK: samples},
        targets=[Target(WORK, 0.6, percentile=50)],
        less=True,
        notes=["By the clock of the machine, which the database shares. The first start warms up."],
    )
    return with_imports(comparison, WORK, ["-c", f"import {_LIBRARIES}, {_OF_WORK}"])


def start_s(engine: Engine, name: str, folder: str) -> float:
    """Return the seconds until a new process has claimed the job that waits.

    Args:
        engine: The engine of the database.
        name: The schema of River's tables.
        folder: Where the module `app` is.
    """
    fill(engine, 1)
    command = [sys.executable, "-m", "riverrun", "work", "app:client"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]),
        "BENCHMARK_URL": engine.url.render_as_string(hide_password=False),
        "BENCHMARK_SCHEMA": name,
    }
    statement = text(
        "SELECT extract(epoch FROM attempted_at)::float8 "
        f"FROM {SCHEMA}.river_job WHERE state = 'completed' ORDER BY id DESC LIMIT 1"
    )
    waiting = text(f"SELECT count(*) FROM {SCHEMA}.river_job WHERE state <> 'completed'")
    began = time.time()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with engine.connect() as connection:
            while connection.scalar(waiting):
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                connection.rollback()
                time.sleep(0.02)
            claimed = connection.scalar(statement)
            assert claimed is not None, "no job was completed"
            return float(claimed) - began
    finally:
        process.terminate()
        process.wait()
