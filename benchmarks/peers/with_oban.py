"""Oban for Python, on PostgreSQL: coroutines, 100 at once.

Settings: the limit of a queue is that of its README's Quick Start; its CLI runs on uvloop.
"""

import asyncio
import signal

import common
import psycopg
import uvloop
from oban import Oban, worker
from oban.schema import install

SLOTS = 100


@worker(queue="default", max_attempts=1)
class NoOp:
    """A job that is only counted."""

    async def process(self, job: object) -> None:
        """Do nothing but be counted."""
        common.call(job.args["number"])


def fill() -> None:
    """Make the tables and insert the jobs."""

    async def filling() -> None:
        pool = await Oban.create_pool(common.settings()["url"])
        await install(pool)
        oban = Oban(pool=pool)
        jobs = common.settings()["jobs"]
        for first in range(0, jobs, 1_000):
            numbers = range(first, min(first + 1_000, jobs))
            await oban.enqueue_many(NoOp.new({"number": number}) for number in numbers)
        await pool.close()

    asyncio.run(filling())


def work() -> None:
    """Work until SIGTERM."""

    async def working() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        pool = await Oban.create_pool(common.settings()["url"], min_size=10, max_size=10)
        async with Oban(pool=pool, queues={"default": SLOTS}):
            await stop.wait()
        await pool.close()

    uvloop.run(working())


def unfinished() -> int:
    """Return how many jobs did not complete."""
    with psycopg.connect(common.settings()["url"]) as connection:
        return connection.execute(
            "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'"
        ).fetchone()[0]


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
