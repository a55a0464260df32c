"""chancy, on PostgreSQL: coroutines, 1,000 at once.

Settings: its documentation recommends `eager_polling` for less time between jobs, and AsyncExecutor
for large numbers of jobs.
"""

import asyncio
import logging
import signal

import common
import psycopg
from chancy import Chancy, Queue, Worker, job

SLOTS = 1_000


@job()
async def no_op(*, number: int) -> None:
    """Do nothing but be counted."""
    common.call(number)


def fill() -> None:
    """Make the tables and insert the jobs."""

    async def filling() -> None:
        async with Chancy(common.settings()["url"]) as chancy:
            await chancy.migrate()
            await chancy.declare(
                Queue(
                    "default",
                    concurrency=SLOTS,
                    executor=Chancy.Executor.Async,
                    polling_interval=1,
                    eager_polling=True,
                )
            )
            jobs = [
                no_op.job.with_kwargs(number=number) for number in range(common.settings()["jobs"])
            ]
            async for _ in chancy.push_many(jobs):
                pass

    asyncio.run(filling())


def work() -> None:
    """Work until SIGTERM."""

    async def working() -> None:
        stop = asyncio.Event()
        async with (
            Chancy(common.settings()["url"], log=logging.getLogger("quiet")) as chancy,
            Worker(chancy, register_signal_handlers=False),
        ):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            await stop.wait()

    asyncio.run(working())


def unfinished() -> int:
    """Return how many jobs did not succeed."""
    with psycopg.connect(common.settings()["url"]) as connection:
        return connection.execute(
            "SELECT count(*) FROM chancy_jobs WHERE state <> 'succeeded'"
        ).fetchone()[0]


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
