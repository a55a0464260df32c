"""The Python side: clients in this process that work the same kind as the Go peer."""

import time
from collections.abc import Callable
from typing import Any

import attrs

from interop.rows import Rows
from riverrun import Client, JobArgs, JobContext, Workers
from started import Started
from waiting import DEADLINE_S, until


@attrs.frozen
class Echo(JobArgs, kind="conformance_echo"):
    """Args of the kind that both sides work."""

    behavior: str = ""
    duration_ms: int = 0
    message: str = ""


@attrs.frozen
class Ours(JobArgs, kind="interop_ours"):
    """Args of a kind for which Go has no worker."""

    number: int = 0


Body = Callable[[Any, JobContext], object]


class Clients(Started, Rows):
    """Makes clients that work the same kind as the Go peer."""

    def run(self, body: Body | None = None, *, slots: int = 4, **options: Any) -> Client:
        """Start a client that works Echo and Ours with `body`."""
        workers = Workers()

        @workers.register
        def echo(args: Echo, ctx: JobContext) -> None:
            if body is not None:
                body(args, ctx)

        @workers.register
        def ours(args: Ours, ctx: JobContext) -> None:
            if body is not None:
                body(args, ctx)

        client = self.make(workers, slots=slots, **options)
        client.start()
        return client

    def inserter(self) -> Client:
        """Return a client that inserts and reads but does not work."""
        return Client(self.engine, schema=self.schema)

    def wait(
        self, condition: Callable[[], object], what: str, within_s: float = DEADLINE_S
    ) -> float:
        """Wait until `condition` holds; return how many seconds that took."""
        begun = time.monotonic()
        until(condition, what, within_s)
        return time.monotonic() - begun

    def wait_state(self, job_id: int, state: str) -> None:
        """Wait until a job is in a state."""
        asked = "SELECT state::text FROM river_job WHERE id = :id"
        try:
            self.wait(lambda: self.one(asked, id=job_id) == state, f"job {job_id} {state}")
        except AssertionError as problem:
            raise AssertionError(f"{problem}; it is {self.one(asked, id=job_id)}") from None
