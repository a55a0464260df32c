"""A worker process of the soak: `python -m benchmarks.soak_worker URL SCHEMA ID`.

It works until SIGTERM. The effect of a job is a row, committed with the job's completion. No
constraint prevents a second row, so the rows show how often each job was worked.
"""

import random
import signal
import sys
import threading

import attrs
from sqlalchemy import create_engine, text

from riverrun import Client, Constant, JobArgs, JobContext, JobSnooze, QueueConfig, Workers

EFFECT = "INSERT INTO {}.effect (job_id, waited_s) VALUES (:job_id, :waited_s)"
SLOTS = 8
workers = Workers()


@attrs.frozen
class Short(JobArgs, kind="soak_short"):
    """Args of a job that only has its effect."""


@attrs.frozen
class Large(JobArgs, kind="soak_large"):
    """Args of 10 kB."""

    text: str


@attrs.frozen
class Long(JobArgs, kind="soak_long"):
    """Args of a job that takes 10 to 200 ms."""


@attrs.frozen
class Flaky(JobArgs, kind="soak_flaky"):
    """Args of a job whose first attempt fails."""


@attrs.frozen
class Patient(JobArgs, kind="soak_patient"):
    """Args of a job that snoozes once."""


@workers.register
def short(_: Short, ctx: JobContext) -> None:
    """Have the effect."""
    have_effect(ctx)


@workers.register
def large(_: Large, ctx: JobContext) -> None:
    """Have the effect."""
    have_effect(ctx)


@workers.register
def long(_: Long, ctx: JobContext) -> None:
    """Wait, and have the effect."""
    ctx.wait(random.uniform(0.01, 0.2))
    have_effect(ctx)


@workers.register(backoff=Constant(delay=1))
def flaky(_: Flaky, ctx: JobContext) -> None:
    """Fail the first time, then have the effect."""
    if not ctx.job.errors:
        raise RuntimeError("the first attempt")
    have_effect(ctx)


@workers.register
def patient(_: Patient, ctx: JobContext) -> None:
    """Snooze the first time, then have the effect."""
    if "snoozes" not in ctx.job.metadata:
        raise JobSnooze(1)
    have_effect(ctx)


def have_effect(ctx: JobContext) -> None:
    """Insert the row of the effect, in the transaction that completes the job."""
    job = ctx.job
    assert job.attempted_at is not None
    waited_s = (job.attempted_at - job.scheduled_at).total_seconds()
    with ctx.transaction() as session:
        values = {"job_id": job.id, "waited_s": waited_s}
        session.execute(text(EFFECT.format(ctx.client.schema)), values)


def main() -> None:
    """Work until SIGTERM."""
    url, schema, client_id = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    client = Client(
        create_engine(url, pool_size=SLOTS + 4),
        workers=workers,
        queues={"default": QueueConfig(max_workers=SLOTS)},
        schema=schema,
        id=client_id,
    )
    with client:
        stop.wait()


if __name__ == "__main__":
    main()
