"""Kinds of jobs that harm whatever runs beside them, for the long run of `test_poison_run`."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from riverrun import InsertOpts, JobArgs, JobContext, QueueConfig, RawArgs, UniqueKey
from riverrun.errors import RiverrunError
from waiting import until

SQLSTATES = [
    "0A000",
    "22P05",
    "22021",
    "23503",
    "23514",
    "40001",
    "40P01",
    "42501",
    "53200",
    "54000",
    "54001",
    "55P03",
    "57014",
    "MY001",
    "P0001",
    "XX000",
    "XX001",
]
"""The SQLSTATEs with which a trigger refuses one row.

Each was once, or could be, mistaken for a fault of the whole batch.
"""

HOLD_S = 3.0
"""Seconds for which a lock, a pool or the event loop is held."""


@attrs.frozen
class Evil(JobArgs, kind="evil"):
    """Args of a job that does harm in a thread."""

    how: str


@attrs.frozen
class EvilCoroutine(JobArgs, kind="evil_coroutine"):
    """Args of a job that does harm on the event loop."""

    how: str


@attrs.frozen
class EvilProcess(JobArgs, kind="evil_process"):
    """Args of a job that does harm in a process of its own."""

    how: str


def other_session(ctx: JobContext, act: Callable[[Session], object]) -> None:
    """Run `act` in a transaction of the application that stays open after the worker returned."""
    ready = threading.Event()

    def hold() -> None:
        with Session(ctx.client.engine) as session, session.begin():
            act(session)
            ready.set()
            threading.Event().wait(HOLD_S)

    threading.Thread(target=hold).start()
    assert ready.wait(30)


def lock_row(ctx: JobContext) -> None:
    """Lock this job's row in a transaction that stays open."""
    own = text(f"SELECT id FROM {ctx.client.schema}.river_job WHERE id = :id FOR UPDATE")
    other_session(ctx, lambda session: session.execute(own, {"id": ctx.job.id}))


def lock_table(ctx: JobContext) -> None:
    """Lock the job table against all writes for a second."""
    with Session(ctx.client.engine) as session, session.begin():
        session.execute(text(f"LOCK TABLE {ctx.client.schema}.river_job IN EXCLUSIVE MODE"))
        session.execute(text("SELECT pg_sleep(1)"))


def cancel_and_go_on(ctx: JobContext) -> None:
    """Cancel this job in a transaction that stays open."""
    other_session(ctx, lambda session: ctx.client.cancel(session, ctx.job.id))


def update_and_go_on(ctx: JobContext) -> None:
    """Merge metadata into this job in a transaction that stays open."""
    other_session(ctx, lambda session: ctx.client.update(session, ctx.job.id, metadata={"a": 1}))


def take_the_pool(ctx: JobContext) -> None:
    """Hold every connection of the engine's pool."""
    connections = []
    with suppress(Exception):
        while True:
            connections.append(ctx.client.engine.connect())
            if len(connections) >= 5:
                break
    threading.Event().wait(HOLD_S)
    for connection in connections:
        connection.close()


def forge_notifications(ctx: JobContext) -> None:
    """Send false notifications, as any role that can connect may."""
    say = text("SELECT pg_notify(:channel, :payload)")
    channel = f"{ctx.client.schema}.river_control"
    forged = ['{"action": "pause", "queue": "*"}', '{"action": "request_resign"}', "{", "x" * 7_900]
    forged += [f'{{"action": "cancel", "job_id": {ctx.job.id + n}}}' for n in range(-200, 200)]
    forged += [f'{{"action": "pause", "queue": "invented_{n}"}}' for n in range(200)]
    with ctx.client.engine.begin() as connection:
        for payload in forged:
            connection.execute(say, {"channel": channel, "payload": payload})


def cut_connections(ctx: JobContext) -> None:
    """Terminate every other connection to this database."""
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name = :name"
    )
    with ctx.client.engine.begin() as connection:
        connection.execute(text(others), {"name": "poison_run"})


def change_row(values: str) -> Callable[[JobContext], None]:
    """Return a function that changes a running job's row by hand, at the job's first attempt."""

    def change(ctx: JobContext) -> None:
        if "changed" in ctx.job.metadata:
            return
        mark = """metadata = metadata || '{"changed": true}'"""
        statement = f"UPDATE {ctx.client.schema}.river_job SET {values}, {mark} WHERE id = :id"
        with ctx.client.engine.begin() as connection:
            connection.exec_driver_sql(statement.replace(":id", str(ctx.job.id)))

    return change


def delete_row(ctx: JobContext) -> None:
    """Delete this job while it runs."""
    statement = f"DELETE FROM {ctx.client.schema}.river_job WHERE id = :id"
    with ctx.client.engine.begin() as connection:
        connection.execute(text(statement), {"id": ctx.job.id})


def no_new_threads(ctx: JobContext) -> None:
    """Make the process refuse new threads for a second, as a limit on its number would."""
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = refuse  # type: ignore[method-assign]
    try:
        threading.Event().wait(1)
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def ignore_cancellation(ctx: JobContext) -> None:
    """Keep running for a while after the timeout."""
    until(lambda: ctx.cancelled, "the time is over")
    threading.Event().wait(1)


