"""Beat: "this client lives". Once it is no longer said, others rescue the jobs of the client."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from riverrun.job import JobRow
from riverrun.queries import upkeep
from riverrun.sessions import Where, joined


def beat(
    where: Where,
    client_id: str,
    *,
    hostname: str,
    pid: int,
    queues: Iterable[str],
    schema: str | None = None,
    now: datetime | None = None,
) -> bool:
    """Say that `client_id` lives; return whether a client leads that never says so, as River's."""
    params = {
        "client_id": client_id,
        "host": hostname,
        "process": pid,
        "names": sorted(queues),
        "now": now,
    }
    with joined(where, schema) as transaction:
        return bool(transaction.execute(upkeep.beat(), params).scalar_one())


def touch(
    where: Where, jobs: Sequence[JobRow], *, schema: str | None = None, now: datetime | None = None
) -> None:
    """Renew the attempt time of one's own running jobs, out of reach of River's rescuer."""
    ordered = sorted(jobs, key=lambda job: job.id)
    params = {
        "ids": [job.id for job in ordered],
        "attempts": [job.attempt for job in ordered],
        "now": now,
    }
    with joined(where, schema) as transaction:
        transaction.execute(upkeep.touch_jobs(), params)


def leave(where: Where, client_id: str, *, schema: str | None = None) -> None:
    """Say that `client_id` is gone of its own will, unless it has left something running."""
    with joined(where, schema) as transaction:
        transaction.execute(upkeep.leave(), {"client_id": client_id})
