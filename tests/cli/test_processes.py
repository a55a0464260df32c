"""`riverrun work --processes`: the supervisor and its children, killed, reloaded and stopped."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.conftest import APP
from factories import insert_job, only_state
from network import fetch
from processes import end, read_began, read_stopping
from riverrun import verbs
from riverrun.jobs.states import JobState
from waiting import until

Start = Callable[..., subprocess.Popen[str]]


def pids(engine: Engine, schema: str) -> set[int]:
    """Return the process ids of the living clients."""
    return {client.pid for client in verbs.list_clients(engine, schema=schema)}


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_starts_a_dead_child_again(
    start: Start, engine: Engine, database_url: str, schema: str, free_port: int
) -> None:
    """A child killed by SIGKILL is started again; SIGTERM ends all processes, with exit code 0."""
    options = ["--processes", "2", "--health-port", str(free_port)]
    process = start(database_url, schema, options=options)
    until(lambda: len(pids(engine, schema)) == 2, "two clients")
    for number in range(2):
        url = f"http://127.0.0.1:{free_port + number}/readyz"
        until(lambda url=url: fetch(url)[0] == 200, f"200 from {url}")  # type: ignore[misc]
    first = pids(engine, schema)
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(pids(engine, schema) - first) == 1, "another client in its place")
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    assert code == 0, output
    assert re.search(r"process \d exited with -9; starting it again in", output)
    assert not any(alive(pid) for pid in pids(engine, schema))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 0),
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGQUIT,), 0),
    ],
)
def test_the_second_signal_hurries_the_children(
    start: Start,
    engine: Engine,
    database_url: str,
    schema: str,
    numbers: Sequence[signal.Signals],
    expected: int,
) -> None:
    """Two signals to the supervisor, or SIGQUIT, cancel the running jobs of its children."""
    insert_job(engine, schema, kind="task", args={"how": "listens"})
    process = start(database_url, schema, options=["-p", "2"])
    read_began(process)
    for number in numbers[:-1]:
        process.send_signal(number)
        read_stopping(process)  # two signals at once would be one
    process.send_signal(numbers[-1])
    code, output = end(process)
    assert code == expected, output
    assert only_state(engine, schema) is JobState.available


def test_children_end_with_their_supervisor(
    start: Start, engine: Engine, database_url: str, schema: str
) -> None:
    """If the supervisor is killed, its children stop."""
    process = start(database_url, schema, options=["-p", "2"])
    until(lambda: len(pids(engine, schema)) == 2, "two clients")
    children = pids(engine, schema)
    process.kill()
    until(lambda: not any(alive(pid) for pid in children), "the end of the children")
    until(lambda: not pids(engine, schema), "their farewell")


def test_children_that_start_end_with_their_supervisor(
    start: Start, engine: Engine, database_url: str, schema: str, tmp_path: Path
) -> None:
    """If the supervisor is killed while its children import the application, they end too."""
    # The application of the children goes on loading until the supervisor is gone.
    slow = (
        "import os, pathlib, threading\n"
        "supervisor = os.getppid()\n"
        "(pathlib.Path(__file__).parent / str(os.getpid())).with_suffix('.child').touch()\n"
        "while os.getppid() == supervisor:\n"
        "    threading.Event().wait(0.01)\n"
    )
    process = start(database_url, schema, source=slow + APP, options=["-p", "2"])
    until(lambda: len(list(tmp_path.glob("*.child"))) == 2, "two children that load")
    children = [int(path.stem) for path in tmp_path.glob("*.child")]
    process.kill()
    until(lambda: not any(alive(pid) for pid in children), "the end of the children")


def test_waits_longer_each_time(start: Start, database_url: str, schema: str) -> None:
    """A child that keeps dying is started again after growing pauses."""
    source = "import os\nos._exit(7)\n"
    process = start(database_url, schema, source=source, options=["-p", "2"])
    assert process.stderr is not None
    log = [process.stderr.readline() for _ in range(6)]
    pauses = [
        re.search(r"process \d exited with 7; starting it again in ([\d.]+) s", line)
        for line in log
    ]
    assert sorted(float(pause[1]) for pause in pauses if pause) == [0.5, 0.5, 1, 1, 2, 2], log
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_does_not_repeat_what_is_hopeless(start: Start, database_url: str) -> None:
    """If tables or the client are missing, the supervisor ends with the children's exit code."""
    assert end(start(database_url, "not_there", options=["-p", "2"]))[0] == 4
    assert end(start(database_url, "x", app="shop:nobody", options=["-p", "2"]))[0] == 2


def test_reloads(
    start: Start, engine: Engine, database_url: str, schema: str, tmp_path: Path
) -> None:
    """With --reload, the processes restart when a file changes."""
    process = start(database_url, schema, options=["--reload"])
    until(lambda: len(pids(engine, schema)) == 1, "a client")
    changed = APP.format(url=database_url, schema=schema).replace(
        'print("began"', 'print("began anew"'
    )
    first = pids(engine, schema)
    (tmp_path / "shop.py").write_text(changed)
    until(lambda: bool(pids(engine, schema) - first), "a client anew")
    insert_job(engine, schema, kind="task")
    assert read_began(process).startswith("began anew")
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 0
