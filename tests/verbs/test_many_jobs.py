"""Statements that people and pages wait for stay fast, however many jobs are in the table."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSchema, DropSchema

from riverrun import JobListParams
from riverrun.jobs.listing import JobCursor, JobOrder, cursor_text
from riverrun.migrations import LATEST, Line, sql
from riverrun.queries import failures, kinds, overview, read, rescues, status, waiting
from riverrun.queries.read import count_listed, list_briefs
from riverrun.verbs import read as read_verbs

FINISHED = 70_000
WAITING = 8_000


@pytest.fixture(scope="module")
def many(engine: Engine) -> Iterator[str]:
    """A schema with many finished jobs and some that wait, of four kinds, in four queues."""
    script = "".join(sql(line, 0, LATEST[line], "many") for line in Line)
    with engine.begin() as connection:
        connection.execute(CreateSchema("many"))
        script = script.replace("BEGIN;", "").replace("COMMIT;", "")
        connection.connection.cursor().execute(script)
        connection.execute(text("SET LOCAL gin_pending_list_limit = '1GB'"))  # it is faster so
        connection.execute(
            text(
                "INSERT INTO many.river_job (kind, queue, state, args, max_attempts, attempt,"
                " scheduled_at, attempted_at, finalized_at, attempted_by, errors, metadata)"
                " SELECT 'kind_' || number % 4, 'queue_' || number % 4, state,"
                "  jsonb_build_object('order', number, 'shop', number % 9), 25, 1, at, at,"
                "  CASE WHEN number <= :done THEN at END, ARRAY['client_' || number % 3],"
                "  CASE WHEN state IN ('discarded', 'retryable')"
                """   THEN ARRAY[jsonb_build_object('error', 'no ' || number)] END,"""
                """  CASE WHEN number % 1000 = 0 THEN '{"river:rescue_count": 1}' ELSE '{}' END"""
                "   ::jsonb"
                " FROM (SELECT number, now() - (:all - number) * interval '1 ms' AS at,"
                "  (CASE WHEN number > :done THEN CASE WHEN number % 100 = 5 THEN 'running'"
                "    WHEN number % 10 = 0 THEN 'retryable' WHEN number % 10 = 1 THEN 'scheduled'"
                "    ELSE 'available' END"
                "   WHEN number % 50 = 0 THEN 'discarded' WHEN number % 51 = 0 THEN 'cancelled'"
                "   ELSE 'completed' END)::many.river_job_state AS state"
                "  FROM generate_series(1, :all) AS number) AS numbers"
            ),
            {"done": FINISHED, "all": FINISHED + WAITING},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE many.river_job"))
    yield "many"
    with engine.begin() as connection:
        connection.execute(DropSchema("many", cascade=True))


PAGE: dict[str, Any] = {"limit": 50, "descending": True}
LISTS: list[dict[str, Any]] = [
    {},
    {"descending": False},
    {"states": ["completed"], "order_by": "finalized_at"},
    {"states": ["completed", "discarded", "cancelled"], "order_by": "finalized_at"},
    {"states": ["discarded", "cancelled"], "order_by": "time"},
    {"states": ["discarded"]},
    {"states": ["available"], "descending": False},
    {"states": ["available"]},
    {"states": ["available"], "order_by": "scheduled_at"},
    {"states": ["retryable", "scheduled"], "order_by": "time", "descending": False},
    {"states": ["running"]},
    {"kinds": ["kind_1"]},
    {"kinds": ["nothing"]},
    {"queues": ["queue_1"]},
    {"queues": ["nothing"]},
    {"args": {"order": 5_000}},
    {"args": {"order": -5}},
    {"args": {"order": -5, "shop": 4}},
    {"args": {"shop": 4}},
    {"args": {"order": -5}, "states": ["completed"], "order_by": "finalized_at"},
    {"args": {"order": -5}, "states": ["discarded", "completed"], "order_by": "finalized_at"},
    {"args": {"order": -5}, "states": ["available"]},
    {"metadata": {"river:rescue_count": 7}},
]


@pytest.mark.parametrize("params", LISTS, ids=str)
def test_lists_of_many_jobs_read_few_pages(
    engine: Engine, many: str, params: dict[str, Any]
) -> None:
    """A page of jobs is read by an index, however many jobs are kept, and not sorted out of all."""
    asked = JobListParams(**{**PAGE, **params})
    for statement in (read.list_jobs(asked), list_briefs(asked, errors=True)):
        assert pages_read(engine, many, statement) < 800


@pytest.mark.parametrize("order", ["id", "scheduled_at"])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("states", [["running"], ["available"], ["retryable", "running"]], ids=str)
def test_pages_of_waiting_jobs_are_whole(
    engine: Engine, many: str, states: list[str], descending: bool, order: str
) -> None:
    """Pages of waiting jobs have each job once and in order, near the newest job or far from it."""
    direction = "DESC" if descending else "ASC"
    query = (
        "SELECT id, scheduled_at FROM many.river_job WHERE state::text = ANY(:states)"
        f" ORDER BY scheduled_at {direction}, id {direction}"  # the order of ids is the same
    )
    with engine.connect() as connection:
        expected = connection.execute(text(query), {"states": states}).all()
    ids = [row.id for row in expected]
    by = JobOrder(order)
    params = JobListParams(states=states, descending=descending, limit=50, order_by=by)
    listed: list[int] = []
    more = True
    while more:
        page = read_verbs.list_briefs(engine, params, schema=many)
        listed += [job.id for job in page.jobs]
        more, after = page.more, page.cursor
        if len(listed) == 100 and len(ids) > 1_000:
            assert listed == ids[:100]
            # Go on near the last page.
            listed, last = ids[:-70], expected[-71]
            time = None if by is JobOrder.id else last.scheduled_at
            after = cursor_text(last.id, "kind", "queue", by, time)
        params = attrs.evolve(params, after=after)
    assert listed == ids


SEARCHES: list[dict[str, Any]] = [
    {},
    {"states": ["completed"], "order_by": "finalized_at"},
    {"states": ["discarded", "completed"], "order_by": "finalized_at"},
    {"states": ["discarded"]},
]


@pytest.mark.parametrize("params", SEARCHES, ids=str)
@pytest.mark.parametrize(
    "search", [{"client": "nothing"}, {"text": "nothing"}, {"tags_all": ["no"]}], ids=str
)
def test_searches_read_their_window(
    engine: Engine, many: str, params: dict[str, Any], search: dict[str, Any]
) -> None:
    """A search that finds nothing reads the jobs of its window and no others."""
    asked = JobListParams(**{**PAGE, **params, **search}, window=1_000)
    with engine.connect() as connection:
        options = {"schema_translate_map": {None: many}}
        last = connection.execute(read.window_end(asked, 1_000), execution_options=options).one()
    end = JobCursor(last.id, last.order_time)
    pages = {
        "window_end": pages_read(engine, many, read.window_end(asked, 1_000)),
        "list_briefs": pages_read(engine, many, list_briefs(asked, end, errors=True)),
        "count_listed": pages_read(engine, many, count_listed(asked, 1_000, end)),
    }
    assert max(pages.values()) < 2_500, pages


@pytest.mark.parametrize("field", ["args", "metadata"])
def test_a_repeated_search_keeps_its_plan(engine: Engine, many: str, field: str) -> None:
    """A statement that the driver has prepared still uses the index that its values are in."""
    statement = list_briefs(JobListParams(**{**PAGE, field: {"order": -5}}), errors=False)
    compiled = statement.compile(
        dialect=postgresql.dialect(paramstyle="numeric_dollar"),
        schema_translate_map={None: many},
        render_schema_translate=True,
        compile_kwargs={"render_postcompile": True},
    )
    values = ", ".join(str(compiled.params[name]) for name in compiled.positiontup or ())
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        cursor = connection.connection.cursor()
        cursor.execute(f"PREPARE page AS {compiled}")
        cursor.execute(f"EXPLAIN EXECUTE page ({values})")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("DEALLOCATE page")
    assert f"river_job_{field}_index" in plan


def test_the_shell_s_counts_read_few_pages(engine: Engine, many: str) -> None:
    """The counts of the shell read few pages, however many jobs are finished."""
    listed = JobListParams(states=["available"])
    pages = {
        "count_jobs": pages_read(engine, many, status.count_jobs()),
        "finish_rates": pages_read(engine, many, status.finish_rates(), window_s=60.0),
        "last_worked": pages_read(
            engine, many, status.last_worked(), names=[f"queue_{number}" for number in range(4)]
        ),
        "count_listed": pages_read(engine, many, count_listed(listed, 1_000)),
    }
    assert max(pages.values()) < 1_000, pages


def pages_read(engine: Engine, schema: str, statement: Any, **params: object) -> int:
    """Return how many pages a statement reads."""
    compiled = statement.compile(
        engine,
        schema_translate_map={None: schema},
        render_schema_translate=True,
        compile_kwargs={"render_postcompile": True},
    )
    with engine.connect() as connection:
        (plan,) = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", {**compiled.params, **params}
        ).scalar_one()
    return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


@pytest.mark.parametrize("most", [100, 1_000])
def test_waiting_jobs_are_counted_up_to_a_limit(engine: Engine, many: str, most: int) -> None:
    """The count of waiting jobs reads no more than its limit of each queue and state."""
    groups = 4 * 4  # queues and states
    assert pages_read(engine, many, waiting.count_waiting(), most=most) < groups * (most / 20 + 30)


def test_what_one_job_waits_for_reads_few_pages(engine: Engine, many: str) -> None:
    """A job's place in line reads no more than its limit, and the holder of its key one job."""
    job_id = FINISHED + WAITING - 1
    place = pages_read(engine, many, waiting.place_in_line(), job_id=job_id, most=1_000)
    holder = pages_read(engine, many, read.get_key_holder(many), job_id=job_id)
    assert (place < 300, holder < 30) == (True, True), (place, holder)


