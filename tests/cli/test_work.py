"""`riverrun work` as a process: signals, exit codes, and output."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from cli.conftest import APP
from factories import insert_job, only_state
from network import fetch
from processes import end, read_began, read_stopping
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from waiting import DEADLINE_S, until

Start = Callable[..., subprocess.Popen[str]]


def test_ends_what_runs_on_a_signal(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """After SIGTERM, the running job finishes, and the process ends with 0."""
    insert_job(engine, schema, kind="task", args={"how": "short"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
    assert only_state(engine, schema) is JobState.completed


def test_cancels_on_the_second_signal(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """A second signal cancels running jobs, which become available again; the exit code is 0."""
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    read_stopping(process)  # two signals at once would be one
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
    assert only_state(engine, schema) is JobState.available


def test_says_that_it_was_interrupted_twice(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """A second Ctrl-C cancels running jobs, and the exit code is 130."""
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGINT)
    read_stopping(process)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    assert only_state(engine, schema) is JobState.available


def test_leaves_an_applications_own_signals_to_it(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """A signal that the application handles itself does not stop the process."""
    own = "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('own', flush=True))\n"
    insert_job(engine, schema, kind="task")
    process = start(database_url, schema, source=own + APP)
    read_began(process)
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    assert process.stdout.readline() == "own\n"
    insert_job(engine, schema, kind="task")
    read_began(process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_a_signal_ends_a_start_that_hangs(start: Start) -> None:
    """SIGTERM ends the wait for a database that accepts the connection but does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(DEADLINE_S)
        process = start(f"postgresql+psycopg://127.0.0.1:{mute.getsockname()[1]}/db", "s")
        connection, _ = mute.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            code, output = end(process)
    assert code == 0, output
    assert "the database does not answer" in output


