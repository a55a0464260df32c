"""Fixtures for tests that run commands as processes: an application, and its processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from network import free_ports
from waiting import DEADLINE_S

APP = """
import threading
import attrs
from sqlalchemy import create_engine
from riverrun import Client, JobArgs, JobContext, QueueConfig, Workers

workers = Workers()

@attrs.frozen
class Task(JobArgs, kind="task"):
    how: str = "end"

@workers.register(timeout=0)
def work(args: Task, ctx: JobContext) -> None:
    print("began", ctx.job.id, flush=True)
    if args.how == "deaf":
        threading.Event().wait()
    if args.how == "listens":
        while not ctx.wait(60):
            pass
        ctx.raise_if_cancelled()
    if args.how == "short":
        ctx.wait(0.3)

client = Client(
    create_engine({url!r}),
    schema={schema!r},
    workers=workers,
    queues={{"default": QueueConfig(max_workers=2)}},
    hard_stop_timeout=0.2,
)
other = 7
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `riverrun work` on an application; kill its processes at the end."""
    processes: list[subprocess.Popen[str]] = []

    def run(
        url: str,
        schema: str,
        app: str | None = "shop:client",
        source: str = APP,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> object:
        (tmp_path / "shop.py").write_text(source.format(url=url, schema=schema))
        process = subprocess.Popen(
            [sys.executable, "-m", "riverrun", "work", *([app] if app else []), *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run  # type: ignore[misc]
    for process in processes:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def free_port() -> int:
    """The first of three free ports in a row."""
    return free_ports(3)
