"""Celery, on Redis: one process for each processor, results ignored, 128 tasks taken ahead.

Settings: its guide, "Optimizing", has a prefetch multiplier of 64 or 128 for many short tasks; the
tasks guide has `ignore_result`; gossip and mingle are of no use to one worker. By default tasks are
acknowledged when they begin: what runs when a worker is killed is lost. Redis as for Dramatiq.
"""

import celery
import common
import redis

app = celery.Celery(
    "with_celery", broker=common.told()["redis"].replace("unix://", "redis+socket://")
)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
)


@app.task(name="no_op")
def no_op(number: int) -> None:
    """Do nothing but be counted."""
    common.call(number)


def fill() -> None:
    """Insert the jobs."""
    with app.producer_or_acquire() as producer:
        for number in range(common.told()["jobs"]):
            no_op.apply_async((number,), producer=producer)


def work() -> None:
    """Work until SIGTERM."""
    app.worker_main(["worker", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"])


def unfinished() -> int:
    """Return how many messages Redis still has."""
    client = redis.Redis.from_url(common.told()["redis"])
    return client.llen("celery") + client.hlen("unacked")


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
