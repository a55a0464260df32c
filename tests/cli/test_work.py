"""`riverrun work`, as a process: signals, exit codes, and what it says."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, select

from factories import insert_job
from riverrun.models import Job
from riverrun.states import JobState

DEADLINE_S = 30.0

APP = """
import threading
import attrs
from sqlalchemy import create_engine
from riverrun import Client, JobArgs, JobContext, QueueConfig, Workers

workers = Workers()

@attrs.frozen
class Task(JobArgs, kind="task"):
    how: str = "end"

@workers.register(timeout=0)
def work(args: Task, ctx: JobContext) -> None:
    print("began", ctx.job.id, flush=True)
    if args.how == "deaf":
        threading.Event().wait()
    if args.how == "listens":
        while not ctx.wait(60):
            pass
        ctx.raise_if_cancelled()
    if args.how == "short":
        ctx.wait(0.3)

client = Client(
    create_engine({url!r}),
    schema={schema!r},
    workers=workers,
    queues={{"default": QueueConfig(max_workers=2)}},
    hard_stop_timeout=0.2,
)
other = 7
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `riverrun work` on an application; whatever is left of it is killed."""
    processes: list[subprocess.Popen[str]] = []

    def run(url: str, schema: str, app: str = "shop:client", source: str = APP) -> object:
        (tmp_path / "shop.py").write_text(source.format(url=url, schema=schema))
        process = subprocess.Popen(
            [sys.executable, "-m", "riverrun", "work", app],
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run  # type: ignore[misc]
    for process in processes:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit code, and all that was said."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in out + err, err
    return process.returncode, out + err


def read_began(process: "subprocess.Popen[str]") -> None:
    """Wait until a worker began."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("began"), f"no worker began: {line!r}"


def read_stopping(process: "subprocess.Popen[str]") -> None:
    """Wait until the first signal was heard."""
    assert process.stderr is not None
    for line in process.stderr:
        if "stopping in" in line:
            return
    pytest.fail("the process ended without saying that it stops")


def only_state(engine: Engine, schema: str) -> JobState:
    """Return the state of the only job."""
    options = {"schema_translate_map": {None: schema}}
    with engine.connect() as connection:
        return JobState(connection.execute(select(Job.state), execution_options=options).scalar())


def test_ends_what_runs_on_a_signal(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """SIGTERM lets the running job end, then the process ends with 0."""
    insert_job(engine, schema, kind="task", args={"how": "short"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
    assert only_state(engine, schema) is JobState.completed


def test_cancels_on_the_second_signal(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """A second signal cancels what runs; it goes back, and the process ends with 0."""
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    read_stopping(process)  # two signals at once would be one
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
    assert only_state(engine, schema) is JobState.available


def test_cuts_off_a_deaf_worker(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """A worker that ignores its cancellation is named, and the process ends with 1."""
    job_id = insert_job(engine, schema, kind="task", args={"how": "deaf"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    read_stopping(process)
    process.send_signal(signal.SIGTERM)
    code, said = end(process)
    assert code == 1
    assert f"{job_id} (task)" in said


@pytest.mark.parametrize(
    ("app", "source"),
    [
        ("nowhere:client", APP),
        ("shop:nobody", APP),
        ("shop:other", APP),
        ("shop", APP),
        ("shop:client", "import not_there"),
        ("shop:client", "def ("),
        ("shop:client", "raise RuntimeError('at import')"),
    ],
)
def test_says_that_there_is_no_client(start: Start, app: str, source: str) -> None:
    """What is no client, or cannot be imported, is said in a line, with exit code 2."""
    code, said = end(start("postgresql+psycopg://u:hidden@localhost/db", "s", app, source))
    assert code == 2, said
    assert "hidden" not in said


def test_says_that_the_database_is_not_there(start: Start) -> None:
    """A database that cannot be reached is exit code 3, and its password is not shown."""
    code, said = end(start("postgresql+psycopg://u:hidden@127.0.0.1:1/db", "s"))
    assert code == 3, said
    assert "hidden" not in said


def test_says_that_the_tables_are_missing(start: Start, database_url: str) -> None:
    """Missing tables are exit code 4, with the command that makes them."""
    code, said = end(start(database_url, "not_there"))
    assert code == 4, said
    assert "riverrun migrate up" in said
    password = make_url(database_url).password
    assert password is None or str(password) not in said
