"""Worker processes that tests start, stop and kill, and what is left for the audit."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

WORKER = Path(__file__).with_name("worker.py")


class Plant:
    """Worker processes on one schema."""

    def __init__(self, engine: Engine, schema: str) -> None:
        self.engine = engine
        self.schema = schema
        self.processes: list[subprocess.Popen[str]] = []
        with engine.begin() as connection:
            connection.execute(
                text(f"CREATE TABLE {schema}.effect (job_id bigint, attempt int, sort text)")
            )

    def worker(self, name: str) -> subprocess.Popen[str]:
        """Start a worker process and wait until it works."""
        url = self.engine.url.render_as_string(hide_password=False)
        process = subprocess.Popen(
            [sys.executable, str(WORKER), url, self.schema, name], stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def rows(self, statement: str) -> list[Any]:
        """Return what a statement on the tables of the schema reads; `{s}` is its name."""
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement.format(s=self.schema))))

    def one(self, statement: str) -> Any:
        """Return the one value that a statement reads."""
        return self.rows(statement)[0][0]

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float) -> None:
        """Wait until `condition` holds."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {deadline_s:g} s"
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill every process that is left."""
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def plant(engine: Engine, schema: str) -> Iterator[Plant]:
    """Worker processes on the test's schema, all gone at its end."""
    plant = Plant(engine, schema)
    yield plant
    plant.stop()
