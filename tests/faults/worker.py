"""A worker process that tests kill: `worker.py URL SCHEMA ID [OPTIONS]`.

It works until SIGTERM and prints "ready" when it begins. OPTIONS are the Client's options, as
JSON. It works the queue "default" and a queue named by its ID, which it learns of by
notifications alone.

Each effect is a row in the table `effect`, which has no constraint against duplicates.
"""

import faulthandler
import json
import logging
import random
import signal
import sys
import threading

import attrs
from sqlalchemy import create_engine, text

from riverrun import Client, Constant, JobArgs, JobContext, QueueConfig, Workers

workers = Workers()
INSERT = "INSERT INTO {}.effect (job_id, attempt, sort) VALUES (:job_id, :attempt, :sort)"


@attrs.frozen
class Book(JobArgs, kind="book"):
    """Args of a job whose effect and completion are one commit."""

    wait_s: float = 0.0


@attrs.frozen
class Send(JobArgs, kind="send"):
    """Args of a job whose effect is committed before its completion."""

    wait_s: float = 0.0


def effect(ctx: JobContext, sort: str) -> tuple[object, dict[str, object]]:
    """Return the statement and parameters that record one effect of `ctx`'s job."""
    values = {"job_id": ctx.job.id, "attempt": ctx.job.attempt, "sort": sort}
    return text(INSERT.format(ctx.client.schema)), values


@workers.register(backoff=Constant(delay=0.1))
def book(args: Book, ctx: JobContext) -> None:
    """Record the effect in the transaction that completes the job."""
    with ctx.transaction() as session:
        session.execute(*effect(ctx, "book"))
        pause(args.wait_s)


@workers.register(backoff=Constant(delay=0.1))
def send(args: Send, ctx: JobContext) -> None:
    """Record the effect, then keep running for a while."""
    with ctx.client.engine.begin() as connection:
        connection.execute(*effect(ctx, "send"))
    pause(args.wait_s)


def pause(wait_s: float) -> None:
    """Wait for `wait_s` seconds, or for a moment if it is 0, and ignore all cancels."""
    threading.Event().wait(wait_s or random.random() * 0.03)


def main() -> None:
    """Work until a signal requests a stop."""
    url, schema, client_id, *options = sys.argv[1:]
    logging.basicConfig(format="%(asctime)s %(threadName)s %(message)s")
    # Of a worker that hangs: it prints each thread's stack, and the signal ends it.
    faulthandler.register(signal.SIGUSR2, chain=True)
    # sigwait takes the signal, since a handler would run in the main thread. Nothing wakes that
    # thread if another thread received the signal, as happens in a process that was just
    # resumed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    queues = {
        "default": QueueConfig(max_workers=8, poll_interval=0.2),
        client_id: QueueConfig(max_workers=1, poll_interval=3600),
    }
    client = Client(
        create_engine(url, pool_size=16),
        workers=workers,
        queues=queues,
        schema=schema,
        id=client_id,
        **json.loads(options[0] if options else "{}"),
    )
    with client:
        print("ready", flush=True)  # noqa: T201  the test waits for it
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main()
