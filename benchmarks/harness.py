"""What the scripts share: a server that is durable, schemas full of jobs, raw loops, results."""

import contextlib
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import psycopg
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.schema import CreateSchema, DropSchema

from riverrun.bench.run import versions
from riverrun.embedded import Cluster
from riverrun.migrations import migrate

RESULTS = Path(__file__).with_name("results")
SCHEMA = "benchmark"
SERVER = {"max_wal_size": "4GB"}  # No checkpoint that is due to the size falls into a measurement.


@attrs.frozen(kw_only=True)
class Comparison:
    """Sides measured in turns, in one run on one server.

    Attributes:
        question: What is asked.
        unit: Of the samples.
        samples: Of each side, by its name; the first is what the others are compared with.
        targets: By side, what its ratio must reach: at least, or at most if `less`.
        less: Whether less is better.
        settings: What was set.
    """

    question: str
    unit: str
    samples: dict[str, list[float]]
    targets: dict[str, float]
    less: bool = False
    settings: dict[str, Any] = attrs.field(factory=dict)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the figures of each side."""
        base = statistics.median(next(iter(self.samples.values())))
        for side, samples in self.samples.items():
            median = statistics.median(samples)
            target = self.targets.get(side)
            ratio = median / base if base else 0.0
            reached = None if target is None else (ratio <= target) == self.less or ratio == target
            yield {
                "question": self.question,
                "side": side,
                "unit": self.unit,
                "median": round(median, 3),
                "min": round(min(samples), 3),
                "max": round(max(samples), 3),
                "ratio": round(ratio, 2),
                "target": target,
                "reached": reached,
            }


@contextlib.contextmanager
def server(url: str | None) -> Iterator[Engine]:
    """Yield an engine on a database of a server that waits for its disk.

    Args:
        url: A database to use; without it a server of our own, made for the while.
    """
    with contextlib.ExitStack() as stack:
        if url is None:
            cluster = stack.enter_context(Cluster(durable=True, settings=SERVER))
            made = make_url(cluster.create_database("benchmarks"))
        else:
            made = make_url(url).set(drivername="postgresql+psycopg")
        engine = create_engine(made, pool_size=40)
        stack.callback(engine.dispose)
        forgets = [name for name, value in durability(engine).items() if value != "on"]
        if forgets:
            raise Forgetful(f"{', '.join(forgets)} of the server is off; turn it on")
        yield engine


class Forgetful(Exception):
    """The server does not wait for its disk; what it does in a second says nothing."""


def durability(engine: Engine) -> dict[str, str]:
    """Return those settings of the server by which a commit reaches the disk."""
    names = ("fsync", "synchronous_commit", "full_page_writes")
    with engine.connect() as connection:
        return {name: str(connection.scalar(text(f"SHOW {name}"))) for name in names}


@contextlib.contextmanager
def schema(engine: Engine) -> Iterator[str]:
    """Yield the name of a schema with River's tables, all empty."""
    # Connections keep plans for tables that had the same name.
    engine.dispose()
    with engine.begin() as connection:
        connection.execute(DropSchema(SCHEMA, cascade=True, if_exists=True))
        connection.execute(CreateSchema(SCHEMA))
        migrate(connection, schema=SCHEMA)
    try:
        yield SCHEMA
    finally:
        with engine.begin() as connection:
            connection.execute(DropSchema(SCHEMA, cascade=True))


def driver(engine: Engine) -> psycopg.Connection[Any]:
    """Return a raw connection, each statement a transaction of its own."""
    url = engine.url
    return psycopg.connect(
        host=url.query.get("host") or url.host,  # type: ignore[arg-type]
        port=url.query.get("port") or url.port,  # type: ignore[arg-type]
        user=url.username,
        password=url.password,
        dbname=url.database,
        autocommit=True,
    )


