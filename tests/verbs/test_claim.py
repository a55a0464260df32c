"""Claim: which client gets which job, and what is in the row then."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.dialects import postgresql

from factories import insert_job
from riverrun.errors import InvalidOption
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries import claim as queries
from riverrun.queries.claim_apart import claim_jobs_but, claimable_jobs
from riverrun.verbs import claim, get
from verbs.joins import JOINED, KINDS, commit, opened
from waiting import DEADLINE_S

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("kind", KINDS)
def test_marks_what_it_claims(engine: Engine, schema: str, kind: str) -> None:
    """A claimed job is running, its attempt is counted, and it has all but its unique key."""
    job_id = insert_job(
        engine, schema, scheduled_at=NOW, tags=["one"], metadata_={"a": 1}, errors=[{"attempt": 1}]
    )
    with opened(kind, engine) as where:
        [job] = claim(where, client_id="me", schema=schema, now=NOW)
        commit(where)
    assert job == get(engine, job_id, schema=schema)
    assert (job.state, job.attempt, job.attempted_at) == (JobState.running, 1, NOW)
    assert (job.attempted_by, job.finalized_at) == (("me",), None)


def test_orders_by_priority_then_time_then_id(engine: Engine, schema: str) -> None:
    """Jobs are claimed by priority, then scheduled_at, then id."""
    early, late = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    places = [(2, early), (1, late), (1, early), (1, early), (4, early), (3, early)]
    ids = [insert_job(engine, schema, priority=p, scheduled_at=at) for p, at in places]
    order = [ids[n] for n in (2, 3, 1, 0, 5, 4)]
    one_by_one = []
    with engine.connect() as connection:
        for _ in ids:
            one_by_one += claim(connection, client_id="me", schema=schema, now=NOW)
        assert [job.id for job in one_by_one] == order
        connection.rollback()
        at_once = claim(connection, limit=10, client_id="me", schema=schema, now=NOW)
        assert [job.id for job in at_once] == order


def test_leaves_what_is_not_due_or_elsewhere(engine: Engine, schema: str) -> None:
    """Jobs of the future, of other queues and in other states wait."""
    due = insert_job(engine, schema, scheduled_at=NOW)
    insert_job(engine, schema, scheduled_at=NOW + timedelta(microseconds=1))
    insert_job(engine, schema, scheduled_at=NOW, queue="other")
    for state in set(JobState) - {JobState.available}:
        insert_job(engine, schema, scheduled_at=NOW, state=state)
    assert [job.id for job in claim(engine, limit=99, client_id="me", schema=schema, now=NOW)] == [
        due
    ]
    assert claim(engine, client_id="me", schema=schema, now=NOW) == []


def test_takes_no_more_than_its_limit(engine: Engine, schema: str) -> None:
    """A claim takes at most `limit` jobs, and the next one takes the rest."""
    for _ in range(5):
        insert_job(engine, schema)
    sizes = [len(claim(engine, limit=3, client_id="me", schema=schema)) for _ in range(3)]
    assert sizes == [3, 2, 0]


@pytest.mark.parametrize("limit", [0, -1, 20_001, True, None])
def test_refuses_other_limits(engine: Engine, limit: object) -> None:
    """A limit out of range is refused before the database is asked."""
    with pytest.raises(InvalidOption, match="limit"):
        claim(engine, limit=limit, client_id="me")  # type: ignore[arg-type]


def test_two_transactions_claim_different_jobs(engine: Engine, schema: str) -> None:
    """While one transaction holds its claim open, another claims the jobs after it at once."""
    ids = [insert_job(engine, schema) for _ in range(20)]
    claimed: dict[str, list[int]] = {}
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def run(name: str) -> None:
        with engine.begin() as connection:
            jobs = claim(connection, limit=10, client_id=name, schema=schema)
            claimed[name] = [job.id for job in jobs]
            both.wait()  # both transactions are open now

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a claim waited for the other's"
    assert sorted(claimed["one"] + claimed["two"]) == ids
    assert {get(engine, job_id, schema=schema).attempt for job_id in ids} == {1}


@pytest.mark.parametrize("kind", JOINED)
def test_rollback_gives_back(engine: Engine, schema: str, kind: str) -> None:
    """A claim that is rolled back has no effect."""
    job_id = insert_job(engine, schema)
    before = get(engine, job_id, schema=schema)
    with opened(kind, engine) as where:
        assert len(claim(where, client_id="me", schema=schema)) == 1
        where.rollback()
    assert get(engine, job_id, schema=schema) == before


@pytest.mark.parametrize("count", [0, 1, 98, 99, 100, 101, 150])
def test_remembers_a_hundred_clients(engine: Engine, schema: str, count: int) -> None:
    """The claiming client comes last in `attempted_by`; beyond 100 the oldest fall out."""
    names = [f"client-{n}" for n in range(count)]
    job_id = insert_job(engine, schema, attempted_by=names, attempt=min(count, 99))
    claim(engine, client_id="me", schema=schema)
    assert get(engine, job_id, schema=schema).attempted_by == (*names[-99:], "me")


CLAIMED = {"queue_name": "q1", "limit": 10, "client_id": "me", "now": None}
BEYOND = {f"since_{n}": "2020-01-01" for n in range(1, 5)} | {f"after_{n}": n for n in range(1, 5)}


@pytest.mark.parametrize(
    ("build", "params"),
    [
        (queries.claim_jobs, CLAIMED),
        (queries.claim_jobs, CLAIMED | {"limit": 100}),
        (queries.claim_jobs_beyond, CLAIMED | BEYOND),
        (claim_jobs_but, CLAIMED | {"passed": [1, 2]}),
        (claimable_jobs, {"queue_name": "q1", "limit": 10, "now": None, "passed": []}),
        (queries.queues_waiting, {"names": ["q1", "nothing"]}),
    ],
    ids=["claim", "claim of many", "claim beyond", "claim but some", "claimable", "poll"],
)
def test_reads_only_the_fetching_index(
    engine: Engine, schema: str, build: Callable[[], Any], params: dict[str, Any]
) -> None:
    """Jobs are found by River's fetching index, reading neither the table nor a sort."""
    with engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: schema})
        states = ["available", "completed", "completed", "completed"]
        connection.execute(
            insert(Job),
            [
                {
                    "kind": "greet",
                    "args": {},
                    "state": states[n % 4],
                    "finalized_at": NOW if n % 4 else None,
                    "queue": f"q{n % 3}",
                    "priority": 1 + n % 4,
                }
                for n in range(6_000)
            ],
        )
        connection.execute(text(f"ANALYZE {schema}.river_job"))
        statement = build().compile(
            dialect=postgresql.psycopg.dialect(),
            compile_kwargs={"render_postcompile": True},
            schema_translate_map={None: schema},
            render_schema_translate=True,
        )
        rows = connection.exec_driver_sql(
            f"EXPLAIN {statement}", {**statement.params, **params}
        ).scalars()
        plan = "\n".join(rows)
    assert "river_job_prioritized_fetching_index" in plan, plan
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan, plan


def test_claims_by_the_database_clock(engine: Engine, schema: str) -> None:
    """Without a given time the attempt's is the database's own."""
    insert_job(engine, schema)
    with engine.begin() as connection:
        now = connection.execute(select(text("now()"))).scalar_one()
        [job] = claim(connection, client_id="me", schema=schema)
    assert job.attempted_at == now