def test_answers_probes_while_a_start_waits_for_a_lock(
    start: Start, engine: Engine, database_url: str, schema: str, free_port: int
) -> None:
    """A process whose start waits for a table's lock is alive, and not ready."""
    at = f"http://127.0.0.1:{free_port}"

    def livez() -> int:
        with contextlib.suppress(urllib.error.URLError):  # nobody listens yet
            return fetch(at + "/livez")[0]
        return 0

    with engine.begin() as connection:
        connection.exec_driver_sql(f"LOCK TABLE {schema}.river_job IN ACCESS EXCLUSIVE MODE")
        process = start(database_url, schema, options=["--health-port", str(free_port)])
        until(lambda: livez() == 200, "it is alive")
        assert fetch(at + "/readyz") == (503, "the client does not work\n")
    until(lambda: fetch(at + "/readyz")[0] == 200, "it is ready")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_cuts_off_a_deaf_worker(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """If a worker ignores its cancellation, the process names the job and ends with 1."""
    job_id = insert_job(engine, schema, kind="task", args={"how": "deaf"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    read_stopping(process)
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    assert code == 1
    assert f"{job_id} (task)" in output


@pytest.mark.parametrize(
    ("app", "source", "expected"),
    [
        ("nowhere:client", APP, "no module 'nowhere' in"),
        ("shop:nobody", APP, "shop has no 'nobody'; it has the client 'client'"),
        ("shop:other", APP, "is of type int"),
        ("shop", APP, "is not module:client"),
        ("./shop.py:client", APP, "names a file; expected module:client, such as shop:client"),
        ("a/shop.py", APP, "names a file; expected module:client, such as a.shop:client"),
        ("shop:client", "import not_there", "No module named 'not_there'"),
        ("shop:client", "def (", "SyntaxError"),
        ("shop:client", "raise RuntimeError('at import')", "RuntimeError: at import"),
    ],
)
def test_says_that_there_is_no_client(start: Start, app: str, source: str, expected: str) -> None:
    """A missing client is exit code 2 with one line; a failed import also shows its traceback."""
    process = start("postgresql+psycopg://u:hidden@localhost/db", "s", app, source)
    error = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 2, error
    assert expected in error
    assert "hidden" not in error
    assert ("line 1" in error) == (source != APP)
    assert "importlib" not in error


def test_says_that_the_database_is_not_there(start: Start) -> None:
    """A database that cannot be reached is exit code 3, and its password is not shown."""
    url = "postgresql+psycopg://u:hidden@127.0.0.1:1/db"
    code, output = end(start(url, "s", options=["--no-wait"]))
    assert code == 3, output
    assert "hidden" not in output
    code, output = end(start(url, "s", options=["--wait", "1.5"]))
    assert code == 3, output
    assert output.count("waiting for the database, 1.5 s at most: cannot reach the database") == 1


def test_waits_for_a_database_that_comes_later(
    start: Start, engine: Engine, database_url: str, empty_database: Engine
) -> None:
    """A start waits while the database refuses connections; a signal ends the wait with 0."""
    migrate(empty_database)
    name = empty_database.url.database
    url = empty_database.url.render_as_string(hide_password=False)

    def allow(yes: bool) -> None:
        empty_database.dispose()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}"))

    allow(False)
    process, stopped = start(url, None), start(url, None)
    for each in (process, stopped):
        assert each.stderr is not None
        assert "waiting for the database, 60 s at most" in each.stderr.readline()
    stopped.send_signal(signal.SIGTERM)
    assert end(stopped)[0] == 0
    allow(True)
    assert process.stderr is not None
    assert "connected after" in next(line for line in process.stderr if "client" not in line)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_says_that_the_tables_are_missing(start: Start, database_url: str) -> None:
    """Missing tables are exit code 4, with the command that creates them."""
    code, output = end(start(database_url, "not_there"))
    assert code == 4, output
    assert "riverrun migrate up" in output
    password = make_url(database_url).password
    assert password is None or str(password) not in output


def test_works_the_queues_that_its_options_name(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """`--queue NAME:SLOTS` replaces the client's own queues."""
    insert_job(engine, schema, kind="task", args={"how": "short"})
    job_id = insert_job(engine, schema, kind="task", queue="mail", args={"how": "short"})
    process = start(database_url, schema, options=["--queue", "mail:1", "-q", "crm"])
    assert read_began(process) == f"began {job_id}"
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    assert code == 0
    assert "working crm (100 slots), mail (1 slot); workers for 1 kind" in output
    assert "--queue names 'crm', which is not a queue of the client; it has 'default'" in output
    assert end(start(database_url, schema, options=["--queue", "mail:x"]))[0] == 2


def test_hurries_on_sigquit(start: Start, engine: Engine, database_url: str, schema: str) -> None:
    """SIGQUIT cancels running jobs at once."""
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    process = start(database_url, schema)
    read_began(process)
    process.send_signal(signal.SIGQUIT)
    assert end(process)[0] == 0
    assert only_state(engine, schema) is JobState.available


FAILING = (
    APP
    + """
import json
@workers.register
def fails(args: Fails) -> None:
    json.loads(args.card)
""".replace(
        "@workers", "@attrs.frozen\nclass Fails(JobArgs, kind='fails'):\n    card: str\n\n@workers"
    )
)
SECRET = "4111-SECRET\nCRITICAL root: forged"


@pytest.mark.parametrize(
    ("options", "texts"),
    [((), False), (("--tracebacks",), True), (("--tracebacks", "--log-format", "json"), True)],
    ids=["production", "tracebacks", "json"],
)
def test_logs_how_attempts_came_out(
    start: Start,
    engine: Engine,
    database_url: str,
    schema: str,
    options: Sequence[str],
    texts: bool,
) -> None:
    """A success is logged with its time, a failure with its class and place, or its traceback."""
    failing = insert_job(engine, schema, kind="fails", args={"card": SECRET}, max_attempts=1)
    process = start(database_url, schema, source=FAILING, options=options)
    until(lambda: only_state(engine, schema) is JobState.discarded, "the failure")
    done = insert_job(engine, schema, kind="task")
    read_began(process)
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0
    assert re.search(rf"completed job {done} \(task\) in \d+ ms", log)
    (line,) = (line for line in log.splitlines() if f"at job {failing} (fails): JSON" in line)
    if texts:
        assert "Extra data" in line
        assert "in fails" in log
        assert "json.loads(args.card)" in log
    else:
        assert line.endswith("JSONDecodeError at shop.py:41 in fails")
        assert "Extra data" not in log
    assert not any(line.startswith("CRITICAL") for line in log.splitlines())
    assert "4111" not in log


def test_logs_json(start: Start, engine: Engine, database_url: str, schema: str) -> None:
    """With `--log-format json`, each record is a line of JSON with its extra fields."""
    job_id = insert_job(engine, schema, kind="nobody")
    process = start(database_url, schema, options=["--log-format", "json"])
    assert process.stderr is not None
    records = iter(lambda: json.loads(process.stderr.readline()), None)
    failed = next(record for record in records if "failed attempt" in record["message"])
    assert (failed["job_id"], failed["kind"], failed["level"]) == (job_id, "nobody", "warning")
    assert "no worker for kind 'nobody'; known: 'task'" in failed["message"]
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("abstract", "options"), [(False, ()), (True, ("-p", "2"))], ids=["path", "abstract"]
)
def test_notifies_systemd(
    start: Start,
    engine: Engine,
    database_url: str,
    schema: str,
    tmp_path: Path,
    abstract: bool,
    options: Sequence[str],
) -> None:
    """The process notifies systemd when it works jobs, when it stops, and that it is alive."""
    address = f"@riverrun-{os.getpid()}" if abstract else str(tmp_path / "notify")
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        systemd.settimeout(DEADLINE_S)

        def expect(expected: bytes) -> None:
            while (message := systemd.recv(100)) != expected:
                assert message == b"WATCHDOG=1"

        variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        process = start(database_url, schema, options=options, environment=variables)
        expect(b"READY=1")
        expect(b"WATCHDOG=1")
        read_began(process)
        process.send_signal(signal.SIGTERM)
        expect(b"STOPPING=1")
        expect(b"WATCHDOG=1")  # also while it waits for jobs
    process.send_signal(signal.SIGQUIT)
    assert end(process)[0] == 0


def test_answers_probes(
    start: Start, engine: Engine, database_url: str, schema: str, free_port: int
) -> None:
    """/livez, /readyz and /metrics are answered while the client works."""
    insert_job(engine, schema, kind="task", args={"how": "end"})
    process = start(database_url, schema, options=["--health-port", str(free_port)])
    read_began(process)
    at = f"http://127.0.0.1:{free_port}"
    # A job may begin before all threads of the client have started.
    until(lambda: fetch(at + "/readyz")[0] == 200, "it is ready")
    assert [fetch(at + path)[0] for path in ("/livez", "/other")] == [200, 404]
    status, metrics = fetch(at + "/metrics")
    assert status == 200
    assert 'riverrun_jobs{queue="default",state="available"}' in metrics
    assert "riverrun_leader" in metrics
    assert "riverrun_claim_duration_seconds_count" in metrics
    assert fetch(at + "/livez?verbose")[0] == 200
    taken = end(start(database_url, schema, options=["--health-port", str(free_port)]))
    assert (taken[0], "cannot listen" in taken[1]) == (2, True)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_is_not_ready_while_the_database_is_away(
    start: Start, engine: Engine, empty_database: Engine, free_port: int
) -> None:
    """/readyz is 503 while heartbeats fail, and 200 once they succeed again; /livez stays 200."""
    migrate(empty_database)
    name = empty_database.url.database
    url = empty_database.url.render_as_string(hide_password=False)
    at = f"http://127.0.0.1:{free_port}"
    process = start(url, None, options=["--health-port", str(free_port)])

    def ready() -> int:
        try:
            return fetch(f"{at}/readyz")[0]
        except OSError:
            return 0

    def allow(yes: bool) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}"))
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(others), {"name": name})

    until(lambda: ready() == 200, "readiness")
    allow(False)
    until(lambda: ready() == 503, "the end of readiness")
    assert fetch(f"{at}/livez")[0] == 200
    allow(True)
    until(lambda: ready() == 200, "readiness again")
    allow(False)
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    allow(True)
    assert code == 0, output


