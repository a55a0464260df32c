"""Tools that only benchmarks need; they are built or installed once, outside the repository."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

RIVER = Path(__file__).with_name("river")


class Unavailable(Exception):
    """A tool is not available here; the message says why."""


def cache() -> Path:
    """Return the folder of the built and installed tools."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "riverrun-benchmarks"


def environment(requirements: Path, *, make: bool = True) -> Path:
    """Return a virtual environment with the packages of a requirements file.

    Args:
        requirements: The requirements file.
        make: Whether to create the environment if it does not exist.

    Raises:
        Unavailable: If the environment does not exist, or cannot be created.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = _place(f"{requirements.stem}-{python}", [requirements])
    if (place / "complete").exists():
        return place
    if not make:
        raise Unavailable(f"{requirements.name} is not installed; a whole run installs it")
    shutil.rmtree(place, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(place)])
    _run([str(place / "bin" / "pip"), "install", "--quiet", "--requirement", str(requirements)])
    (place / "complete").touch()
    return place


def river() -> Path:
    """Return the Go program that runs River; build it first if needed.

    Raises:
        Unavailable: If Go is not installed.
        subprocess.CalledProcessError: If the build fails.
    """
    go = shutil.which("go")
    if go is None:
        raise Unavailable("River (Go) is left out: there is no `go` on PATH")
    program = _place("river", sorted(RIVER.glob("*.*"))) / "river"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        building = program.with_suffix(f".{os.getpid()}")
        subprocess.run([go, "build", "-o", str(building), "."], cwd=RIVER, check=True)
        building.rename(program)
    return program


def _place(name: str, sources: list[Path]) -> Path:
    """Return the folder for a tool that is made from these versions of the files."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return cache() / f"{name}-{digest.hexdigest()[:16]}"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"`{' '.join(command[-3:])}` failed: {lines[-1] if lines else ''}")
