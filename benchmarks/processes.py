"""How fast are jobs that keep a processor busy, compared with calls in a plain process pool?"""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import attrs
from sqlalchemy import Engine, text

from benchmarks.drain import wait
from benchmarks.harness import SCHEMA, Comparison, drained, in_turns, profiled, schema
from riverrun import Client, JobArgs, QueueConfig, Workers

OURS = "riverrun, process executor"
TURNS = 150_000
"""Turns of a loop that takes about 10 ms."""


@attrs.frozen
class Burn(JobArgs, kind="riverrun_bench_burn"):
    """Args of a job that keeps a processor busy."""

    turns: int


def burn(args: Burn) -> None:
    """Keep a processor busy."""
    total = 0
    for number in range(args.turns):
        total += number


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Work CPU-bound jobs in as many processes as there are processors."""
    jobs, rounds = (50, 1) if small else (500, 5)
    processes = os.cpu_count() or 1

    def plain() -> float:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(burn, [Burn(1)] * processes * 5))  # Start and import.
            began = time.perf_counter()
            list(pool.map(burn, [Burn(TURNS)] * jobs))
            return jobs / (time.perf_counter() - began)

    def ours() -> float:
        workers = Workers()
        workers.register(burn, executor="process")
        with schema(engine) as name:
            client = Client(
                engine,
                workers=workers,
                queues={"default": QueueConfig()},
                schema=name,
                processes=processes,
            )
            with client:
                client.insert_many(engine, [Burn(1)] * processes * 5)
                wait(engine, name)
                with engine.begin() as connection:
                    connection.execute(text(f"DELETE FROM {SCHEMA}.river_job"))
                client.insert_many(engine, [Burn(TURNS)] * jobs)
                wait(engine, name)
            return drained(engine, jobs)

    comparison = Comparison(
        question=f"{jobs:,} jobs that keep a processor busy, {processes} processes",
        unit="jobs/s",
        samples=in_turns({"plain process pool": plain, OURS: ours}, rounds),
        targets={OURS: 0.9},
        notes=["The pool is concurrent.futures' own, handed one call at a time."],
    )
    return [profiled(comparison, {OURS: ours})]