def test_measures_a_client_that_measures_itself(
    start: Start, engine: Engine, database_url: str, schema: str, free_port: int
) -> None:
    """/metrics also works if the application has instrumented its client already."""
    source = (
        APP + "\nfrom riverrun.instrumentation.prometheus import instrument\ninstrument(client)\n"
    )
    insert_job(engine, schema, kind="task")
    process = start(database_url, schema, source=source, options=["--health-port", str(free_port)])
    read_began(process)
    counted = 'riverrun_attempts_total{kind="task",outcome="completed",queue="default"} 1.0'
    until(lambda: counted in fetch(f"http://127.0.0.1:{free_port}/metrics")[1], "one attempt")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("options", "environment"),
    [(("--app", "shop:client"), {}), ((), {"RIVERRUN_APP": "shop:client"})],
    ids=["option", "environment"],
)
def test_the_client_may_be_an_option(
    start: Start,
    engine: Engine,
    database_url: str,
    schema: str,
    options: Sequence[str],
    environment: dict[str, str],
) -> None:
    """`--app` and RIVERRUN_APP can name the client in place of the argument."""
    insert_job(engine, schema, kind="task")
    process = start(database_url, schema, None, options=options, environment=environment)
    read_began(process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "own INFO"),
        (("--log-format", "text"), "INFO ["),
        (("--log-format", "json"), '"more": 7'),
    ],
)
def test_an_applications_own_logs(
    start: Start, database_url: str, schema: str, options: Sequence[str], expected: str
) -> None:
    """The application's logging is kept unless an option changes it; JSON includes extra fields."""
    source = (
        "import logging\n"
        "logging.basicConfig(level='INFO', format='own %(levelname)s %(message)s')\n"
        "class More(logging.Filter):\n"
        "    def filter(self, record):\n"
        "        record.more = 7\n"
        "        return True\n"
        "logging.getLogger('riverrun.client').addFilter(More())\n"
    )
    process = start(database_url, schema, source=source + APP, options=options)
    assert process.stderr is not None
    line = next(line for line in process.stderr if "started client" in line)
    assert expected in line
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


BROKEN = """
import threading
from riverrun.runtime import health

health.BEYOND_REPAIR_S = 1.0
start = threading.Thread.start

def refuse(thread):
    if thread.name == "riverrun.poller" and broken:
        raise RuntimeError("can't start new thread")
    start(thread)

broken = []
threading.Thread.start = refuse
"""

BREAKS = """
@workers.register(kind="break")
def break_it(args: dict) -> None:
    print("began", flush=True)
    broken.append(True)
    gone = threading.Thread(target=bool)
    start(gone)
    gone.join()
    client._services.poller._thread = gone
"""


def test_ends_when_it_is_beyond_repair(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """If a thread of the client cannot be started again, the process ends so another can start."""
    insert_job(engine, schema, kind="break")
    source = (
        BROKEN
        + APP
        + BREAKS.replace("args: dict", "args: RawArgs").replace(
            "\n@workers", "\nfrom riverrun import RawArgs\n\n@workers", 1
        )
    )
    process = start(database_url, schema, source=source)
    code, output = end(process)
    assert code == 5, output
    assert "riverrun.poller has been failing" in output
    assert only_state(engine, schema) is JobState.completed
