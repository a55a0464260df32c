"""procrastinate, on PostgreSQL: coroutines, 100 at once.

Settings: its worker has `concurrency` for async tasks, and uses notifications by default. A larger
pool of connections did not make it faster, because it claims one job at a time.
"""

import common
import procrastinate
import psycopg

SLOTS = 100

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=common.settings()["url"]))


@app.task(name="no_op")
async def no_op(number: int) -> None:
    """Do nothing but be counted."""
    common.call(number)


def fill() -> None:
    """Make the tables and insert the jobs."""
    syncer = procrastinate.App(
        connector=procrastinate.SyncPsycopgConnector(conninfo=common.settings()["url"])
    )
    with syncer.open():
        syncer.schema_manager.apply_schema()
        syncer.configure_task("no_op").batch_defer(
            *({"number": number} for number in range(common.settings()["jobs"]))
        )


def work() -> None:
    """Work until SIGTERM."""
    app.run_worker(concurrency=SLOTS)


def unfinished() -> int:
    """Return how many jobs did not succeed at their first attempt."""
    with psycopg.connect(common.settings()["url"]) as connection:
        return connection.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"
        ).fetchone()[0]


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
