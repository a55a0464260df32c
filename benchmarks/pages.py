"""How long does the server take for each page of the dashboard, with a million jobs in the table?

The pages are asked for by WSGI, in turns, with nothing shared between requests but what the
dashboard itself keeps for two seconds. So most requests for lists read all that they show.
"""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine, text

from benchmarks.harness import SCHEMA, Comparison, Target, schema, settle
from riverrun import Client
from riverrun.web import Dashboard, User
from riverrun.web.routes import MENU

LIMIT_MS = 50.0

LISTS = (
    "/jobs?state=completed",
    "/jobs?state=discarded",
    "/jobs?state=available",
    "/jobs?kind=kind_7",
    "/jobs?state=completed&kind=nothing",
    "/jobs?arg=order:77777",
    "/jobs?state=running",
)
"""Pages of filtered lists, beside the pages of the menu."""

FILL = f"""
INSERT INTO {SCHEMA}.river_job (kind, queue, state, priority, args, max_attempts, attempt,
  created_at, scheduled_at, attempted_at, finalized_at, attempted_by, errors, metadata)
SELECT 'kind_' || n % 24, 'queue_' || n % 6, state, 1 + n % 4,
  jsonb_build_object('order', n, 'shop', n % 1000, 'note', repeat('x', 60)), 25, 1,
  at - interval '3 s', at, at, CASE WHEN n <= :finished THEN at + interval '1 s' END,
  ARRAY['client_' || n % 8],
  CASE WHEN state IN ('discarded', 'retryable') THEN ARRAY[jsonb_build_object(
    'at', at, 'attempt', 1, 'error', 'order ' || n || ' was refused for reason ' || n % 7,
    'trace', repeat('  File "/srv/shop/jobs.py", line 41, in charge' || chr(10), 20))] END,
  CASE WHEN n % 5000 = 0 THEN '{{"river:rescue_count": 1}}'::jsonb ELSE '{{}}'::jsonb END
FROM (SELECT n, now() - (:total - n) * interval '20 ms' AS at,
  (CASE WHEN n > :finished THEN CASE WHEN n % 200 = 5 THEN 'running'
      WHEN n % 12 = 0 THEN 'retryable' WHEN n % 5 = 1 THEN 'scheduled'
      WHEN n % 50 = 2 THEN 'pending' ELSE 'available' END
    WHEN n % 50 = 0 THEN 'discarded' WHEN n % 33 = 0 THEN 'cancelled'
    ELSE 'completed' END)::{SCHEMA}.river_job_state AS state
  FROM generate_series(1, :total) AS n) AS numbers
"""


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Ask for each page a number of times."""
    finished, waiting = (10_000, 1_000) if small else (1_000_000, 100_000)
    rounds = 2 if small else 40
    with schema(engine) as name:
        with engine.begin() as connection:
            numbers = {"finished": finished, "total": finished + waiting}
            connection.execute(text(FILL), numbers)
        settle(engine)
        dashboard = Dashboard(Client(engine, schema=name), authorize=lambda _: User.all("ada"))
        pages = [*(path for _, path, _ in MENU), *LISTS, f"/jobs/{finished // 2}", "/jobs.json"]
        for path in pages:
            taken(dashboard, path)  # The first one compiles statements and templates.
        samples: dict[str, list[float]] = {path: [] for path in pages}
        for _ in range(rounds):
            for path in pages:
                samples[path].append(taken(dashboard, path))
    return [
        Comparison(
            question=f"a page of the dashboard, at {finished:,} finished and {waiting:,} waiting",
            unit="ms",
            samples=samples,
            targets=[Target(path, LIMIT_MS, percentile=95) for path in pages],
            less=True,
            settings={"finished": finished, "waiting": waiting, "rounds": rounds},
            notes=["The time of the server, rendering included, without HTTP."],
        )
    ]


def taken(dashboard: Dashboard, path: str) -> float:
    """Return the milliseconds that a page takes; it must be shown."""
    parts = urlsplit(path)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/admin/jobs",
        "PATH_INFO": parts.path,
        "QUERY_STRING": parts.query,
    }
    statuses: list[str] = []

    def start_response(status: str, _: Sequence[tuple[str, str]]) -> None:
        statuses.append(status)

    began = time.perf_counter()
    body = b"".join(dashboard(environ, start_response))
    took_ms = (time.perf_counter() - began) * 1e3
    assert statuses == ["200 OK"], f"{path}: {statuses}, {body[:2_000]!r}"
    return took_ms
