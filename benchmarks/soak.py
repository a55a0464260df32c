"""Do speed and memory stay stable while workers are killed, and is every job worked once?

`python -m benchmarks.soak [--minutes 15] [--retained 1000000] [--small]`. It takes too long for
`benchmarks.run`, which only has its small form.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import attrs
import click
from sqlalchemy import Engine, text

from benchmarks.harness import RESULTS, SCHEMA, Comparison, fill, save, schema, server, settle
from benchmarks.memory import resident
from benchmarks.plot import Mark, lines, number
from benchmarks.soak_worker import SLOTS, Flaky, Large, Long, Patient, Short
from riverrun import Client
from riverrun.bench.run import percentile

PROCESSES = 4
TICK_S = 0.1
DEADLINE_S = 180.0


@attrs.frozen(kw_only=True)
class Plan:
    """The parameters of a soak.

    Attributes:
        seconds: How long jobs are inserted, in seconds.
        kill_s: Seconds between two kills.
        look_s: Seconds between two samples.
        rate: Jobs inserted per second.
        retained: Completed jobs in the table from the start.
        hasten: Whether to expire a killed worker's heartbeat, so that its jobs are rescued at once.
    """

    seconds: float
    kill_s: float = 20.0
    look_s: float = 10.0
    rate: int = 200
    retained: int = 1_000_000
    hasten: bool = False


SMALL = Plan(seconds=4, kill_s=2, look_s=1, rate=100, retained=1_000, hasten=True)


@attrs.frozen(kw_only=True)
class Look:
    """One sample of all figures.

    Attributes:
        at: Seconds since the start.
        throughput: Jobs completed per second since the last sample.
        waited_p50_ms, waited_p99_ms: Milliseconds from when jobs were due until their claim.
        resident_mb: Resident memory of all workers together, in megabytes.
        connections: Connections to the database, including the soak's own.
        dead_tuples: Dead rows of the job table, by the server's statistics.
        open_jobs: Jobs that are not final.
    """

    at: float
    throughput: float
    waited_p50_ms: float
    waited_p99_ms: float
    resident_mb: float
    connections: float
    dead_tuples: float
    open_jobs: float


SHOWN = {
    "throughput": "jobs/s",
    "waited_p50_ms": "ms",
    "waited_p99_ms": "ms",
    "resident_mb": "MB",
    "connections": "connections",
    "dead_tuples": "rows",
    "open_jobs": "jobs",
}

OPENING = """\
Made by `python -m benchmarks.soak`; the samples are in soak.json. For {minutes} minutes {rate} jobs
of five kinds were inserted each second, beside {retained:,} completed ones, and worked by
{processes} processes with {slots} slots each, one of which was killed each {kill_s:g} s (dashed):
{kills} kills. At its end every job was completed, and its effect was there once. At its start
{load:.1f} processes of others wanted the machine's {processors} processors."""


class Fleet:
    """Worker processes, which are killed and replaced one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._url = engine.url.render_as_string(hide_password=False)
        self._engine = engine
        self._numbers = count()
        self._living: dict[str, subprocess.Popen[bytes]] = {}
        for _ in range(PROCESSES):
            self._start()

    def _start(self) -> None:
        name = f"soak_{next(self._numbers)}"
        command = [sys.executable, "-m", "benchmarks.soak_worker", self._url, SCHEMA, name]
        self._living[name] = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill_one(self, *, hasten: bool) -> None:
        """Kill the oldest process, and start another."""
        name = next(iter(self._living))
        process = self._living.pop(name)
        process.kill()
        process.wait()
        self._start()
        if hasten:
            # Pretend that its last heartbeat, and its term as leader, ended an hour ago.
            over = "now() - interval '1 hour'"
            with self._engine.begin() as connection:
                for table, column, key in (
                    ("riverrun_client", "heartbeat_at", "id"),
                    ("river_leader", "expires_at", "leader_id"),
                ):
                    change = f"UPDATE {SCHEMA}.{table} SET {column} = {over} WHERE {key} = :name"
                    connection.execute(text(change), {"name": name})

    def resident_mb(self) -> float:
        """Return the resident memory of all processes, in megabytes."""
        return sum(resident(process.pid) for process in self._living.values())

    def stop(self) -> None:
        """Stop all processes in order.

        Raises:
            AssertionError: If one of them does not exit with 0.
        """
        for process in self._living.values():
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(60) for process in self._living.values()]
        assert set(codes) == {0}, f"workers ended with {codes}"

    def close(self) -> None:
        """Kill all processes that are left."""
        for process in self._living.values():
            process.kill()
            process.wait()


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Run the small form; the long one has a command of its own."""
    looks, _ = soak(engine, SMALL if small else Plan(seconds=900))
    return comparisons(looks)


