"""How long does the server take for each page of the dashboard, with a million jobs in the table?

The pages are asked for by WSGI, in turns. What the dashboard keeps for two seconds is forgotten
before each request, so each reads all that it shows.
"""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine

from benchmarks.dashboard import fill
from benchmarks.harness import Comparison, Target, schema, settle
from riverrun import Client, verbs
from riverrun.web import Dashboard, User
from riverrun.web.routes import MENU

LIMIT_MS = 50.0

LISTS = (
    "/jobs?state=completed",
    "/jobs?state=discarded",
    "/jobs?state=available",
    "/jobs?kind=kind_7",
    "/jobs?state=completed&kind=nothing",
    "/jobs?arg=order_id:77777",
    "/jobs?state=running",
    "/jobs?client=client-3",
    "/jobs?client=nobody",
    "/jobs?tag=none",
    "/jobs?q=user77@",
    "/jobs?q=nobody@",
    "/jobs.json",
    "/jobs.csv",
)
"""Pages of filtered lists, beside the pages of the menu."""

ONES = ("/queues/queue_0", "/kinds/kind_5", "/clients/client-3", "/failures/{failure}")
"""Pages of one thing."""


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Ask for each page a number of times."""
    finished, waiting = (10_000, 1_000) if small else (1_000_000, 100_000)
    rounds = 2 if small else 40
    with schema(engine) as name:
        fill(engine, finished, waiting)
        settle(engine)
        dashboard = Dashboard(Client(engine, schema=name), authorize=lambda _: User.all("ada"))
        failure = verbs.list_failures(engine, schema=name).groups[0].key
        ones = [path.format(failure=failure) for path in ONES]
        jobs = [f"/jobs/{number}" for number in (finished // 2, finished + waiting)]
        pages = [*(path for _, path, _ in MENU), *LISTS, *ones, *jobs]
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
    dashboard._cache.clear()

    def start_response(status: str, _: Sequence[tuple[str, str]]) -> None:
        statuses.append(status)

    began = time.perf_counter()
    body = b"".join(dashboard(environ, start_response))
    took_ms = (time.perf_counter() - began) * 1e3
    assert statuses == ["200 OK"], f"{path}: {statuses}, {body[:2_000]!r}"
    return took_ms
