"""How long does an insert take within an open transaction?"""

import json
import threading
import time

import psycopg
from sqlalchemy import Connection, Engine, create_engine

from benchmarks.harness import SCHEMA, Comparison, driver, in_turns, profiled, schema
from riverrun import Client, Notify
from riverrun.bench.work import NoOp

ONE = f"""
    INSERT INTO {SCHEMA}.river_job
        (args, kind, max_attempts, metadata, priority, queue, state, tags)
    VALUES (%s, 'riverrun_bench_no_op', 25, '{{}}', 1, 'default', 'available', '{{}}')
    RETURNING *"""
MANY = f"""
    INSERT INTO {SCHEMA}.river_job (args, kind, max_attempts)
    SELECT args, 'riverrun_bench_no_op', 25 FROM unnest(%s::jsonb[]) args RETURNING *"""
COPY = f"COPY {SCHEMA}.river_job (args, kind, max_attempts) FROM STDIN"


def compare(engine: Engine, *, small: bool) -> list[Comparison]:
    """Insert one job and 1,000 jobs in an open transaction, and by 32 threads at once."""
    rounds = 2 if small else 7
    times = 50 if small else 500
    # Both sides begin with Python values, as an application does, and not with JSON.
    values = [{"number": n} for n in range(1_000)]
    args = [NoOp(n) for n in range(1_000)]
    # The tables are on the search path, as by default: naming another schema costs SQLAlchemy about
    # 30 µs per statement.
    url = engine.url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    near = create_engine(url, pool_size=40)
    with schema(engine), driver(engine) as raw, near.connect() as connection:
        client = Client(near, notify=Notify.off)

        def raw_one() -> float:
            with raw.transaction():
                return (
                    timed(lambda: raw.execute(ONE, (json.dumps(values[0]),)).fetchall(), times)
                    * 1e6
                )

        def ours_one() -> float:
            took_s = timed(lambda: client.insert(connection, args[0]), times)
            connection.rollback()
            return took_s * 1e6

        def raw_rows() -> float:
            with raw.transaction():
                return 1_000 / timed(
                    lambda: raw.execute(MANY, (list(map(json.dumps, values)),)).fetchall(), 3
                )

        def ours_rows() -> float:
            took_s = timed(lambda: client.insert_many(connection, args), 3)
            connection.rollback()
            return 1_000 / took_s

        def raw_copy() -> float:
            with raw.transaction():
                return 1_000 / timed(lambda: copy(raw, values), 3)

        def ours_copy() -> float:
            took_s = timed(lambda: client.insert_many_fast(connection, args), 3)
            connection.rollback()
            return 1_000 / took_s

        for warm in (raw_one, ours_one, raw_rows, ours_rows):
            warm()
        one = Comparison(
            question="insert of one job in an open transaction",
            unit="µs",
            samples=in_turns({"raw INSERT": raw_one, "riverrun": ours_one}, rounds),
            targets={"riverrun": 1.25},
            less=True,
        )
        rows = Comparison(
            question="insert of 1,000 jobs, rows back",
            unit="jobs/s",
            samples=in_turns({"raw unnest": raw_rows, "riverrun": ours_rows}, rounds),
            targets={"riverrun": 0.95},
        )
        none = Comparison(
            question="insert of 1,000 jobs, none back",
            unit="jobs/s",
            samples=in_turns({"raw COPY": raw_copy, "riverrun": ours_copy}, rounds),
            targets={"riverrun": 0.85},
        )
        by_notify = {
            f"riverrun, notify={notify.value}": lambda notify=notify: commits(  # type: ignore[misc]
                near, notify, 0.5 if small else 3.0
            )
            for notify in sorted(Notify, key=lambda notify: notify is not Notify.off)
        }
        together = Comparison(
            question="commits of 32 threads that insert one job each",
            unit="commits/s",
            samples=in_turns(by_notify, 1 if small else 5),
            targets={f"riverrun, notify={Notify.adaptive}": 0.97},
        )
        return [
            profiled(one, {"riverrun": ours_one}),
            profiled(rows, {"riverrun": ours_rows}),
            profiled(none, {"riverrun": ours_copy}),
            profiled(together, by_notify),
        ]


def timed(call: object, times: int) -> float:
    """Return the average seconds of one call, of `times` calls."""
    began = time.perf_counter()
    for _ in range(times):
        call()  # type: ignore[operator]
    return (time.perf_counter() - began) / times


def copy(raw: psycopg.Connection[object], values: list[dict[str, int]]) -> None:
    """Insert jobs by COPY."""
    with raw.cursor() as cursor, cursor.copy(COPY) as stream:
        for value in values:
            stream.write_row((json.dumps(value), "riverrun_bench_no_op", 25))


def commits(engine: Engine, notify: Notify, seconds: float) -> float:
    """Return the commits per second of 32 threads."""
    client = Client(engine, notify=notify)
    counts = [0] * 32
    stop = threading.Event()
    ready = threading.Barrier(33)

    def insert(number: int) -> None:
        connection: Connection
        with engine.connect() as connection:
            client.insert(connection, NoOp(number))
            connection.rollback()
            ready.wait()
            while not stop.is_set():
                client.insert(connection, NoOp(number))
                connection.commit()
                counts[number] += 1

    threads = [threading.Thread(target=insert, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began
    client.flush_announcements()
    return sum(counts) / took_s
