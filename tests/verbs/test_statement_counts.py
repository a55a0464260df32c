"""How many statements a verb executes: one, on a transaction that is open."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, Engine, event, text

from factories import insert_job
from riverrun.jobs.args import JobArgs
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.row import JobRow
from riverrun.policies.uniqueness import UniqueOpts
from riverrun.verbs import claim, complete, insert, insert_many
from verbs.joins import JOINED, opened


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    """Args of no interest."""


UNIQUE = InsertOpts(unique=UniqueOpts(by_args=True))


@pytest.mark.parametrize("kind", JOINED)
@pytest.mark.parametrize(
    "verb",
    [
        lambda where, job, **rest: insert(where, Greet(), **rest),
        lambda where, job, **rest: insert(where, Greet(), UNIQUE, **rest),
        lambda where, job, **rest: insert_many(where, [Greet()] * 1_000, **rest),
        lambda where, job, **rest: insert_many(where, [(Greet(), UNIQUE)] * 1_000, **rest),
        lambda where, job, **rest: claim(where, limit=100, client_id="me", **rest),
        lambda where, job, **rest: complete(where, job, **rest),
        lambda where, job, **rest: complete(where, job, metadata={"a": 1}, **rest),
    ],
    ids=[
        "insert",
        "insert unique",
        "insert_many",
        "insert_many unique",
        "claim",
        "complete",
        "complete with metadata",
    ],
)
def test_is_one_statement(engine: Engine, schema: str, verb: Callable[..., Any], kind: str) -> None:
    """On an open transaction a verb of the walk is exactly one statement."""
    for _ in range(2):
        insert_job(engine, schema)
    job: JobRow
    [job] = claim(engine, client_id="me", schema=schema)
    statements: list[str] = []
    with opened(kind, engine) as where:
        where.execute(text("SELECT 1"))
        connection = where if isinstance(where, Connection) else where.connection()
        event.listen(
            connection,
            "before_cursor_execute",
            lambda conn, cursor, statement, *rest: statements.append(statement),
        )
        verb(where, job, schema=schema)
    assert len(statements) == 1
