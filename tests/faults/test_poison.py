"""Jobs that harm their process: each is a failed attempt, and all other jobs go on."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, text

from process_workers import Crunch, crunch
from riverrun import (
    Client,
    Constant,
    InsertOpts,
    JobArgs,
    JobContext,
    QueueConfig,
    RawArgs,
    Workers,
)
from riverrun.errors import StopTimeout
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from waiting import DEADLINE_S, until

ONCE = InsertOpts(max_attempts=1)
BESIDE = RawArgs(kind="endure", encoded={})


class Unspeakable(Exception):
    """An error whose text cannot be read: str() of it raises SystemExit."""

    def __str__(self) -> str:
        raise SystemExit("asked")


class Nested(Exception):
    """An error with ten thousand causes."""


def nested() -> None:
    """Raise an error that has a chain of ten thousand causes."""
    error = Nested("first")
    for number in range(10_000):
        following = Nested(number)
        following.__cause__ = error
        error = following
    raise error


def stage_and_spoil(ctx: JobContext) -> None:
    """Stage metadata, then change it to something that JSON cannot hold."""
    value: list[object] = []
    ctx.set_metadata("value", value)
    value.append(object())


def fork_and_return() -> None:
    """Fork and return in both processes."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0


def fork_and_fail() -> None:
    """Fork; the child raises an error that would normally end its process."""
    child = os.fork()
    if not child:
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def leak_threads() -> None:
    """Leave threads behind that wait for ever."""
    for _ in range(50):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def ignore(ctx: JobContext) -> None:
    """Keep running for a while after the timeout."""
    until(lambda: ctx.cancelled, "the time is over")
    raise ValueError("deaf")


def stop(ctx: JobContext) -> None:
    """Stop the client that works this job."""
    ctx.client.stop()


def _raise(error: BaseException) -> None:
    raise error


POISONS: dict[str, tuple[Callable[[JobContext], object], str | None]] = {
    "an error that has no text": (lambda _: _raise(Unspeakable()), "its text cannot be had"),
    "an error of 100 MB": (lambda _: _raise(ValueError("x" * 100_000_000)), "characters cut"),
    "an error with 10,000 causes": (lambda _: nested(), "Nested: 9999"),
    "an error that is NUL and half a pair": (
        lambda _: _raise(ValueError("\0\ud800")),
        "ValueError",
    ),
    "the end of the process, politely": (lambda _: sys.exit(1), "SystemExit: 1"),
    "an interrupt": (lambda _: _raise(KeyboardInterrupt()), "KeyboardInterrupt"),
    "a coroutine's end": (lambda _: _raise(asyncio.CancelledError()), "CancelledError"),
    "a stack that is full": (lambda ctx: POISONS["a stack that is full"][0](ctx), "RecursionError"),
    "metadata that spoils": (stage_and_spoil, None),
    "an output of 34 MB": (lambda ctx: ctx.record_output("x" * 34_000_000), "InvalidOption"),
    "threads left behind": (lambda _: leak_threads(), None),
    "an attempt that is deaf": (ignore, "ValueError: deaf"),
    "a worker that stops its client": (stop, "stop() in a worker would wait"),
}
"""What each job does, and a part of the error that it leaves. None if it succeeds."""


@attrs.frozen
class Poison(JobArgs, kind="poison"):
    """Args of a job that does harm."""

    how: str


@attrs.frozen
class Block(JobArgs, kind="block"):
    """Args of a coroutine that blocks the event loop."""


@attrs.frozen
class Plain(JobArgs, kind="plain"):
    """Args of an ordinary job."""

    number: int


workers = Workers()
workers.register(executor="process", backoff=Constant(delay=0))(crunch)


@workers.register(timeout=0.2)
def poison(args: Poison, ctx: JobContext) -> None:
    """Do the harm that the args name."""
    POISONS[args.how][0](ctx)


@workers.register(timeout=0.2)
async def block(args: Block) -> None:
    """Block the event loop, and every other coroutine, for longer than the timeout."""
    time.sleep(0.5)
    await asyncio.sleep(60)


@workers.register(kind="endure")
async def endure(args: RawArgs) -> None:
    """Run beside other coroutines, and give way to them once."""
    await asyncio.sleep(0)