def soak(engine: Engine, plan: Plan) -> tuple[list[Look], list[float]]:
    """Insert and work jobs while workers are killed; then check that each was worked once.

    Returns:
        The samples, and the times of kills, in seconds since the start.

    Raises:
        AssertionError: If a job was lost, or had its effect twice.
    """
    with schema(engine):
        with engine.begin() as connection:
            effect = "id bigserial PRIMARY KEY, job_id bigint, waited_s float"
            connection.execute(text(f"CREATE TABLE {SCHEMA}.effect ({effect})"))
        fill(engine, plan.retained, state="completed")
        settle(engine)
        fleet = Fleet(engine)
        with contextlib.closing(fleet):
            clients = f"SELECT count(*) FROM {SCHEMA}.riverrun_client"
            _wait(engine, clients, PROCESSES, "the workers")
            looks, kills, inserted = _go(engine, plan, fleet)
            left = f"SELECT count(*) FROM {SCHEMA}.river_job WHERE finalized_at IS NULL"
            _wait(engine, left, 0, "the end of every job")
            fleet.stop()
        _audit(engine, inserted, plan.retained)
    return looks, kills


def _go(engine: Engine, plan: Plan, fleet: Fleet) -> tuple[list[Look], list[float], int]:
    client = Client(engine, schema=SCHEMA)
    jobs = _mix()
    began = time.monotonic()
    inserted, last_effect = 0, 0
    looks: list[Look] = []
    kills: list[float] = []
    looked_at, due_kill, due_look = 0.0, plan.kill_s, plan.look_s
    pause = threading.Event()
    while (at := time.monotonic() - began) < plan.seconds:
        missing = int(at * plan.rate) - inserted
        if missing > 0:
            with engine.begin() as connection:
                client.insert_many(connection, [next(jobs) for _ in range(missing)])
            inserted += missing
        if at >= due_kill:
            fleet.kill_one(hasten=plan.hasten)
            kills.append(at)
            due_kill += plan.kill_s
        if at >= due_look:
            look, last_effect = _look(engine, fleet, at, at - looked_at, last_effect)
            looks.append(look)
            looked_at, due_look = at, due_look + plan.look_s
        pause.wait(TICK_S)
    client.flush_announcements()
    return looks, kills, inserted


def _mix() -> Iterator[object]:
    """Yield jobs of all kinds, endlessly."""
    while True:
        yield from [Short()] * 5
        yield Large("x" * 10_000)
        yield from [Long()] * 2
        yield Flaky()
        yield Patient()


def _look(engine: Engine, fleet: Fleet, at: float, since_s: float, last: int) -> tuple[Look, int]:
    statements = {
        "connections": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
        "dead_tuples": "SELECT n_dead_tup FROM pg_stat_user_tables "
        f"WHERE schemaname = '{SCHEMA}' AND relname = 'river_job'",
        "open_jobs": f"SELECT count(*) FROM {SCHEMA}.river_job WHERE state IN "
        "('available', 'pending', 'retryable', 'running', 'scheduled')",
    }
    effects = text(f"SELECT id, waited_s FROM {SCHEMA}.effect WHERE id > :last ORDER BY id")
    with engine.connect() as connection:
        rows = connection.execute(effects, {"last": last}).all()
        seen: dict[str, Any] = {
            name: float(connection.execute(text(statement)).scalar() or 0)
            for name, statement in statements.items()
        }
    waited_ms = [1_000 * row.waited_s for row in rows] or [0.0]
    look = Look(
        at=at,
        throughput=len(rows) / since_s,
        waited_p50_ms=percentile(waited_ms, 50),
        waited_p99_ms=percentile(waited_ms, 99),
        resident_mb=fleet.resident_mb(),
        **seen,
    )
    return look, rows[-1].id if rows else last


def _wait(engine: Engine, statement: str, expected: int, what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while (found := _one(engine, statement)) != expected:
        problem = f"{what}: {found} instead of {expected} after {DEADLINE_S:.0f} s"
        assert time.monotonic() < end, problem
        threading.Event().wait(0.2)


def _audit(engine: Engine, inserted: int, retained: int) -> None:
    completed = f"SELECT count(*) FROM {SCHEMA}.river_job WHERE state = 'completed'"
    assert _one(engine, completed) == inserted + retained, "not every job is completed"
    effects = f"SELECT count(*) FROM {SCHEMA}.effect"
    distinct = f"SELECT count(DISTINCT job_id) FROM {SCHEMA}.effect"
    found = _one(engine, effects), _one(engine, distinct)
    assert found == (inserted, inserted), f"effects, of so many jobs: {found}, of {inserted}"
    strangers = f"SELECT count(*) FROM {SCHEMA}.effect e LEFT JOIN {SCHEMA}.river_job j "
    assert _one(engine, f"{strangers} ON j.id = e.job_id WHERE j.id IS NULL") == 0


def _one(engine: Engine, statement: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar_one()


def comparisons(looks: Sequence[Look]) -> list[Comparison]:
    """Return a comparison per figure, with its samples over time."""
    return [
        Comparison(
            question=f"soak: {name.replace('_', ' ')} while workers are killed",
            unit=unit,
            samples={"riverrun": [getattr(look, name) for look in looks]},
            less=name != "throughput",
        )
        for name, unit in SHOWN.items()
    ]


def report(looks: Sequence[Look], kills: Sequence[float], plan: Plan, *, load: float) -> None:
    """Write a table of the figures, and a plot of each over time."""
    marks = [Mark(at) for at in kills]
    parts = [
        "# Soak",
        "",
        OPENING.format(
            minutes=f"{plan.seconds / 60:g}",
            rate=plan.rate,
            retained=plan.retained,
            processes=PROCESSES,
            slots=SLOTS,
            kill_s=plan.kill_s,
            kills=len(kills),
            load=load,
            processors=os.cpu_count(),
        ),
        "",
        "| | Unit | Median | Least | Most | First tenth | Last tenth |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    tenth = max(1, len(looks) // 10)
    for name, unit in SHOWN.items():
        values = [getattr(look, name) for look in looks]
        figures = [
            percentile(values, 50),
            min(values),
            max(values),
            percentile(values[:tenth], 50),
            percentile(values[-tenth:], 50),
        ]
        cells = " | ".join(number(value) for value in figures)
        parts.append(f"| {name.replace('_', ' ')} | {unit} | {cells} |")
    for names in (
        ("throughput",),
        ("waited_p50_ms", "waited_p99_ms"),
        ("resident_mb",),
        ("connections",),
        ("dead_tuples", "open_jobs"),
    ):
        series = {
            name.replace("_", " "): [(look.at, getattr(look, name)) for look in looks]
            for name in names
        }
        title = ", ".join(series)
        plot = RESULTS / f"soak-{names[0]}.svg"
        plot.write_text(lines(title, series, unit=SHOWN[names[0]], marks=marks))
        parts += ["", f"![{title}]({plot.name})"]
    (RESULTS / "soak.md").write_text("\n".join(parts) + "\n")


@click.command
@click.option("--minutes", type=click.FloatRange(0.1), default=15.0, show_default=True)
@click.option("--retained", type=click.IntRange(0), default=1_000_000, show_default=True)
@click.option("--rate", type=click.IntRange(1), default=200, show_default=True)
@click.option("--small", is_flag=True, help="A few seconds: only check that it runs.")
@click.option("--database-url", help="A database. Default: a temporary server.")
def main(minutes: float, retained: int, rate: int, small: bool, database_url: str | None) -> None:
    """Run the soak, and unless --small save its figures."""
    plan = SMALL if small else Plan(seconds=60 * minutes, retained=retained, rate=rate)
    began = time.monotonic()
    load = os.getloadavg()[0]
    with server(database_url) as engine:
        looks, kills = soak(engine, plan)
        click.echo("every job was worked once")
        if not small:
            took_s = time.monotonic() - began
            save(engine, comparisons(looks), RESULTS / "soak.json", took_s=took_s, load=load)
            report(looks, kills, plan, load=load)


if __name__ == "__main__":
    main()
