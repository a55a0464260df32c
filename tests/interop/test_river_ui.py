"""River's own web UI, in its released version, on riverrun's tables."""

import json
import os
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from interop.clients import Clients, Echo
from interop.peers import build
from riverrun import (
    InsertOpts,
    JobContext,
    JobLog,
    QueueConfig,
    QueueEvent,
    QueuePaused,
    QueueResumed,
)
from waiting import DEADLINE_S


class RiverUI:
    """The UI's process and its HTTP API."""

    def __init__(self, program: Path, engine: Engine, schema: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = (folder / "riverui.log").open("w+")
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.process = subprocess.Popen(
            [str(program), "-schema", schema],
            env={
                **os.environ,
                "DATABASE_URL": url,
                "PORT": str(port),
                "RIVER_HOST": "127.0.0.1",
            },
            stdout=self._log,
            stderr=self._log,
        )

    def healthy(self) -> bool:
        """Return whether the UI responds and reports that its database works."""
        assert self.process.poll() is None, self.output()
        try:
            return self.call("GET", "/api/health-checks/complete") == {"status": "ok"}
        except (urllib.error.URLError, ConnectionError):
            return False

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded response of the API."""
        return json.loads(self.fetch(method, path, body))

    def fetch(self, method: str, path: str, body: object = None) -> bytes:
        """Return the raw response."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            return bytes(response.read())

    def jobs(self, query: str) -> list[dict[str, Any]]:
        """Return the jobs that the UI lists."""
        jobs: list[dict[str, Any]] = self.call("GET", f"/api/jobs?limit=100&{query}")["data"]
        return jobs

    def on(self, verb: str, *ids: int) -> None:
        """Do what the UI's buttons do with some jobs."""
        self.call("POST", f"/api/jobs/{verb}", {"ids": [str(job_id) for job_id in ids]})

    def output(self) -> str:
        """Return the UI's log."""
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        """Stop the UI."""
        self.process.terminate()
        self.process.wait(timeout=DEADLINE_S)
        self._log.close()


@pytest.fixture(scope="session")
def ui_program() -> Path:
    """River's UI, which is built once."""
    return build("ui", "riverqueue.com/riverui/cmd/riverui")


@pytest.fixture
def ui(
    ui_program: Path, here: Clients, engine: Engine, schema: str, tmp_path: Path
) -> Iterator[RiverUI]:
    """River's UI on the test's schema."""
    ui = RiverUI(ui_program, engine, schema, tmp_path)
    here.wait(ui.healthy, "River UI answers")
    yield ui
    ui.close()


def ids(jobs: list[dict[str, Any]]) -> list[int]:
    """Return the ids of `jobs`."""
    return [job["id"] for job in jobs]


def test_the_page_is_served(ui: RiverUI) -> None:
    """The UI serves its page and the script that the page loads."""
    page = ui.fetch("GET", "/").decode()
    assert '<div id="root"' in page
    script = page.split('src="')[1].split('"')[0]
    assert len(ui.fetch("GET", script)) > 10_000


def test_it_lists_and_shows_our_jobs(ui: RiverUI, here: Clients) -> None:
    """The UI counts jobs of every state, lists them by state, kind and queue, and shows them."""

    def work(args: Echo, ctx: JobContext) -> None:
        if args.behavior == "error":
            raise ValueError(args.message)
        ctx.record_output({"seen": args.message})

    client = here.run(work, plugins=[JobLog()])
    done = client.insert(here.engine, Echo(message="日本")).job
    failed = client.insert(
        here.engine, Echo("error", message="broken"), InsertOpts(max_attempts=1)
    ).job
    here.wait_state(done.id, "completed")
    here.wait_state(failed.id, "discarded")
    waiting = client.insert(
        here.engine, Echo(), InsertOpts(queue="other", priority=3, tags=["vip"])
    ).job
    later = client.insert(
        here.engine, Echo(), InsertOpts(scheduled_at=waiting.created_at.replace(year=2099))
    ).job

    counts = ui.call("GET", "/api/states")
    assert {state: count["count"] for state, count in counts.items()} == {
        **dict.fromkeys(("cancelled", "pending", "retryable", "running"), 0),
        **dict.fromkeys(("available", "completed", "discarded", "scheduled"), 1),
    }
    for state, job in {
        "available": waiting,
        "completed": done,
        "discarded": failed,
        "scheduled": later,
    }.items():
        assert ids(ui.jobs(f"state={state}")) == [job.id]
    assert ids(ui.jobs("state=available&queues=other&kinds=conformance_echo")) == [waiting.id]
    assert ids(ui.jobs("state=available&queues=default")) == []
    assert ids(ui.jobs("state=available&tags=vip&priorities=3")) == [waiting.id]

    seen = ui.call("GET", f"/api/jobs/{failed.id}")
    assert json.loads(seen["args"]) == {"behavior": "error", "duration_ms": 0, "message": "broken"}
    assert seen["attempted_by"] == [client.id]
    (error,) = seen["errors"]
    assert error["error"] == "ValueError: broken"
    assert "raise ValueError" in error["trace"]
    metadata = ui.call("GET", f"/api/jobs/{done.id}")["metadata"]
    assert metadata["output"] == {"seen": "日本"}
    kinds = ui.call("GET", "/api/autocomplete?facet=job_kind")
    assert kinds["data"] == ["conformance_echo"]


def test_it_cancels_retries_and_deletes_our_jobs(ui: RiverUI, here: Clients) -> None:
    """The UI's buttons act on waiting, running and final jobs of riverrun."""
    begun, cancelled = threading.Event(), threading.Event()

    def work(args: Echo, ctx: JobContext) -> None:
        if args.behavior == "wait" and not cancelled.is_set():
            begun.set()
            ctx.wait(DEADLINE_S)
            cancelled.set()
            ctx.raise_if_cancelled()

    client = here.run(work)
    waiting = client.insert(here.engine, Echo(), InsertOpts(queue="nobody")).job
    running = client.insert(here.engine, Echo("wait")).job
    assert begun.wait(DEADLINE_S)
    ui.on("cancel", waiting.id, running.id)
    assert cancelled.wait(DEADLINE_S)
    for job in (waiting, running):
        here.wait_state(job.id, "cancelled")
    assert sorted(ids(ui.jobs("state=cancelled"))) == [waiting.id, running.id]

    ui.on("retry", running.id)
    here.wait_state(running.id, "completed")
    assert client.get(here.engine, running.id).attempt == 2

    ui.on("delete", waiting.id, running.id)
    assert here.one("SELECT count(*) FROM river_job") == 0


def test_it_pauses_and_resumes_our_queues(ui: RiverUI, here: Clients) -> None:
    """The UI lists riverrun's queues with counts, and its switch pauses and resumes a client."""
    client = here.run(queues={"mail": QueueConfig(poll_interval=600)})
    events = client.subscribe(QueueEvent)
    here.wait(lambda: ui.call("GET", "/api/queues")["data"], "queues")
    ui.call("PUT", "/api/queues/mail/pause")
    assert isinstance(events.get(DEADLINE_S), QueuePaused)
    job = client.insert(here.engine, Echo(), InsertOpts(queue="mail")).job
    (queue,) = ui.call("GET", "/api/queues")["data"]
    assert (queue["name"], queue["count_available"], queue["count_running"]) == ("mail", 1, 0)
    assert queue["paused_at"]
    ui.call("PUT", "/api/queues/mail/resume")
    assert isinstance(events.get(DEADLINE_S), QueueResumed)
    here.wait_state(job.id, "completed")
    assert ui.call("GET", "/api/queues/mail")["paused_at"] is None
