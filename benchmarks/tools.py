"""What benchmarks need and the project does not: built or installed outside the tree, once."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

RIVER = Path(__file__).with_name("river")


class Unavailable(Exception):
    """It cannot be had here; the message says why."""


def cache() -> Path:
    """Return the folder that keeps what was built and installed."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "riverrun-benchmarks"


def environment(requirements: Path, *, make: bool = True) -> Path:
    """Return a virtual environment with what a file of requirements pins.

    Args:
        requirements: The file.
        make: Whether to make it if it is not there.

    Raises:
        Unavailable: If it is not there, or cannot be made.
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
    """Return the program that has River (Go) work, built unless it is.

    Raises:
        Unavailable: If there is no Go.
        subprocess.CalledProcessError: If there is, and it fails.
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
    """Return the folder for what is made of these files, as they are."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return cache() / f"{name}-{digest.hexdigest()[:16]}"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"`{' '.join(command[-3:])}` failed: {lines[-1] if lines else ''}")
