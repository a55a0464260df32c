"""Rows of every sort for the pages to show: jobs in each state, hostile text, clients, queues."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, text

from factories import insert_job
from riverrun import Client, JobState
from riverrun.models import ClientRecord, Leader, PeriodicRun, Queue

HOSTILE = "<script>alert(1)</script>'\"&\u202e\x1b[31m"
"""Text that would run, reverse or colour what is around it if a page did not show it as text."""

TRACE = """Traceback (most recent call last):
  File "/srv/shop/jobs.py", line 41, in charge
    bank.charge(card, cents)
  File "/srv/venv/lib/python3.13/site-packages/bank/client.py", line 220, in charge
    raise Declined(answer)
bank.client.Declined: card 4242 was declined
"""

BIG = 9_223_372_036_854_775_807


def fill(client: Client) -> None:
    """Fill the client's tables."""
    options = {"schema_translate_map": {None: client.schema}}
    with client.engine.begin() as connection:
        connection = connection.execution_options(**options)
        now = connection.scalar(text("SELECT now()"))
        assert isinstance(now, datetime)
        _jobs(connection, client.schema, now)
        _clients(connection, now)
        _queues(connection, now)
        _periodic(connection, now)


def error(attempt: int, at: datetime, text: str = "bank.client.Declined: card 4242") -> Any:
    """Return the record of a failed attempt."""
    stamp = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {"at": stamp, "attempt": attempt, "error": text, "trace": TRACE}


def _jobs(connection: Connection, schema: str | None, now: datetime) -> None:
    def add(**changes: Any) -> int:
        changes.setdefault("created_at", now - timedelta(minutes=5))
        if changes.get("state") in {"completed", "cancelled", "discarded"}:
            changes.setdefault("finalized_at", now - timedelta(seconds=20))
            changes.setdefault("attempted_at", now - timedelta(seconds=22))
            changes.setdefault("attempted_by", ["web-1", "web-2"])
            changes.setdefault("attempt", 1)
        return insert_job(connection, schema, **changes)

    for n in range(8):
        add(kind="send_email", state="completed", args={"user_id": n, "to": f"u{n}@example.com"})
    for n in range(6):
        errors = [error(1, now), error(2, now, f"bank.client.Declined: card {4242 + n} declined")]
        state = JobState.discarded if n % 2 else JobState.retryable
        add(kind="charge_card", queue="billing", state=state, attempt=2, errors=errors,
            scheduled_at=now + timedelta(minutes=4), max_attempts=2 if n % 2 else 5)  # fmt: skip
    for n in range(6):
        add(kind="send_email", state="available", args={"user_id": n}, priority=1 + n % 4,
            scheduled_at=now - timedelta(seconds=n))  # fmt: skip
    add(kind="archive", queue="nobody-works-it", state="available",
        scheduled_at=now - timedelta(hours=2))  # fmt: skip
    add(kind="remind", state="scheduled", scheduled_at=now + timedelta(hours=1), tags=["later"])
    add(kind="remind", state="pending")
    add(kind="remind", state="cancelled", metadata_={"cancel_attempted_at": now.isoformat()})
    log = [{"attempt": 1, "log": "12:00:00 INFO shop: page 1 of 3\n12:00:02 INFO shop: page 2"}]
    add(kind="build_report", queue="reports", state="running", attempt=2, errors=[error(1, now)],
        attempted_at=now, attempted_by=["web-0", "web-1"], metadata_={
            "river:log": log, "river:resumable_step": "page-2", "output": {"pages": 3},
            "river:resumable_cursor": {"page-3": 17}, "river:rescue_count": 1, "snoozes": 2,
        })  # fmt: skip
    add(kind="build_report", queue="reports", state="running", attempted_at=now,
        attempted_by=["gone"])  # fmt: skip
    add(kind=HOSTILE, queue="a/b?c#d%e f", state="available", tags=["x"], args={
            HOSTILE: HOSTILE, "big": BIG, "deep": json.loads("[" * 40 + "]" * 40),
        })  # fmt: skip
    add(kind="huge", state="completed", args={"text": "x" * 200_000}, metadata_={
            "river:log": [{"attempt": 1, "log": f"{HOSTILE}\n" * 5_000}],
            "output": ["y" * 100_000],
        })  # fmt: skip
    add(kind="by_go", state="completed", attempted_by=["go-host_2026_01_01T00_00_00_000000"])
    add(id=BIG, kind="last", state="completed")


def _clients(connection: Connection, now: datetime) -> None:
    for name, silent_s in (("web-1", 1), ("web-2", 2), ("silent-3", 75)):
        at = now - timedelta(seconds=silent_s)
        connection.execute(
            insert(ClientRecord).values(
                id=name,
                hostname=f"host-of-{name}",
                pid=4711,
                queues=["default", "billing", "reports"],
                created_at=now - timedelta(hours=3),
                heartbeat_at=at,
            )
        )
    later = now + timedelta(minutes=10)
    connection.execute(
        insert(Leader).values(elected_at=now, expires_at=later, leader_id="web-1", name="default")
    )


def _queues(connection: Connection, now: datetime) -> None:
    for name, paused_at in (("default", None), ("billing", now), ("reports", None)):
        connection.execute(insert(Queue).values(name=name, paused_at=paused_at))


def _periodic(connection: Connection, now: datetime) -> None:
    for name, in_s in (("nightly", 3_600), ("overdue", -600)):
        connection.execute(
            insert(PeriodicRun).values(
                id=name,
                next_run_at=now + timedelta(seconds=in_s),
                last_run_at=now - timedelta(days=1),
            )
        )
