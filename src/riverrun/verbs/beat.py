"""Heartbeats of clients. When a client's heartbeats stop, other clients rescue its jobs."""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.json_values import json_text
from riverrun.queries import beat as queries
from riverrun.queries.expressions import INSTANCE_KEY
from riverrun.verbs.halves import by_halves, log_refused

TOUCH_MAX = 1_000
"""Maximum number of jobs whose attempt time one statement renews."""


@tried_again
def sign_on(
    tx: Tx,
    client_id: str,
    *,
    hostname: str,
    pid: int,
    dead_s: float,
    instance: str | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> str:
    """Register a starting client, and return its id: `client_id`, with a suffix if that is taken.

    Jobs of a dead client are rescued because its heartbeats stop. A second client with the same id
    would continue them.

    Args:
        tx: The transaction, as for `insert`.
        client_id: The id that it asks for.
        hostname: The name of its host.
        pid: The id of its process.
        dead_s: Seconds without a heartbeat after which a client is gone.
        instance: A text that differs for each start of a client.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    name = client_id
    with joined(tx, schema) as transaction:
        while True:
            params = {
                "client_id": name,
                "host": hostname,
                "process": pid,
                "dead_s": dead_s,
                "state": json_text(_of(instance)),
                "now": now,
            }
            if transaction.execute(queries.sign_on(), params).first() is not None:
                return name
            name = f"{client_id[:93]}_{secrets.token_hex(3)}"


@tried_again
def beat(
    tx: Tx,
    client_id: str,
    *,
    hostname: str,
    pid: int,
    queues: Iterable[str],
    state: Mapping[str, Any] | None = None,
    instance: str | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> bool | None:
    """Write a heartbeat of `client_id`, and return whether a client without heartbeats leads.

    River's clients have none. Return None, and write nothing, if the name belongs to another
    instance, which has signed on while this one had no heartbeat.

    Args:
        tx: The transaction, as for `insert`.
        client_id: The client's id.
        hostname: The name of its host.
        pid: The id of its process.
        queues: The names of its queues.
        state: Its health: `slots` by queue, the number of jobs `running`, its `problems`, and what
            else ClientRow has.
        instance: What `sign_on` got. Default: None, which may be any instance.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    params = {
        "client_id": client_id,
        "host": hostname,
        "process": pid,
        "names": sorted(queues),
        "state": json_text({**(state or {}), **_of(instance)}),
        "instance": instance,
        "now": now,
    }
    with joined(tx, schema) as transaction:
        row = transaction.execute(queries.beat(), params).first()
        return None if row is None else bool(row[0])


def _of(instance: str | None) -> dict[str, str]:
    return {} if instance is None else {INSTANCE_KEY: instance}


@tried_again
def touch(
    tx: Tx,
    attempts: Collection[tuple[int, int]],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> None:
    """Renew the attempt time of a client's running jobs, so that River's rescuer leaves them.

    Locked rows are skipped. On an Engine, rows that the database refuses to change are logged and
    skipped.

    Args:
        tx: The transaction, as for `insert`.
        attempts: Pairs of a job's id and the attempt at which it was claimed.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """

    def act(part: Sequence[tuple[int, int]]) -> None:
        params = {
            "ids": [job_id for job_id, _ in part],
            "attempts": [attempt for _, attempt in part],
            "now": now,
        }
        with joined(tx, schema) as transaction:
            transaction.execute(queries.touch_jobs(), params)

    ordered = sorted(attempts)
    for start in range(0, len(ordered), TOUCH_MAX):
        part = ordered[start : start + TOUCH_MAX]
        if isinstance(tx, Engine):
            done = by_halves(part, act)
            log_refused(
                "attempt time not renewed", [(job_id, why) for (job_id, _), why in done.refused]
            )
        else:
            act(part)


@tried_again
def leave(tx: Tx, client_id: str, *, schema: str | None = None) -> None:
    """Remove the record of a client that stops, unless it has left jobs running."""
    with joined(tx, schema) as transaction:
        transaction.execute(queries.leave(), {"client_id": client_id})
