"""PgQueuer, on PostgreSQL: coroutines, on asyncpg and uvloop.

Settings: its README recommends asyncpg, and its documentation on benchmarks raises the `batch_size`
of `PgQueuer.run` for throughput. By design it deletes finished jobs, and adds a row to its log.
"""

import asyncio
import signal

import asyncpg
import common
import psycopg
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

BATCH = 100


def fill() -> None:
    """Make the tables and insert the jobs."""

    async def filling() -> None:
        connection = await asyncpg.connect(common.settings()["url"])
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        jobs = common.settings()["jobs"]
        for first in range(0, jobs, 1_000):
            numbers = [str(n).encode() for n in range(first, min(first + 1_000, jobs))]
            await queries.enqueue(["no_op"] * len(numbers), numbers, [0] * len(numbers))
        await connection.close()

    asyncio.run(filling())


def work() -> None:
    """Work until SIGTERM."""

    async def working() -> None:
        connection = await asyncpg.connect(common.settings()["url"])
        queuer = PgQueuer(AsyncpgDriver(connection))

        @queuer.entrypoint("no_op")
        async def no_op(job: Job) -> None:
            common.call(int(job.payload))

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
        await queuer.run(batch_size=BATCH)

    uvloop.run(working())


def unfinished() -> int:
    """Return how many jobs are still there."""
    with psycopg.connect(common.settings()["url"]) as connection:
        return connection.execute("SELECT count(*) FROM pgqueuer").fetchone()[0]


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
