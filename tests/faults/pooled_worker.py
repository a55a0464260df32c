"""A worker behind PgBouncer: `pooled_worker.py URL SCHEMA ID [DIRECT_URL]`.

It prints the class of each pause and resume event. If DIRECT_URL is given, it listens at that
address, past the pooler. Otherwise it polls.
"""

import signal
import sys
import threading

import attrs
from sqlalchemy import NullPool, create_engine
from worker import workers

from riverrun import Client, JobArgs, JobContext, QueueConfig
from riverrun.events import QueuePaused, QueueResumed

POOLED = {"poolclass": NullPool, "connect_args": {"prepare_threshold": None}}


@attrs.frozen
class Endure(JobArgs, kind="endure"):
    """Args of a job that runs until it is cancelled."""


@workers.register(timeout=0)
def endure(args: Endure, ctx: JobContext) -> None:
    """Wait until the job is cancelled."""
    while not ctx.wait(60):
        pass
    ctx.raise_if_cancelled()


def main() -> None:
    """Work until a signal requests a stop."""
    url, schema, client_id, *direct = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    listen_engine = None
    if direct:
        # The test finds the connection by this name.
        named = {"application_name": f"listener-{client_id}"}
        listen_engine = create_engine(direct[0], connect_args=named)
    client = Client(
        create_engine(url, **POOLED),
        workers=workers,
        # A worker that listens must not depend on polling.
        queues={"default": QueueConfig(max_workers=4, poll_interval=60 if direct else 0.2)},
        schema=schema,
        id=client_id,
        poll_only=not direct,
        listen_engine=listen_engine,
    )
    client.listen(lambda event: print(type(event).__name__, flush=True), QueuePaused, QueueResumed)  # noqa: T201
    with client:
        print("ready", flush=True)  # noqa: T201  the test waits for it
        stop.wait()


if __name__ == "__main__":
    main()