@workers.register
def plain(args: Plain, ctx: JobContext) -> None:
    """Record an effect."""
    with ctx.transaction() as session:
        session.execute(
            text(f"INSERT INTO {ctx.client.schema}.effect VALUES (:id)"), {"id": ctx.job.id}
        )


@pytest.fixture
def effects(engine: Engine, schema: str) -> Callable[[], list[int]]:
    """Return a function that reads which jobs had effects, in the order of ids."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {schema}.effect (job_id bigint)"))

    def read() -> list[int]:
        statement = text(f"SELECT job_id FROM {schema}.effect ORDER BY job_id")
        with engine.connect() as connection:
            return list(connection.execute(statement).scalars())

    return read


def test_poison_is_a_failed_attempt(
    engine: Engine, schema: str, effects: Callable[[], list[int]]
) -> None:
    """Each harmful job leaves its own error and nothing running; other jobs are worked once."""
    client = Client(
        engine,
        workers=workers,
        queues={"default": QueueConfig(max_workers=4, poll_interval=0.1)},
        schema=schema,
        processes=1,
        skip_unknown_job_check=True,
    )
    poisons: dict[str, tuple[object, str | None]] = {
        **{how: (Poison(how), recorded) for how, (_, recorded) in POISONS.items()},
        "an unknown kind": (RawArgs(kind="none", encoded={}), "not registered"),
        "args of another shape": (RawArgs(kind="plain", encoded={"a": 1}), "number"),
        "a coroutine that blocks": (Block(), "JobTimedOut"),
        "a process that exits": (Crunch("exit"), "exited 7"),
        "a process that is killed": (Crunch("die"), "signal 9"),
        "a process's unpicklable error": (Crunch("raise unpicklable"), "Unpicklable"),
    }
    with engine.begin() as connection:
        ids, others = {}, []
        for number, (name, (args, _)) in enumerate(poisons.items()):
            ids[name] = client.insert(connection, args, ONCE).job.id
            others.append(client.insert(connection, Plain(number), ONCE).job.id)
            others.append(
                client.insert(connection, RawArgs(kind="endure", encoded={}), ONCE).job.id
            )
    with client:
        until(lambda: _open(engine, schema) == 0, "every job has ended")
    jobs = {job_id: client.get(engine, job_id) for job_id in (*ids.values(), *others)}
    for name, (_, recorded) in poisons.items():
        job = jobs[ids[name]]
        errors = [error["error"] for error in job.errors]
        if recorded is None:
            assert (job.state, errors) == (JobState.completed, []), name
        else:
            assert job.state is JobState.discarded, name
            assert recorded in errors[0], name
            assert len(errors[0]) < 20_000, name
    assert {jobs[job_id].state for job_id in others} == {JobState.completed}
    assert effects() == sorted(job_id for job_id in others if jobs[job_id].kind == "plain")
    left = [each.name for each in threading.enumerate() if each.name.startswith("riverrun.slot")]
    assert not left


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("fork", [fork_and_return, fork_and_fail])
def test_a_child_that_comes_back(engine: Engine, schema: str, fork: Callable[[], object]) -> None:
    """A process that a worker forked ends when it returns or raises into riverrun's code."""
    forking = Workers()

    @forking.register(kind="fork")
    def work(args: RawArgs) -> None:
        fork()

    queues = {"default": QueueConfig()}
    client = Client(engine, workers=forking, queues=queues, schema=schema)
    job = client.insert(engine, RawArgs(kind="fork", encoded={}), ONCE).job
    with client:
        until(lambda: _open(engine, schema) == 0, "the job has ended")
    found = client.get(engine, job.id)
    assert (found.state, found.errors) == (JobState.completed, ())


