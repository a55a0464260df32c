"""How long do the dashboard's reads take with 1,000,000 finished and 100,000 waiting jobs?"""

import time
from collections.abc import Callable

from sqlalchemy import Engine, text

from benchmarks.harness import SCHEMA, Comparison, Target, schema, settle
from riverrun import JobListParams, verbs
from riverrun.verbs.beat import beat
from riverrun.verbs.elect import elect
from riverrun.verbs.read import count_listed, list_briefs

QUEUES = 6
KINDS = 24
LIMIT_MS = 50.0
"""The greatest 95th percentile of a read: that of a whole page."""

SEARCH_MS = 200.0
"""The same of a search by text, which reads a window of 10,000 jobs."""


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Time each read on one table."""
    finished, waiting = (20_000, 2_000) if small else (1_000_000, 100_000)
    with schema(engine):
        fill(engine, finished, waiting)
        settle(engine)
        samples = {name: timed(read, small=small) for name, read in reads(engine).items()}
    return [
        Comparison(
            question="reads of the dashboard",
            unit="ms",
            samples=samples,
            targets=[
                Target(name, SEARCH_MS if "text" in name else LIMIT_MS, percentile=95)
                for name in samples
            ],
            less=True,
            settings={"finished": finished, "waiting": waiting},
            notes=["Each is a call of a verb on an engine, with a transaction of its own."],
        )
    ]


def timed(read: Callable[[], object], *, small: bool) -> list[float]:
    """Return the milliseconds of each of some calls."""
    read()  # The first one compiles.
    taken = []
    for _ in range(3 if small else 40):
        began = time.perf_counter()
        read()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def reads(engine: Engine) -> dict[str, Callable[[], object]]:
    """Return the reads by name."""
    with engine.connect() as connection:
        last = connection.execute(text(LAST_IN_LINE)).scalar_one()
    key = verbs.list_failures(engine, schema=SCHEMA).groups[0].key
    newest = {"limit": 50, "descending": True}
    ended = {**newest, "states": ["completed"], "order_by": "finalized_at"}
    lists = {
        "newest": JobListParams(**newest),
        "newest completed": JobListParams(**ended),
        "newest of two final states": JobListParams(
            **{**ended, "states": ["cancelled", "discarded"]}
        ),
        "running": JobListParams(**newest, states=["running"]),
        "of a kind": JobListParams(**newest, kinds=["kind_5"]),
        "by args": JobListParams(**newest, args={"order_id": 777}),
        "by args that no job has": JobListParams(**newest, args={"order_id": -1}),
        "by client": JobListParams(**newest, client="client-3"),
        "by client, of which there is none": JobListParams(**ended, client="nobody"),
        "by text": JobListParams(**newest, text="user77@"),
        "by text, of which there is none": JobListParams(**newest, text="nobody@"),
        "by a tag that no job has": JobListParams(**newest, tags_all=["none"], window=10_000),
    }

    def list_of(params: JobListParams) -> Callable[[], object]:
        return lambda: list_briefs(engine, params, errors=True, schema=SCHEMA)

    return {
        **{f"list {name}": list_of(params) for name, params in lists.items()},
        "count_listed": lambda: count_listed(
            engine, JobListParams(**ended), most=10_001, schema=SCHEMA
        ),
        "get": lambda: verbs.get(engine, last, schema=SCHEMA),
        "place_in_line": lambda: verbs.place_in_line(engine, last, schema=SCHEMA),
        "key_holder": lambda: verbs.key_holder(engine, last, schema=SCHEMA),
        "count_waiting": lambda: verbs.count_waiting(engine, schema=SCHEMA),
        "overview": lambda: verbs.overview(engine, dead_s=30, schema=SCHEMA),
        "list_failures": lambda: verbs.list_failures(engine, schema=SCHEMA),
        "list_failed": lambda: verbs.list_failed(engine, key, schema=SCHEMA),
        "kind_stats": lambda: verbs.kind_stats(engine, schema=SCHEMA),
        "list_kinds": lambda: verbs.list_kinds(engine, schema=SCHEMA),
        "finished_by_time": lambda: verbs.finished_by_time(engine, schema=SCHEMA),
        "running_on": lambda: verbs.running_on(engine, schema=SCHEMA),
        "list_rescued": lambda: verbs.list_rescued(engine, schema=SCHEMA),
        "schema_health": lambda: verbs.schema_health(engine, schema=SCHEMA),
    }


LAST_IN_LINE = (
    f"SELECT id FROM {SCHEMA}.river_job WHERE state = 'available' AND queue = 'queue_0'"
    " ORDER BY priority DESC, scheduled_at DESC, id DESC LIMIT 1"
)


def fill(engine: Engine, finished: int, waiting: int) -> None:
    """Insert finished and waiting jobs, as they might be after a day of work.

    Of the finished jobs 95 % are completed, 3 % cancelled and 2 % discarded, with tracebacks. Most
    of the waiting ones are available; 0.5 % are running.
    """
    with engine.begin() as connection:
        connection.execute(text(FINISHED), {"count": finished})
        connection.execute(text(WAITING), {"count": waiting, "after": finished})
    queues = [f"queue_{number}" for number in range(QUEUES)]
    for number in range(5):
        name = f"client-{number}"
        beat(engine, name, hostname="host", pid=number, queues=queues, schema=SCHEMA)
    elect(engine, "client-0", ttl_s=3600, schema=SCHEMA)


# Some kinds and queues have many more jobs than others.
_COLUMNS = (
    f"INSERT INTO {SCHEMA}.river_job (kind, queue, state, args, tags, max_attempts, attempt,"
    " priority, created_at, scheduled_at, attempted_at, finalized_at, attempted_by, errors,"
    " metadata, unique_key, unique_states)"
    f" SELECT 'kind_' || floor(power((n % 1000 * 919) % 1000 / 1000.0, 2) * {KINDS}),"
    f"  'queue_' || floor(power((n % 1000 * 729) % 1000 / 1000.0, 2) * {QUEUES})"
)
_ARGS = (
    "jsonb_build_object('order_id', n, 'email', 'user' || n % 50000 || '@example.com', 'shop',"
    " n % 100), CASE WHEN n % 10 = 0 THEN ARRAY['shop_' || n % 7] ELSE '{}' END"
)
_ERROR = (
    "ARRAY[jsonb_build_object('attempt', 1, 'at', '2026-01-01T00:00:00Z', 'error',"
    " CASE n % 3 WHEN 0 THEN 'TimeoutError: no answer within ' || n % 90 || ' s'"
    "  WHEN 1 THEN 'KeyError: order ' || n ELSE 'ConnectionError: refused by 10.0.0.' || n % 200"
    " END, 'trace', repeat('  File \"/app/shop/orders.py\", line ' || n % 900 || ', in ship', 30))]"
)
FINISHED = (
    f"{_COLUMNS}, state, {_ARGS}, 25, 1 + CASE WHEN n % 20 = 0 THEN n % 5 ELSE 0 END,"
    "  1 + CASE WHEN n % 10 = 0 THEN n % 4 ELSE 0 END,"
    "  at - interval '9 s', at - interval '8 s', at - (n % 700) * interval '10 ms', at,"
    f"  ARRAY['client-' || n % 5], CASE WHEN state = 'discarded' THEN {_ERROR} END,"
    "  CASE WHEN n % 5000 = 0 THEN '{\"river:rescue_count\": 1}' ELSE '{}' END::jsonb, NULL, NULL"
    " FROM (SELECT n, now() - (:count - n) * interval '80 ms' AS at,"
    "  (CASE WHEN n % 50 = 0 THEN 'discarded' WHEN n % 33 = 0 THEN 'cancelled' ELSE 'completed'"
    f"  END)::{SCHEMA}.river_job_state AS state FROM generate_series(1, :count) AS n) AS numbers"
)
WAITING = (
    f"{_COLUMNS}, state, {_ARGS}, 25,"
    "  CASE WHEN state IN ('retryable', 'running') THEN 2 ELSE 0 END,"
    "  1 + CASE WHEN n % 10 = 0 THEN n % 4 ELSE 0 END, now() - interval '1 h',"
    "  now() + CASE WHEN state IN ('scheduled', 'retryable') THEN 1 ELSE -1 END"
    "   * (n % 30000) * interval '100 ms',"
    "  CASE WHEN state IN ('retryable', 'running') THEN now() - (n % 600) * interval '1 s' END,"
    "  NULL, CASE WHEN state IN ('retryable', 'running') THEN ARRAY['client-' || n % 5] END,"
    f"  CASE WHEN state = 'retryable' THEN {_ERROR} END, '{{}}',"
    "  decode(md5(CAST(n AS text)), 'hex'), B'11111111'"
    " FROM (SELECT n, (CASE WHEN n % 200 = 0 THEN 'running' WHEN n % 50 = 1 THEN 'pending'"
    "  WHEN n % 12 = 2 THEN 'retryable' WHEN n % 5 = 3 THEN 'scheduled' ELSE 'available' END)"
    f"  ::{SCHEMA}.river_job_state AS state"
    "  FROM generate_series(:after + 1, :after + :count) AS n) AS numbers"
)