def leave_the_pool_broken(ctx: JobContext) -> None:
    """Return a connection with changed settings, within a failed transaction, to the pool."""
    connection = ctx.client.engine.raw_connection()
    connection.cursor().execute("SET statement_timeout = 1")
    with suppress(Exception):
        connection.cursor().execute("SELECT 1 / 0")
    connection.close()


def insert_duplicates(ctx: JobContext) -> None:
    """Insert the same unique job a hundred times, in a transaction that stays open."""
    opts = InsertOpts(queue="one", unique=UniqueKey("evil"))
    beside = RawArgs(kind="ordinary", encoded={"number": -1})

    def insert(session: Session) -> None:
        for _ in range(100):
            ctx.client.insert(session, beside, opts)

    other_session(ctx, insert)


def remove_own_queue(ctx: JobContext) -> None:
    """Remove this job's queue from the client."""
    with suppress(RiverrunError):
        ctx.client.queues.remove(ctx.job.queue)


class Unspeakable(Exception):
    """An error whose text cannot be read: str() of it raises SystemExit."""

    def __str__(self) -> str:
        raise SystemExit("asked")


def _raise(error: BaseException) -> None:
    raise error


def _recurse(ctx: JobContext) -> None:
    _recurse(ctx)


THREADS: dict[str, Callable[[JobContext], Any]] = {
    **{f"refused by {state}": lambda ctx: ctx.set_metadata("spoilt", 1) for state in SQLSTATES},
    "an output of 30 MB": lambda ctx: ctx.record_output("x" * 30_000_000),
    "metadata of 256 MB": lambda ctx: ctx.set_metadata("dump", "x" * 256 * 2**20),
    "an error of 100 MB": lambda _: _raise(ValueError("x" * 100_000_000)),
    "an error without a text": lambda _: _raise(Unspeakable()),
    "NUL and half a pair": lambda _: _raise(ValueError("\0\ud800")),
    "a locked row": lock_row,
    "a locked table": lock_table,
    "a cancel that is not committed": cancel_and_go_on,
    "an update that is not committed": update_and_go_on,
    "duplicates that are not committed": insert_duplicates,
    "the whole pool": take_the_pool,
    "a connection given back broken": leave_the_pool_broken,
    "forged notifications": forge_notifications,
    "cut connections": cut_connections,
    "another attempt's number": change_row("attempt = attempt + 1"),
    "another client's name": change_row("attempted_by = '{nobody}'"),
    "a row that is gone": delete_row,
    "no new threads": no_new_threads,
    "a deaf attempt": ignore_cancellation,
    "its own queue": remove_own_queue,
    "the process's end": lambda _: sys.exit(1),
    "an interrupt": lambda _: _raise(KeyboardInterrupt()),
    "a generator's end": lambda _: _raise(GeneratorExit()),
    "a coroutine's end": lambda _: _raise(asyncio.CancelledError()),
    "no memory": lambda _: _raise(MemoryError()),
    "a full stack": _recurse,
}


async def exit_in_a_task() -> None:
    """Raise SystemExit in a separate task, as some libraries do."""

    async def end() -> None:
        sys.exit(3)

    await asyncio.gather(end())


async def block_the_loop() -> None:
    """Block the event loop and with it every other coroutine."""
    threading.Event().wait(1)


async def stop_the_loop() -> None:
    """Stop the event loop."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(1)


async def cancel_all_tasks() -> None:
    """Cancel every task of the event loop."""
    for task in asyncio.all_tasks():
        task.cancel()


COROUTINES: dict[str, Callable[[], Any]] = {
    "an exit in a task": exit_in_a_task,
    "a blocked loop": block_the_loop,
    "a stopped loop": stop_the_loop,
    "every task cancelled": cancel_all_tasks,
}

PROCESSES: dict[str, Callable[[], Any]] = {
    "a process that exits": lambda: os._exit(7),
    "a process that is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "an error that cannot be pickled": lambda: _raise(ValueError(lambda: None)),
}

RAW: dict[str, RawArgs] = {
    "an unknown kind": RawArgs(kind="unknown", encoded={}),
    "args that do not decode": RawArgs(kind="ordinary", encoded={"number": "x"}),
}


def all_evils() -> dict[str, object]:
    """Return the args of one job of each kind of harm, by name."""
    return {
        **{how: Evil(how) for how in THREADS},
        **{how: EvilCoroutine(how) for how in COROUTINES},
        **{how: EvilProcess(how) for how in PROCESSES},
        **RAW,
    }


def refuse(engine: Engine, schema: str) -> None:
    """Create a trigger that refuses outcomes of "refused by ..." jobs while they have metadata."""
    with engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE EXCEPTION 'refused' USING ERRCODE = substr(NEW.args->>'how', 12); END $$"
            )
        )
        connection.execute(
            text(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.river_job FOR EACH ROW"
                " WHEN (NEW.kind = 'evil' AND NEW.metadata ? 'spoilt')"
                f" EXECUTE FUNCTION {schema}.refuse()"
            )
        )


QUEUES = {name: QueueConfig(max_workers=20, poll_interval=1.0) for name in ("one", "two", "three")}
