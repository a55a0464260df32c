"""Dramatiq, on Redis: the defaults of its command line.

Settings: by its guide, one process per processor with 8 threads each; the guide names nothing else
to tune. Redis syncs its append-only file once a second, as it recommends. So a crash of the machine
may lose a second of jobs, while PostgreSQL here loses none.
"""

import sys

import common
import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=common.settings()["redis"])
dramatiq.set_broker(broker)


@dramatiq.actor
def no_op(number: int) -> None:
    """Do nothing but be counted."""
    common.call(number)


def fill() -> None:
    """Insert the jobs."""
    for number in range(common.settings()["jobs"]):
        no_op.send(number)


def work() -> None:
    """Work until SIGTERM."""
    from dramatiq.cli import main, make_argument_parser

    sys.exit(main(make_argument_parser().parse_args(["with_dramatiq"])))


def unfinished() -> int:
    """Return how many messages Redis still has."""
    return redis.Redis.from_url(common.settings()["redis"]).hlen("dramatiq:default.msgs")


if __name__ == "__main__":
    common.main(fill=fill, work=work, unfinished=unfinished)
