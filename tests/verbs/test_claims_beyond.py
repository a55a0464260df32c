"""Claims that look only behind the jobs that were claimed before."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.dialects import postgresql

from factories import insert_job
from riverrun.queries import claim as queries
from riverrun.verbs.claim import Bounds, claim_jobs, time_of

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HELD = 5_000
"""Jobs that are worked while a transaction is open."""


def test_claims_what_lies_behind(engine: Engine, schema: str) -> None:
    """Of each priority only jobs behind its bound are claimed, by time and then by id."""
    ids: dict[tuple[int, int], list[int]] = {}
    for priority in (2, 1):
        for second in (1, 0, 2):
            ids[priority, second] = [
                insert_job(
                    engine, schema, priority=priority, scheduled_at=T0 + timedelta(seconds=second)
                )
                for _ in range(2)
            ]

    def claimed(limit: int, beyond: Bounds | None) -> list[Any]:
        with engine.begin() as connection:
            jobs = claim_jobs(
                connection, "default", limit=limit, client_id="x", beyond=beyond, schema=schema
            )
            connection.rollback()
        return jobs

    everything = claimed(100, None)
    assert [job.id for job in claimed(100, {})] == [job.id for job in everything]
    for number, last in enumerate(everything):
        left = [
            job.id for job in everything if job.place > last.place or job.place[0] != last.place[0]
        ]
        assert [job.id for job in claimed(100, {last.place[0]: last.place})] == left
        assert [job.id for job in claimed(3, {last.place[0]: last.place})] == left[:3]
        assert time_of(last.place[1]) >= T0, number


def test_reads_no_dead_entries(engine: Engine, schema: str) -> None:
    """While a snapshot is held, a claim behind the last claimed job reads a few pages only."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL gin_pending_list_limit = '1GB'"))
        connection.execute(
            text(
                f"INSERT INTO {schema}.river_job (kind, args, max_attempts, priority)"
                " SELECT 'k', '{}', 25, 1 + number % 4 FROM generate_series(1, :count) AS number"
            ),
            {"count": HELD + 1_000},
        )
    held = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    held.execute(text(f"SELECT count(*) FROM {schema}.river_job")).scalar()
    last: dict[int, Any] = {}
    try:
        for limit in (HELD, 100):
            jobs = claim_jobs(
                engine, "default", limit=limit, client_id="x", beyond=last, schema=schema
            )
            assert len(jobs) == limit
            last |= {job.place[0]: job.place for job in jobs}
        assert buffers(engine, schema, queries.claim_jobs(), {}) > HELD / 50
        binds = {f"since_{p}": time_of(place[1]).isoformat() for p, place in last.items()}
        binds |= {f"after_{p}": place[2] for p, place in last.items()}
        priorities = {1, 2, 3, 4} - last.keys()
        binds |= {f"since_{p}": "infinity" for p in priorities} | {
            f"after_{p}": 0 for p in priorities
        }
        assert buffers(engine, schema, queries.claim_jobs_beyond(), binds) < HELD / 100
    finally:
        held.close()


def buffers(engine: Engine, schema: str, statement: Any, binds: dict[str, Any]) -> int:
    """Return how many pages the search for one job reads, without its update."""
    compiled = statement.compile(
        dialect=postgresql.psycopg.dialect(),
        schema_translate_map={None: schema},
        render_schema_translate=True,
    )
    params = {**compiled.params, "queue_name": "default", "limit": 1, "client_id": "x", **binds}
    with engine.begin() as connection:
        rows = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", params
        ).scalar_one()
        connection.rollback()
    nodes, found = [rows[0]["Plan"]], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Index Name") == "river_job_prioritized_fetching_index":
            found.append(node)
    assert found, rows
    return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in found)
