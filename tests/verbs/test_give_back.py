"""Jobs that are given back wait again, as if they had never been claimed."""

from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.dialects import postgresql

from factories import insert_job
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries import give_back as queries
from riverrun.verbs import cancel, claim, complete, get
from riverrun.verbs.give_back import give_back, give_back_unchanged, read_running
from verbs.joins import listening

ME = {"client_id": "me"}


def claimed(engine: Engine, schema: str, count: int = 1, **columns: Any) -> list[JobRow]:
    """Return so many jobs of `me`, inserted with `columns`."""
    for _ in range(count):
        insert_job(engine, schema, **columns)
    return claim(engine, limit=count, schema=schema, **ME)


def test_is_as_if_it_was_never_claimed(engine: Engine, schema: str) -> None:
    """A job given back has every column as before its claim, but for the time of an attempt."""
    new = insert_job(engine, schema)
    tried = insert_job(engine, schema, attempt=2, attempted_by=["a", "b"])
    before = {job_id: get(engine, job_id, schema=schema) for job_id in (new, tried)}
    jobs = claim(engine, limit=2, schema=schema, **ME)
    given = give_back(engine, jobs, schema=schema, **ME)
    assert given == dict.fromkeys((new, tried), JobState.available)
    assert get(engine, new, schema=schema) == before[new]
    after = get(engine, tried, schema=schema)
    assert attrs.evolve(after, attempted_at=None) == before[tried]


def test_leaves_what_is_not_its_own(engine: Engine, schema: str) -> None:
    """A completed job, and one claimed by another client at the same attempt, stay as they are."""
    completed, anothers, own = claimed(engine, schema, 3)
    complete(engine, completed, schema=schema)
    give_back(engine, [anothers], schema=schema, **ME)
    [again] = claim(engine, client_id="another", schema=schema)
    assert (again.id, again.attempt) == (anothers.id, anothers.attempt)
    given = give_back(engine, [completed, anothers, own], schema=schema, **ME)
    assert given == {own.id: JobState.available}
    assert get(engine, again.id, schema=schema) == again


def test_skips_locked_rows_and_notifies_the_queue(engine: Engine, schema: str) -> None:
    """A locked row is skipped, the others are given back, and the queue is notified."""
    locked, free = claimed(engine, schema, 2)
    with engine.connect() as host, listening(engine, f"{schema!s}.river_insert") as received:
        host.execute(
            text(f"SELECT 1 FROM {schema}.river_job WHERE id = :id FOR UPDATE"), {"id": locked.id}
        )
        given = give_back(engine, [locked, free], schema=schema, **ME)
        assert given == {free.id: JobState.available}
        assert received() == ['{"queue": "default"}']
    assert give_back(engine, [locked], schema=schema, **ME) == {locked.id: JobState.available}


def test_gives_back_only_what_has_not_changed(engine: Engine, schema: str) -> None:
    """Rows that have changed since they were read are not given back."""
    jobs = claimed(engine, schema, 3)
    claim_of_another = insert_job(engine, schema)
    claim(engine, client_id="another", schema=schema)
    rows = {row.id: row for row in read_running(engine, schema=schema, **ME)}
    assert set(rows) == {job.id for job in jobs}
    changed, unwanted, lost = jobs
    # Given back and claimed again: by its attempt it is the same.
    give_back(engine, [changed], schema=schema, **ME)
    claim(engine, limit=1, schema=schema, **ME)
    given = give_back_unchanged(engine, list(rows.values()), schema=schema, **ME)
    assert given == {unwanted.id: JobState.available, lost.id: JobState.available}
    assert get(engine, changed.id, schema=schema).state is JobState.running
    assert get(engine, claim_of_another, schema=schema).state is JobState.running


def test_a_cancelled_job_is_not_given_back(engine: Engine, schema: str) -> None:
    """A job marked as cancelled is cancelled, and its attempt counts."""
    [job] = claimed(engine, schema)
    cancel(engine, job.id, schema=schema)
    rows = read_running(engine, schema=schema, **ME)
    given = give_back_unchanged(engine, rows, schema=schema, **ME)
    assert given == {job.id: JobState.cancelled}
    assert get(engine, job.id, schema=schema).attempt == 1


@pytest.mark.parametrize(
    ("statement", "params", "index"),
    [
        (queries.running_jobs, {"client_id": "me"}, "river_job_prioritized_fetching_index"),
        (
            queries.give_back_jobs,
            {"client_id": "me", "ids": "{1}", "attempts": "{1}"},
            "river_job_pkey",
        ),
        (
            queries.give_back_unchanged,
            {"client_id": "me", "ids": "{1}", "versions": "{1}"},
            "river_job_pkey",
        ),
    ],
)
def test_reads_by_an_index(
    engine: Engine, schema: str, statement: Any, params: dict[str, str], index: str
) -> None:
    """However many jobs there are, only those that run, or that are named, are read."""
    with engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: schema})
        connection.execute(
            insert(Job),
            [{"kind": "greet", "args": {}, "state": "available", "queue": "q"}] * 6_000,
        )
        connection.execute(text(f"ANALYZE {schema}.river_job"))
        compiled = statement().compile(
            dialect=postgresql.psycopg.dialect(),
            schema_translate_map={None: schema},
            render_schema_translate=True,
        )
        rows = connection.exec_driver_sql(
            f"EXPLAIN {compiled}", {**compiled.params, **params}
        ).scalars()
        plan = "\n".join(rows)
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan
