"""Shared by the scripts: a durable server, schemas full of jobs, raw loops, and results."""

import contextlib
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import psycopg
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.schema import CreateSchema, DropSchema

from benchmarks.profiler import profile
from riverrun.bench.run import percentile, versions
from riverrun.bench.settings import Settings
from riverrun.config import QueueConfig
from riverrun.embedded import Cluster
from riverrun.migrations import migrate

RESULTS = Path(__file__).with_name("results")
SCHEMA = "benchmark"
RUNS = 5
"""Minimum number of samples of a side in a full run."""

SERVER = {
    "max_wal_size": "4GB",  # The size of the WAL never causes a checkpoint in a measurement.
    "track_commit_timestamp": "on",  # `latency` reads when a completion became visible.
}


@attrs.frozen
class Target:
    """A target of a side: a ratio to another side's median, or a limit for its own figure.

    Attributes:
        side: The side that has the target.
        limit: The least value; if less is better, the greatest.
        against: The side to compare with. Default: the first side of the comparison.
        percentile: If given, this percentile of the side's own samples must keep the limit, and no
            sides are compared.
    """

    side: str
    limit: float
    against: str | None = None
    percentile: float | None = None


def _targets(value: Mapping[str, float] | Sequence[Target]) -> tuple[Target, ...]:
    """Return the targets. A mapping is short for ratios to the first side."""
    if isinstance(value, Mapping):
        return tuple(Target(side, limit) for side, limit in value.items())
    return tuple(value)


@attrs.frozen(kw_only=True)
class Comparison:
    """The figures of several sides, measured in turns in one run on one server.

    Attributes:
        question: What was measured.
        unit: The unit of the samples.
        samples: The samples of each side, by its name. Unless a target names another, the first
            side is the one that the others are compared with.
        targets: The targets of the sides.
        less: Whether less is better.
        settings: The settings of the run.
        notes: Remarks that a reader of the figures needs.
        profiles: For each side that missed a target, where its time went, as text.
    """

    question: str
    unit: str
    samples: dict[str, list[float]]
    targets: tuple[Target, ...] = attrs.field(default=(), converter=_targets)
    less: bool = False
    settings: dict[str, Any] = attrs.field(factory=dict)
    notes: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    profiles: dict[str, str] = attrs.field(factory=dict)

    @property
    def first(self) -> str:
        """The side that others are compared with by default."""
        return next(iter(self.samples))

    def verdicts(self) -> "list[Verdict]":
        """Return the verdict on each target whose sides were measured."""
        return [
            self._verdict(target)
            for target in self.targets
            if target.side in self.samples and (target.against or self.first) in self.samples
        ]

    def missed(self) -> set[str]:
        """Return the sides that missed a target."""
        return {verdict.target.side for verdict in self.verdicts() if not verdict.reached}

    def _verdict(self, target: Target) -> "Verdict":
        samples = self.samples[target.side]
        if target.percentile is not None:
            value, spread = percentile(samples, target.percentile), None
        else:
            base = self.samples[target.against or self.first]
            value = statistics.median(samples) / statistics.median(base)
            # Pair samples taken in the same turn: what disturbed both then cancels out.
            ratios = [mine / theirs for mine, theirs in zip(samples, base, strict=False) if theirs]
            spread = (min(ratios), max(ratios)) if len(samples) == len(base) else None
        reached = value <= target.limit if self.less else value >= target.limit
        return Verdict(target, value, spread, reached)


@attrs.frozen
class Verdict:
    """Whether a target was reached.

    Attributes:
        target: The target.
        value: The measured ratio or figure.
        spread: The least and the greatest ratio of samples taken in one turn.
        reached: Whether the target is reached.
    """

    target: Target
    value: float
    spread: tuple[float, float] | None
    reached: bool


class LeftOut(Exception):
    """A script cannot run here, and may be skipped; the message says why."""


@contextlib.contextmanager
def server(url: str | None) -> Iterator[Engine]:
    """Yield an engine for a database of a server whose commits wait for the disk.

    Args:
        url: The URL of a database. Default: a temporary server.

    Raises:
        Forgetful: If the server's commits do not wait for the disk.
    """
    with contextlib.ExitStack() as stack:
        if url is None:
            cluster = stack.enter_context(Cluster(durable=True, settings=SERVER))
            address = make_url(cluster.create_database("benchmarks"))
        else:
            address = make_url(url).set(drivername="postgresql+psycopg")
        engine = create_engine(address, pool_size=40)
        stack.callback(engine.dispose)
        forgets = [name for name, value in durability(engine).items() if value != "on"]
        if forgets:
            raise Forgetful(f"{', '.join(forgets)} of the server is off; turn it on")
        yield engine


class Forgetful(Exception):
    """The server's commits do not wait for the disk, so its figures would mean nothing."""


def durability(engine: Engine) -> dict[str, str]:
    """Return the server's settings that make a commit reach the disk."""
    names = ("fsync", "synchronous_commit", "full_page_writes")
    with engine.connect() as connection:
        return {name: str(connection.scalar(text(f"SHOW {name}"))) for name in names}


@contextlib.contextmanager
def schema(engine: Engine) -> Iterator[str]:
    """Yield the name of a schema with River's tables, all empty."""
    # Old connections may hold plans for former tables of the same names.
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
    """Return a raw connection in autocommit mode."""
    url = engine.url
    return psycopg.connect(
        host=url.query.get("host") or url.host,  # type: ignore[arg-type]
        port=url.query.get("port") or url.port,  # type: ignore[arg-type]
        user=url.username,
        password=url.password,
        dbname=url.database,
        autocommit=True,
    )


def settings_for(
    engine: Engine,
    name: str,
    *,
    slots: int = QueueConfig().max_workers,
    ahead: int = QueueConfig().claim_ahead,
    **more: Any,
) -> Settings:
    """Return settings for a process that works the jobs in schema `name`. Default: the client's."""
    url = engine.url.render_as_string(hide_password=False)
    return Settings(
        url=url, schema=name, queue="default", max_workers=slots, claim_ahead=ahead, **more
    )


def settle(engine: Engine) -> None:
    """Vacuum, analyze and checkpoint now, so that it does not happen during a measurement."""
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
    """Claim and complete all waiting jobs, `batch` at a time, and do nothing else."""
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
    """Return `rounds` samples of each side, taken in turns so that a slow minute affects all."""
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            samples[side].append(measure())
    return samples


def profiled(comparison: Comparison, again: Mapping[str, Callable[[], object]]) -> Comparison:
    """Return a comparison with a profile of each side that missed its target.

    A small run is returned as it is: its figures, and so its missed targets, mean nothing.

    Args:
        comparison: The comparison.
        again: By side, a function that runs it once more, in this process or its children.
    """
    if min(len(samples) for samples in comparison.samples.values()) < RUNS:
        return comparison
    found = {side: profile(again[side]) for side in sorted(comparison.missed() & set(again))}
    return attrs.evolve(comparison, profiles=found)


def save(
    engine: Engine, comparisons: Sequence[Comparison], path: Path, *, took_s: float, load: float
) -> None:
    """Write the figures to a file, with everything that is needed to repeat the run.

    Args:
        engine: An engine on the server of the run.
        comparisons: The figures.
        path: The file.
        took_s: How long the run took, in seconds.
        load: The system's load average before the run.
    """
    saved = {
        "revision": revision(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(took_s, 1),
        "versions": versions(engine),
        "machine": {
            "processors": os.cpu_count(),
            "system": platform.platform(),
            "load": round(load, 1),
        },
        "server": server_settings(engine),
        "comparisons": [attrs.asdict(comparison) for comparison in comparisons],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(compact_json(saved))


def revision() -> str:
    """Return the current commit, followed by "-dirty" if the tree has changes.

    Files that a run itself writes, results and README.md, do not count as changes.
    """
    root = RESULTS.parent.parent
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", ".", ":!benchmarks/results", ":!README.md")
    return (commit or "unknown") + ("-dirty" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=root
    )
    return done.stdout.strip()


def server_settings(engine: Engine) -> dict[str, str]:
    """Return the server's settings that the figures depend on."""
    with engine.connect() as connection:
        others = {
            name: str(connection.scalar(text(f"SHOW {name}")))
            for name in ("shared_buffers", "max_wal_size", "wal_sync_method")
        }
    return {**durability(engine), **others}


def compact_json(value: object) -> str:
    """Return JSON with each array of numbers on one line; floats have five digits."""
    return _compact(value, "\n") + "\n"


def _compact(value: object, line: str) -> str:
    within = f"{line} "
    match value:
        case dict() if value:
            items = [f"{json.dumps(key)}: {_compact(item, within)}" for key, item in value.items()]
            return f"{{{within}{f',{within}'.join(items)}{line}}}"
        case list() | tuple() if not all(isinstance(item, int | float) for item in value):
            return f"[{within}{f',{within}'.join(_compact(item, within) for item in value)}{line}]"
        case list() | tuple():
            return f"[{', '.join(_compact(item, within) for item in value)}]"
        case float():
            return json.dumps(float(f"{value:.5g}"))
    return json.dumps(value, ensure_ascii=False)


def read(path: Path) -> dict[str, Any] | None:
    """Return the contents of a file that `save` wrote; None if there is no such file."""
    if not path.exists():
        return None
    saved: dict[str, Any] = json.loads(path.read_text())
    saved["comparisons"] = [
        Comparison(**{**fields, "targets": [Target(**target) for target in fields["targets"]]})
        for fields in saved["comparisons"]
    ]
    return saved
