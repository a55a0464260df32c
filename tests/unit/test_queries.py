"""Every statement compiles without a database, with values as binds."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql import psycopg

from riverrun.queries import cancel as cancel_queries
from riverrun.queries import claim as queries
from riverrun.queries import claim_apart, give_back
from riverrun.queries.complete import complete_jobs
from riverrun.queries.delete import delete_job
from riverrun.queries.insert import insert_job, insert_jobs
from riverrun.queries.notify import notify
from riverrun.queries.read import get_job
from riverrun.queries.record import record_outcomes, unwritten_jobs
from riverrun.queries.retry import retry_job
from riverrun.queries.schedule import schedule_jobs
from riverrun.queries.update import update_job

EVERY_COLUMN = (
    *("args", "kind", "max_attempts", "metadata", "priority", "queue", "created_at"),
    *("scheduled_at", "state", "tags", "unique_key", "unique_states"),
)
STATEMENTS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "insert one": (
        lambda: insert_job(("args", "kind"), schema="s", named=True, unique=False),
        {"job_args", "job_kind"},
    ),
    "insert one, unique": (
        lambda: insert_job(("args", "unique_key"), schema="s", named=True, unique=True),
        {"job_args", "job_unique_key"},
    ),
    "insert": (
        lambda: insert_jobs(EVERY_COLUMN, schema="s", named=True, unique=False),
        {f"jobs_{name}" for name in EVERY_COLUMN},
    ),
    "insert, unique": (
        lambda: insert_jobs(EVERY_COLUMN, schema="s", named=True, unique=True),
        {f"jobs_{name}" for name in EVERY_COLUMN},
    ),
    "claim": (queries.claim_jobs, {"queue_name", "limit", "client_id", "now"}),
    "claim, but some": (
        claim_apart.claim_jobs_but,
        {"queue_name", "limit", "passed", "client_id", "now"},
    ),
    "claimable": (claim_apart.claimable_jobs, {"queue_name", "limit", "passed", "now"}),
    "claim listed": (claim_apart.claim_listed, {"queue_name", "ids", "client_id", "now"}),
    "still claimable": (claim_apart.still_claimable, {"queue_name", "ids", "now"}),
    "waiting": (queries.queues_waiting, {"names"}),
    "complete": (
        lambda: complete_jobs(skip_locked=False),
        {"ids", "attempts", "ages_us", "owner", "now"},
    ),
    "complete what is free": (
        lambda: complete_jobs(skip_locked=True),
        {"ids", "attempts", "ages_us", "owner", "now"},
    ),
    "record": (lambda: record_outcomes(skip_locked=False), {"outcomes", "owner", "now"}),
    "record what is free": (
        lambda: record_outcomes(skip_locked=True),
        {"outcomes", "owner", "now"},
    ),
    "unwritten": (unwritten_jobs, {"ids", "attempts", "owner"}),
    "give back": (give_back.give_back_jobs, {"ids", "attempts", "client_id"}),
    "give back unchanged": (
        give_back.give_back_unchanged,
        {"ids", "versions", "client_id"},
    ),
    "running": (give_back.running_jobs, {"client_id", "instance"}),
    "get": (get_job, {"job_id"}),
    "cancel": (cancel_queries.cancel_job, {"job_id", "now"}),
    "retry": (retry_job, {"job_id", "now"}),
    "delete": (delete_job, {"job_id"}),
    "update": (update_job, {"job_id", "merged"}),
    "schedule": (lambda: schedule_jobs(schema="s"), {"ahead_s", "limit", "skipped", "now"}),
    "notify": (lambda: notify(named=False), {"topic", "payloads"}),
    "notify, named": (lambda: notify(named=True), {"topic", "payloads", "schema"}),
}


def compiled(name: str) -> Any:
    """Return the statement as PostgreSQL takes it in schema `s`."""
    return STATEMENTS[name][0]().compile(
        dialect=psycopg.dialect(), schema_translate_map={None: "s"}, render_schema_translate=True
    )


@pytest.mark.parametrize("name", STATEMENTS)
def test_takes_these_binds(name: str) -> None:
    """A statement takes the binds that its verb gives it, and no other that is required."""
    required = {key for key, bind in compiled(name).binds.items() if bind.required}
    assert required == STATEMENTS[name][1]


@pytest.mark.parametrize("name", STATEMENTS)
def test_is_built_once(name: str) -> None:
    """A statement is built once, so that SQLAlchemy compiles it once."""
    build = STATEMENTS[name][0]
    assert build() is build()


@pytest.mark.parametrize("name", sorted(set(STATEMENTS) - {"notify", "notify, named"}))
def test_is_in_the_schema(name: str) -> None:
    """Every table, type and function of River's is named with the schema."""
    statement = str(compiled(name))
    # FOR UPDATE OF takes the table's name alone, and labels of copies end in a number.
    bare = re.findall(r"(?<![.\w])(?<!OF )river_job(?:_state\w*)?\b", statement)
    assert bare == []
    assert "s.river_job" in str(compiled(name))


FREE = (
    "complete what is free",
    "record what is free",
    "unwritten",
    "give back",
    "give back unchanged",
)


@pytest.mark.parametrize("name", ["claim", "schedule", *FREE])
def test_waits_for_no_lock(name: str) -> None:
    """What two clients may want at once, and what a host may have locked, is skipped."""
    statement = str(compiled(name))
    assert "SKIP LOCKED" in statement
    assert statement.count("FOR ") == statement.count("SKIP LOCKED")
