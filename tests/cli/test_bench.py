"""`riverrun bench`: its figures are of jobs that were each worked once, and it leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

import riverrun
from factories import insert_job
from waiting import DEADLINE_S

KEYS = {
    "jobs_per_second",
    "pickup_p50_ms",
    "pickup_p99_ms",
    "inserted",
    "worked",
    "seconds",
    "settings",
    "versions",
}


def command(*arguments: str) -> list[str]:
    """Return how a shell would run the benchmark."""
    return [sys.executable, "-m", "riverrun", "bench", *arguments]


def environment(url: str) -> dict[str, str]:
    """Return an environment with the riverrun under test, and its database."""
    source = str(Path(riverrun.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "RIVERRUN_DATABASE_URL": url}


def bench(url: str, *arguments: str) -> dict[str, Any]:
    """Run the benchmark, and return what it says at its end."""
    done = subprocess.run(
        command("--json", *arguments),
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert set(said) == KEYS
    return said


def left(engine: Engine) -> list[str]:
    """Return the schemas that benchmarks have left."""
    statement = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'riverrun_bench%'"
    with engine.connect() as connection:
        return list(connection.scalars(text(statement)))


def test_it_drains_what_it_inserted(database_url: str, engine: Engine) -> None:
    """By default settings, one process works each job once; its figures make sense."""
    said = bench(database_url, "--jobs", "3000", "--max-workers", "10")
    assert (said["inserted"], said["worked"]) == (3000, 3000)
    assert said["settings"]["max_workers"] == 10
    assert said["settings"]["claim_ahead"] == riverrun.QueueConfig().claim_ahead
    assert said["jobs_per_second"] == pytest.approx(3000 / said["seconds"], rel=0.01)
    assert 0 < said["pickup_p50_ms"] <= said["pickup_p99_ms"] < 2000
    assert {"riverrun", "python", "sqlalchemy", "psycopg", "postgresql"} == set(said["versions"])
    assert left(engine) == []


def test_processes_share_a_queue(database_url: str, engine: Engine) -> None:
    """Two processes work one queue, tuned, and no job twice."""
    said = bench(database_url, "--jobs", "4000", "--processes", "2", "--tuned")
    assert (said["inserted"], said["worked"]) == (4000, 4000)
    assert (said["settings"]["processes"], said["settings"]["max_workers"]) == (2, 100)
    assert left(engine) == []


def test_it_leaves_the_jobs_of_others_alone(database_url: str, engine: Engine, schema: str) -> None:
    """In a schema that is in use, it works and removes its own jobs only, and tidies up nothing."""
    long_ago = datetime.now(UTC) - timedelta(days=30)
    own = {
        insert_job(engine, schema, kind="riverrun_bench_no_op"): "available",
        insert_job(
            engine, schema, state="completed", attempted_at=long_ago, finalized_at=long_ago
        ): "completed",
        insert_job(engine, schema, state="running", attempt=1, attempted_at=long_ago): "running",
        insert_job(engine, schema, state="scheduled", scheduled_at=long_ago): "scheduled",
    }
    said = bench(database_url, "--jobs", "100", "--schema", schema)
    assert said["worked"] == 100
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT id, state FROM {schema}.river_job")).all()
        assert {row.id: row.state for row in rows} == own
        for table in ("river_queue", "riverrun_client", "river_leader"):
            assert connection.scalar(text(f"SELECT count(*) FROM {schema}.{table}")) == 0, table


def test_it_runs_for_a_while(database_url: str, engine: Engine) -> None:
    """Without a number of jobs it inserts and works at once, for as long as it is told to."""
    said = bench(database_url, "--duration", "1")
    assert said["inserted"] == said["worked"] >= 5000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(
    database_url: str, engine: Engine, number: signal.Signals
) -> None:
    """A signal half-way removes its schema, and ends its processes."""
    with running(database_url) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert "pick-up at idle: not measured" in output
    assert left(engine) == []


def test_the_death_of_a_process_ends_it_and_leaves_nothing(
    database_url: str, engine: Engine
) -> None:
    """Whoever waits for a worker that is gone hears of it, and finds the database as it was."""
    with running(database_url) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert f"worker process {children[0]} ended with -9" in errors
    assert left(engine) == []


@contextmanager
def running(url: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a benchmark of two processes that has worked for two seconds."""
    with subprocess.Popen(
        command("--processes", "2"),
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "jobs/s" in process.stdout.readline()
        yield process


@pytest.mark.parametrize(
    ("url", "code"), [("postgresql://127.0.0.1:1/none", 3), ("sqlite://", 2), ("nonsense", 2)]
)
def test_it_says_which_database_it_cannot_use(url: str, code: int) -> None:
    """A database that is no PostgreSQL or cannot be reached has its own exit code."""
    done = subprocess.run(
        command("--jobs", "1"), env=environment(url), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