def test_a_deaf_worker_keeps_nothing_but_its_slot(engine: Engine, schema: str) -> None:
    """If a worker ignores its cancel, the stop names it and the outcomes of others are kept."""
    began, may_end = threading.Event(), threading.Event()
    deaf = Workers()

    @deaf.register(kind="deaf", timeout=0)
    def work(args: RawArgs) -> None:
        began.set()
        may_end.wait(DEADLINE_S)

    deaf.register(kind="plain")(_nothing)
    client = Client(
        engine,
        workers=deaf,
        queues={"default": QueueConfig(max_workers=2)},
        schema=schema,
        hard_stop_timeout=0.2,
    )
    job = client.insert(engine, RawArgs(kind="deaf", encoded={})).job
    with engine.begin() as connection:
        others = [
            client.insert(connection, RawArgs(kind="plain", encoded={})).job.id for _ in "123"
        ]
    client.start()
    try:
        assert began.wait(DEADLINE_S)
        until(lambda: _open(engine, schema) == 1, "the others have ended")
        with pytest.raises(StopTimeout, match=f"{job.id} \\(deaf\\)"):
            client.stop(cancel=True)
    finally:
        may_end.set()
    assert {client.get(engine, each).state for each in others} == {JobState.completed}
    # Its client's heartbeat still names the job, so no other client may begin it while it runs.
    assert client.get(engine, job.id).state is JobState.running


def _nothing(args: RawArgs) -> None:
    """Do nothing."""


def _open(engine: Engine, schema: str) -> int:
    statement = text(f"SELECT count(*) FROM {schema}.river_job WHERE finalized_at IS NULL")
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())


APP = """
import os
from sqlalchemy import create_engine, text
from riverrun import Client, QueueConfig, RawArgs, Workers

workers = Workers()

@workers.register(kind="exit")
def end(args: RawArgs) -> None:
    os._exit(9)

@workers.register(kind="plain")
def plain(args: RawArgs) -> None:
    pass

client = Client(
    create_engine({url!r}), schema={schema!r}, workers=workers, queues={{"default": QueueConfig()}}
)
"""


@pytest.fixture
def shop(engine: Engine, schema: str, tmp_path: Path) -> Iterator[None]:
    """Two worker processes under a supervisor."""
    url = engine.url.render_as_string(hide_password=False)
    (tmp_path / "shop.py").write_text(APP.format(url=url, schema=schema))
    process = subprocess.Popen(
        [sys.executable, "-m", "riverrun", "work", "shop:client", "--processes", "2"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    yield
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()


@pytest.mark.usefixtures("shop")
def test_a_worker_that_ends_its_process(engine: Engine, schema: str) -> None:
    """A job that ends its whole process costs only its own attempt.

    The process is started again and the other jobs go on. The test does not wait for the rescue of
    a dead client's jobs or for the end of its leadership: it brings both forward.
    """
    client = Client(engine, schema=schema)
    jobs = [RawArgs(kind=kind, encoded={}) for kind in ("plain", "exit", "plain")]
    with engine.begin() as connection:
        poison = [client.insert(connection, job, ONCE).job.id for job in jobs][1]
    until(lambda: _died(engine, schema, poison), "the process ends")
    late = client.insert(engine, RawArgs(kind="plain", encoded={})).job.id
    until(lambda: client.get(engine, late).state == "completed", "others go on")
    until(lambda: _open(engine, schema) == 0, "the job is rescued")
    job: JobRow = client.get(engine, poison)
    assert (job.state, job.attempt) == (JobState.discarded, 1)
    assert "rescued" in job.errors[0]["error"]
    living = f"SELECT count(*) FROM {schema}.riverrun_client"
    with engine.connect() as connection:
        until(lambda: connection.execute(text(living)).scalar() == 2, "two processes work")


def _died(engine: Engine, schema: str, job_id: int) -> bool:
    """Return whether the job's process is dead; if so, expire its heartbeat and its lead."""
    owner = f"SELECT c.id, c.pid FROM {schema}.riverrun_client c JOIN {schema}.river_job j"
    with engine.begin() as connection:
        row: Any = connection.execute(
            text(f"{owner} ON c.id = j.attempted_by[1] WHERE j.id = {job_id}")
        ).first()
        if row is None:
            return False
        try:
            os.kill(row.pid, 0)
        except ProcessLookupError:
            of_it, ago = {"id": row.id}, "now() - interval '1 hour'"
            for table, column, key in (
                ("riverrun_client", "heartbeat_at", "id"),
                ("river_leader", "expires_at", "leader_id"),
            ):
                change = f"UPDATE {schema}.{table} SET {column} = {ago} WHERE {key} = :id"
                connection.execute(text(change), of_it)
            return True
    return False