def test_failed_jobs_read_few_pages(engine: Engine, many: str) -> None:
    """The groups of failed jobs read the jobs of their window and no others."""
    assert pages_read(engine, many, failures.read_failed(), window=200) < 200 * 2 * 2 + 100


def test_kinds_read_few_pages(engine: Engine, many: str) -> None:
    """The figures of kinds read the jobs of their window, and the kinds' names only an index."""
    stats = pages_read(engine, many, kinds.kind_stats(), window=200)
    names = pages_read(engine, many, kinds.list_kinds(), limit=1_000)
    assert (stats < 200 * 2 * 2 + 100, names < 100) == (True, True), (stats, names)


def test_charts_read_few_pages(engine: Engine, many: str) -> None:
    """What has finished is counted from the index, and what runs by reading only what runs."""
    finished = pages_read(
        engine, many, status.finished_by_time(), window_s=3_600.0, step_s=15.0, most=1_000
    )
    running = pages_read(engine, many, status.running_on())
    assert (finished < 100, running < 300) == (True, True), (finished, running)


def test_rescued_jobs_read_few_pages(engine: Engine, many: str) -> None:
    """Rescued jobs are found by an index, however few they are."""
    assert pages_read(engine, many, rescues.list_rescued(), limit=50, before=2**63 - 1) < 300


def test_the_overview_reads_few_pages(engine: Engine, many: str) -> None:
    """What is wrong is found without reading all jobs, even where much is wrong."""
    seconds = {"dead_s": 30.0, "wait_s": 60.0, "late_s": 0.0, "rescued_s": 3_600.0}
    statement = overview.problems(standby=False)
    assert pages_read(engine, many, statement, **seconds, limit=20, most=200) < 1_000
