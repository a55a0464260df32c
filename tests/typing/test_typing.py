"""Type checkers accept what the documentation shows, and refuse what would fail at run time."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def output() -> str:
    """What mypy, strict, says of the files here."""
    files = [str(path) for path in sorted(HERE.glob("*.py")) if path != Path(__file__)]
    root = HERE.parents[1]
    # Its own cache, or it would replace what it keeps of the sources with other settings.
    cache = f"--cache-dir={root / '.mypy_cache' / 'typing'}"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", cache, *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert not ran.stderr, ran.stderr
    return ran.stdout


def test_what_is_documented_is_accepted(output: str) -> None:
    """Args of every library, workers of every shape and options in every form have types."""
    assert "accepted" not in output, output


def test_pyright_accepts_it_too() -> None:
    """Pyright accepts what is documented: it finds no ClassVar where a protocol has a property."""
    found = shutil.which("pyright") or shutil.which("basedpyright")
    if found is None:
        pytest.skip("needs pyright or basedpyright on the PATH")
    files = sorted(map(str, HERE.glob("accepted*.py")))
    command = [found, "--level", "error", "--pythonpath", sys.executable, *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    # Basedpyright alone refuses any two bases with constructors.
    errors = [line for line in ran.stdout.splitlines() if " - error: " in line]
    assert not [line for line in errors if "reportUnsafeMultipleInheritance" not in line], (
        ran.stdout
    )


def test_what_would_fail_is_refused(output: str) -> None:
    """A text for args, a worker without a kind, a misspelt option: each is found, nothing else."""
    expected = {
        (path.name, str(number))
        for path in HERE.glob("refused*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("# refused")
    }
    assert {*re.findall(r"(refused\w*\.py):(\d+): error", output)} == expected, output
