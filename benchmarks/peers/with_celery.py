"""Celery, on Redis: one process per processor, results ignored, 128 tasks prefetched.

Settings: its guide "Optimizing" recommends a prefetch multiplier of 64 or 128 for many short tasks,
and its guide on tasks recommends `ignore_result`. Gossip and mingle are of no use to one worker. By
default tasks are acknowledged when they begin, so tasks that run when a worker is killed are lost.
Redis is set up as for Dramatiq.
"""

import celery
import common
import redis

app = celery.Celery(
    "with_celery", broker=common.settings()["redis"].replace("unix://", "redis+socket://")
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
        for number in range(common.settings()["jobs"]):
            no_op.apply_async((number,), producer=producer)


def work() -> None:
    """Work until SIGTERM."""
    app.worker_main(["worker", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"])


def unfinished() -> int:
    """Return how many messages Redis still has."""
    client = redis.Redis.from_url(common.settings()["redis"])
    return client.llen("celery") + client.hlen("unacked")


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