def settle(engine: Engine) -> None:
    """Have the server do now what it would do in the middle of a measurement."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"VACUUM ANALYZE {SCHEMA}.river_job"))
        connection.execute(text("CHECKPOINT"))


def fill(engine: Engine, count: int, *, state: str = "available") -> None:
    """Insert `count` no-op jobs."""
    final = "now()" if state == "completed" else "NULL"
    statement = (
        f"INSERT INTO {SCHEMA}.river_job (args, kind, max_attempts, state, finalized_at) "
        f"SELECT jsonb_build_object('number', n), 'riverrun_bench_no_op', 25, '{state}', {final} "
        "FROM generate_series(1, :count) n"
    )
    with engine.begin() as connection:
        connection.execute(text(statement), {"count": count})


CLAIM = f"""
    WITH claimable AS MATERIALIZED (
        SELECT id FROM {SCHEMA}.river_job
        WHERE state = 'available' AND queue = 'default' AND scheduled_at <= now()
        ORDER BY priority, scheduled_at, id LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE {SCHEMA}.river_job j
    SET state = 'running', attempt = attempt + 1, attempted_at = now(),
        attempted_by = array_append(attempted_by, 'raw')
    FROM claimable WHERE j.id = claimable.id
    RETURNING j.id, j.args, j.attempt, j.kind, j.metadata"""
COMPLETE = f"""
    UPDATE {SCHEMA}.river_job SET state = 'completed', finalized_at = now()
    WHERE id = ANY(%s) AND state = 'running'"""


def raw_drain(engine: Engine, batch: int) -> None:
    """Claim and complete all that waits, `batch` at a time, with nothing between."""
    with driver(engine) as connection:
        while rows := connection.execute(CLAIM, (batch,)).fetchall():
            connection.execute(COMPLETE, ([row[0] for row in rows],))


def drained(engine: Engine, expected: int) -> float:
    """Return the jobs per second of a drain, from the first claim to the last completion.

    Raises:
        AssertionError: If not every job was worked once.
    """
    statement = (
        "SELECT count(*), sum(attempt), "
        "extract(epoch FROM max(finalized_at) - min(attempted_at)) "
        f"FROM {SCHEMA}.river_job WHERE state = 'completed'"
    )
    with engine.connect() as connection:
        count, tries, seconds = connection.execute(text(statement)).one()
    assert (count, tries) == (expected, expected), f"{count} completed in {tries} of {expected}"
    return expected / float(seconds)


def in_turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return `rounds` samples of each side, taken in turns, so that a slow minute is all sides'."""
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            samples[side].append(measure())
    return samples


def save(engine: Engine, comparisons: Sequence[Comparison], path: Path) -> None:
    """Write what was measured, with what it takes to repeat it."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    path.write_text(
        json.dumps(
            {
                "revision": revision,
                "versions": versions(engine),
                "machine": {"processors": os.cpu_count(), "system": platform.platform()},
                "comparisons": [
                    {**attrs.asdict(each), "rows": list(each.rows())} for each in comparisons
                ],
            },
            indent=1,
        )
        + "\n"
    )


def load(path: Path) -> list[Comparison]:
    """Return what `save` has written; nothing if it has not."""
    if not path.exists():
        return []
    saved = json.loads(path.read_text())["comparisons"]
    return [
        Comparison(**{key: value for key, value in each.items() if key != "rows"}) for each in saved
    ]


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| Question | Side | Median | Least to most | Ratio | Target | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for each in comparisons:
        for row in each.rows():
            sign = "≤" if each.less else "≥"
            target = "" if row["target"] is None else f"{sign} {row['target']:g}"
            verdict = {None: "", True: "reached", False: "**missed**"}[row["reached"]]
            lines.append(
                f"| {row['question']} | {row['side']} | {row['median']:,.4g} {each.unit} "
                f"| {row['min']:,.4g} to {row['max']:,.4g} | {row['ratio']:g} "
                f"| {target} | {verdict} |"
            )
    return "\n".join(lines) + "\n"
