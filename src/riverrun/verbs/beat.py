"""Beat: "this client lives". Once it is no longer said, others rescue the jobs of the client."""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.json_values import json_text
from riverrun.queries import beat as queries
from riverrun.verbs.halves import by_halves, log_refused

TOUCH_MAX = 1_000
"""Most jobs whose attempt time one statement renews."""


@tried_again
def sign_on(
    tx: Tx,
    client_id: str,
    *,
    hostname: str,
    pid: int,
    dead_s: float,
    schema: str | None = None,
    now: datetime | None = None,
) -> str:
    """Register a client that begins, and return its name: `client_id`, or that with a suffix.

    What ran under a name is rescued when its heartbeats end; a namesake's would go on for it.

    Args:
        tx: Whose transaction, as for `insert`.
        client_id: The name it wants.
        hostname: Its host.
        pid: Its process there.
        dead_s: Seconds without a heartbeat after which a client is gone.
        schema: The schema of River's tables; the search path's unless said.
        now: For tests: the time to take for the database's, aware.
    """
    name = client_id
    with joined(tx, schema) as transaction:
        while True:
            params = {
                "client_id": name,
                "host": hostname,
                "process": pid,
                "dead_s": dead_s,
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
    schema: str | None = None,
    now: datetime | None = None,
) -> bool:
    """Say that `client_id` lives; return whether a client leads that never says so, as River's.

    Args:
        tx: Whose transaction, as for `insert`.
        client_id: The client.
        hostname: Its host.
        pid: Its process there.
        queues: What it works.
        state: How it is: its `slots` by queue, how many jobs are `running`, its `problems`.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: the time to take for the database's, aware.
    """
    params = {
        "client_id": client_id,
        "host": hostname,
        "process": pid,
        "names": sorted(queues),
        "state": json_text(state or {}),
        "now": now,
    }
    with joined(tx, schema) as transaction:
        return bool(transaction.execute(queries.beat(), params).scalar_one())


@tried_again
def touch(
    tx: Tx,
    attempts: Collection[tuple[int, int]],
    *,
    schema: str | None = None,
    now: datetime | None = None,
) -> None:
    """Renew the attempt time of one's own running jobs, out of reach of River's rescuer.

    Rows that are locked are skipped. If `tx` is an Engine, rows that the database refuses to
    change are logged and skipped.

    Args:
        tx: Whose transaction, as for `insert`.
        attempts: The jobs' ids, each with the attempt at which it was claimed.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: the time to take for the database's, aware.
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
    """Say that `client_id` is gone of its own will, unless it has left something running."""
    with joined(tx, schema) as transaction:
        transaction.execute(queries.leave(), {"client_id": client_id})
