"""Dramatiq, on Redis: its command line's defaults.

Settings: its guide has one process for each processor and 8 threads in each, and nothing to tune
beyond. Redis appends to its file and syncs it once a second, which Redis recommends: a crash of the
machine may lose a second of jobs, where PostgreSQL here loses none.
"""

import sys

import common
import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=common.told()["redis"])
dramatiq.set_broker(broker)


@dramatiq.actor
def no_op(number: int) -> None:
    """Do nothing but be counted."""
    common.call(number)


def fill() -> None:
    """Insert the jobs."""
    for number in range(common.told()["jobs"]):
        no_op.send(number)


def work() -> None:
    """Work until SIGTERM."""
    from dramatiq.cli import main, make_argument_parser

    sys.exit(main(make_argument_parser().parse_args(["with_dramatiq"])))


def unfinished() -> int:
    """Return how many messages Redis still has."""
    return redis.Redis.from_url(common.told()["redis"]).hlen("dramatiq:default.msgs")


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
