"""`riverrun bench`: its figures count jobs that were each worked once, and it cleans up."""

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
    """Return the command line of the benchmark."""
    return [sys.executable, "-m", "riverrun", "bench", *arguments]


def environment(url: str) -> dict[str, str]:
    """Return an environment with the riverrun under test, and its database."""
    source = str(Path(riverrun.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "RIVERRUN_DATABASE_URL": url}


def bench(url: str, *arguments: str) -> dict[str, Any]:
    """Run the benchmark, and return its result."""
    done = subprocess.run(
        command("--json", *arguments),
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "is its name right" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert set(result) == KEYS
    return result


def left(engine: Engine) -> list[str]:
    """Return the schemas that benchmarks have left."""
    statement = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'riverrun_bench%'"
    with engine.connect() as connection:
        return list(connection.scalars(text(statement)))


def test_it_drains_what_it_inserted(database_url: str, engine: Engine) -> None:
    """With default settings, one process works each job once, and the figures are plausible."""
    result = bench(database_url, "--jobs", "3000", "--max-workers", "10")
    assert (result["inserted"], result["worked"]) == (3000, 3000)
    assert result["settings"]["max_workers"] == 10
    assert result["settings"]["claim_ahead"] == riverrun.QueueConfig().claim_ahead
    assert result["jobs_per_second"] == pytest.approx(3000 / result["seconds"], rel=0.01)
    assert 0 < result["pickup_p50_ms"] <= result["pickup_p99_ms"] < 2000
    assert {"riverrun", "python", "sqlalchemy", "psycopg", "postgresql"} == set(result["versions"])
    assert left(engine) == []


def test_processes_share_a_queue(database_url: str, engine: Engine) -> None:
    """Two processes with tuned settings work one queue, and no job twice."""
    result = bench(database_url, "--jobs", "4000", "--processes", "2", "--tuned")
    assert (result["inserted"], result["worked"]) == (4000, 4000)
    assert (result["settings"]["processes"], result["settings"]["max_workers"]) == (2, 100)
    assert left(engine) == []


def test_it_leaves_the_jobs_of_others_alone(database_url: str, engine: Engine, schema: str) -> None:
    """In a schema in use, it works and removes only its own jobs, and does no maintenance."""
    long_ago = datetime.now(UTC) - timedelta(days=30)
    own = {
        insert_job(engine, schema, kind="riverrun_bench_no_op"): "available",
        insert_job(
            engine, schema, state="completed", attempted_at=long_ago, finalized_at=long_ago
        ): "completed",
        insert_job(engine, schema, state="running", attempt=1, attempted_at=long_ago): "running",
        insert_job(engine, schema, state="scheduled", scheduled_at=long_ago): "scheduled",
    }
    result = bench(database_url, "--jobs", "100", "--schema", schema)
    assert result["worked"] == 100
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT id, state FROM {schema}.river_job")).all()
        assert {row.id: row.state for row in rows} == own
        for table in ("river_queue", "riverrun_client", "river_leader"):
            assert connection.scalar(text(f"SELECT count(*) FROM {schema}.{table}")) == 0, table


def test_it_runs_for_a_while(database_url: str, engine: Engine) -> None:
    """Without a number of jobs, it inserts and works jobs for the given duration."""
    result = bench(database_url, "--duration", "1")
    assert result["inserted"] == result["worked"] >= 5000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(
    database_url: str, engine: Engine, number: signal.Signals
) -> None:
    """After a signal, it removes its schema and ends its processes."""
    with running(database_url) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert "pick-up at idle: not measured" in output
    assert left(engine) == []


def test_the_death_of_a_process_ends_it_and_leaves_nothing(
    database_url: str, engine: Engine
) -> None:
    """If a worker process dies, the benchmark fails with an error, and cleans up."""
    with running(database_url) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert f"worker process {children[0]} ended with -9" in errors
    assert left(engine) == []


@contextmanager
def running(url: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a running benchmark with two processes, two seconds after its start."""
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
    """Exit code 2 means a database that is not PostgreSQL, 3 one that cannot be reached."""
    done = subprocess.run(
        command("--jobs", "1"), env=environment(url), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
