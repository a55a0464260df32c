"""`riverrun work`, as a process: signals, exit codes, and what it says."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from cli.conftest import APP
from factories import insert_job
from riverrun.states import JobState
from said import DEADLINE_S, end, fetch, only_state, read_began, read_stopping

Start = Callable[..., subprocess.Popen[str]]


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


def test_works_the_queues_it_is_told(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """`--queue NAME:SLOTS` replaces the client's own queues."""
    insert_job(engine, schema, kind="task", args={"how": "short"})
    job_id = insert_job(engine, schema, kind="task", queue="mail", args={"how": "short"})
    process = start(database_url, schema, options=["--queue", "mail:1", "-q", "crm"])
    assert read_began(process) == f"began {job_id}"
    process.send_signal(signal.SIGTERM)
    code, said = end(process)
    assert code == 0
    assert "working crm, mail" in said
    assert end(start(database_url, schema, options=["--queue", "mail:x"]))[0] == 2


def test_hurries_on_sigquit(start: Start, engine: Engine, database_url: str, schema: str) -> None:
    """SIGQUIT cancels what runs at once."""
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGQUIT)
    assert end(process)[0] == 0
    assert only_state(engine, schema) is JobState.available


def test_logs_json(start: Start, engine: Engine, database_url: str, schema: str) -> None:
    """`--log-format json` makes each record a line of JSON with its facts."""
    job_id = insert_job(engine, schema, kind="nobody")
    process = start(database_url, schema, options=["--log-format", "json"])
    assert process.stderr is not None
    records = iter(lambda: json.loads(process.stderr.readline()), None)
    failed = next(record for record in records if "failed attempt" in record["message"])
    assert (failed["job_id"], failed["kind"], failed["level"]) == (job_id, "nobody", "warning")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_tells_systemd(start: Start, database_url: str, schema: str, tmp_path: Path) -> None:
    """A service of Type=notify is told when jobs are worked, that it lives, and that it stops."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(DEADLINE_S)
        said = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        process = start(database_url, schema, environment=said)
        assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        while (heard := systemd.recv(100)) != b"STOPPING=1":
            assert heard == b"WATCHDOG=1"
    assert end(process)[0] == 0


def test_answers_probes(
    start: Start, engine: Engine, database_url: str, schema: str, free_port: int
) -> None:
    """/livez, /readyz and /metrics are answered while it works."""
    insert_job(engine, schema, kind="task", args={"how": "end"})
    process = start(database_url, schema, options=["--health-port", str(free_port)])
    read_began(process)
    at = f"http://127.0.0.1:{free_port}"
    assert [fetch(at + path)[0] for path in ("/livez", "/readyz", "/other")] == [200, 200, 404]
    status, metrics = fetch(at + "/metrics")
    assert status == 200
    assert 'riverrun_jobs{queue="default"' in metrics or "riverrun_leader" in metrics
    assert "riverrun_claim_duration_seconds_count" in metrics
    taken = end(start(database_url, schema, options=["--health-port", str(free_port)]))
    assert (taken[0], "cannot listen" in taken[1]) == (2, True)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
