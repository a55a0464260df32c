"""What a process under test prints, and how it ends."""

import subprocess

import pytest

from waiting import DEADLINE_S


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait until a process ends; return its exit code and all that it printed."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in out + err, err
    return process.returncode, out + err


def read_began(process: "subprocess.Popen[str]") -> str:
    """Wait until a worker began, and return the line that it printed."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("began"), f"no worker began: {line!r}"
    return line.strip()


def read_stopping(process: "subprocess.Popen[str]") -> None:
    """Wait until a process says that it stops."""
    assert process.stderr is not None
    for line in process.stderr:
        if "stopping in" in line:
            return
    pytest.fail("the process ended without saying that it stops")
