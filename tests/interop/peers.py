"""Go's River and riverrun side by side: adapter processes, and the build of the Go one."""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from interop.rpc import Process
from needs import need

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "riverrun-interop"

BUILD_S = 900.0
KEPT_S = 7 * 86_400.0

StartPeer = Callable[[], Process]

_numbers = count(1)


def build(module: str, package: str = ".") -> Path:
    """Return the path of a Go program, after building it if its source has changed.

    Args:
        module: The folder beside this file with the Go module that pins all versions.
        package: The program's package: that of the module, or of one of its dependencies.
    """
    go = need("go")
    program = CACHE / f"{module}-{_fingerprint(HERE / module)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two runs at once must not build into the same file.
    with (CACHE / f"{module}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                built = Path(folder) / module
                done = subprocess.run(
                    [go, "build", "-o", str(built), package],
                    cwd=HERE / module,
                    capture_output=True,
                    text=True,
                    timeout=BUILD_S,
                    check=False,
                )
                if done.returncode != 0:
                    pytest.fail(f"go build of {module} failed:\n{done.stderr}")
                built.rename(program)
        program.touch()
        # Keep recent ones: other checkouts use them.
        for old in CACHE.glob(f"{module}-*"):
            if old.stat().st_mtime < time.time() - KEPT_S:
                old.unlink()
    return program


def _fingerprint(module: Path) -> str:
    digest = hashlib.sha256()
    for source in sorted(module.iterdir()):
        if source.suffix in {".go", ".mod", ".sum"}:
            digest.update(f"{source.name}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def environment(url: URL, application: str, schema: str | None) -> dict[str, str]:
    """Return the variables from which an adapter process reads its database."""
    plain = url.set(drivername="postgresql")
    if schema is not None:
        plain = plain.update_query_dict({"options": f"-csearch_path={schema}"})
    return {
        **os.environ,
        "RIVER_CONFORMANCE_APPLICATION_NAME": application,
        "RIVER_CONFORMANCE_DATABASE_KIND": "postgres",
        "RIVER_CONFORMANCE_DATABASE_URL": plain.render_as_string(hide_password=False),
    }


class Peers:
    """Starts adapter processes on one database, and stops them when the test ends."""

    def __init__(self, engine: Engine, schema: str | None) -> None:
        self.engine = engine
        self.schema = schema
        self.processes: list[Process] = []

    def go(self, program: Path, url: URL | None = None) -> Process:
        """Start a Go peer on the test's database. `url` is another address of it."""
        return self._start([str(program)], f"river-conformance-go-{next(_numbers)}", url)

    def python(self, url: URL | None = None) -> Process:
        """Start the conformance adapter on the test's database. `url` is another address of it."""
        command = [sys.executable, str(HERE / "adapter.py")]
        return self._start(command, f"river-conformance-python-{next(_numbers)}", url)

    def close(self) -> None:
        """Stop all remaining processes."""
        for process in self.processes:
            with suppress(AssertionError):
                process.close()

    def _start(self, command: list[str], application: str, url: URL | None) -> Process:
        env = environment(url or self.engine.url, application, self.schema)
        process = Process(command, env, application)
        self.processes.append(process)
        return process
