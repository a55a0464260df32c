"""Runs applications as processes, talks to them over HTTP, and always ends them."""

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from network import fetch, free_ports
from schemas import search_path_url
from waiting import DEADLINE_S, until

APPS = Path(__file__).parent / "apps"


class Site:
    """An application's processes on a schema of their own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.port = free_ports(1)
        self.at = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start `python -m ...` with the applications on its path."""
        log = (self._folder / f"{len(self._processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=APPS,
                env=self._environment(environment),
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def serve(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a server, and wait until it answers."""
        process = self.start(*arguments, environment=environment)

        def answers() -> bool:
            assert process.poll() is None, self.logs()
            try:
                return fetch(f"{self.at}/users")[0] == 200
            except OSError:
                return False

        until(answers, "an answer")

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        code: int = 0,
        stderr: bool = False,
    ) -> str:
        """Run `python -m ...` to its end; return its stdout, or its stderr."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=APPS,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if stderr else done.stdout

    def post(self, path: str, form: Mapping[str, str]) -> tuple[int, Any]:
        """Return the status of a POST, and the JSON of its answer."""
        body = urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(self.at + path, body)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def users(self) -> list[list[Any]]:
        """Return the names of the users, and which process greeted each."""
        return json.loads(fetch(f"{self.at}/users")[1])

    def logs(self) -> str:
        """Return the output of the processes."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def stop(self) -> None:
        """Send each process SIGTERM; each must exit without an error."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                code = process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                pytest.fail(f"did not end on SIGTERM:\n{self.logs()}")
            assert code in {0, -signal.SIGTERM}, self.logs()

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": self.url,
            "PYTHONPATH": str(APPS),
            **(more or {}),
        }


@pytest.fixture
def schema_url(database_url: str, schema: str) -> str:
    """A URL that puts the test's schema on the search path, for applications without schemas."""
    url = search_path_url(database_url, schema)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def schema_engine(schema_url: str) -> Iterator[Engine]:
    """An engine on the test's schema."""
    engine = create_engine(schema_url)
    yield engine
    engine.dispose()


@pytest.fixture
def site(schema_url: str, tmp_path: Path) -> Iterator[Site]:
    """An application's processes, which are ended after the test."""
    site = Site(schema_url, tmp_path)
    yield site
    site.stop()
