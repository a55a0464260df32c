"""What a process under test says, and how it ends."""

import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from time import monotonic

import pytest
from sqlalchemy import Engine, select

from riverrun.jobs.states import JobState
from riverrun.models import Job

DEADLINE_S = 60.0


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit code, and all that was said."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in out + err, err
    return process.returncode, out + err


def read_began(process: "subprocess.Popen[str]") -> str:
    """Wait until a worker began, and return what it said."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("began"), f"no worker began: {line!r}"
    return line.strip()


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


def fetch(url: str) -> tuple[int, str]:
    """Return the status and body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def free_ports(count: int) -> int:
    """Return the first of `count` ports in a row that nobody listens on."""
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind(("127.0.0.1", 0))
            first = int(sockets[0].getsockname()[1])
            for offset, each in enumerate(sockets[1:], 1):
                each.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first


def until(
    condition: Callable[[], object],
    what: str,
    deadline_s: float = DEADLINE_S,
    why: Callable[[], object] = lambda: "",
) -> None:
    """Wait until `condition` holds; say what did not come, and `why`, what stands in its way."""
    deadline = monotonic() + deadline_s
    while not condition():
        assert monotonic() < deadline, f"{what}: not within {deadline_s:g} s; {why()}"
        threading.Event().wait(0.05)
