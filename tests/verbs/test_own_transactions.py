"""Riverrun's own transactions bypass SQLAlchemy, with the same results and errors."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from operator import attrgetter
from typing import Any

import attrs
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from factories import insert_job
from riverrun.db.engines import engine_at
from riverrun.db.statement_timeout import SINGLE
from riverrun.db.transactions import joined
from riverrun.errors import SchemaMissing
from riverrun.jobs.states import JobState
from riverrun.outcome import AttemptError, Outcome
from riverrun.verbs import claim, get
from riverrun.verbs.claim import queues_waiting
from riverrun.verbs.complete import record
from riverrun.verbs.give_back import give_back
from riverrun.verbs.notify import notify_inserted
from waiting import DEADLINE_S


@pytest.fixture
def own(engine: Engine) -> Iterator[Engine]:
    """An engine with nothing in its pool and no listeners."""
    own = create_engine(engine.url)
    yield own
    own.dispose()


@pytest.fixture(params=["followed", "not followed", "single"])
def either(own: Engine, request: pytest.FixtureRequest) -> Engine:
    """An engine with statement listeners, one without, and one like a client's own."""
    if request.param == "single":
        return own.execution_options(**{SINGLE: True})
    if request.param == "followed":
        follow(own)
    return own


def follow(engine: Engine) -> list[str]:
    """Listen to the statements of `engine`, and return the list that collects them."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    return statements


def walk(tx: Engine, schema: str) -> list[Any]:
    """Call each verb that a worker calls often; return the results, without ids and times."""
    waiting = queues_waiting(tx, ["default", "empty"], schema=schema)
    jobs = claim(tx, client_id="me", limit=3, schema=schema)
    first, second, third = jobs
    error = AttemptError(attempt=1, at=first.scheduled_at, error="née", trace="")
    with joined(tx, schema) as transaction:
        states = record(
            transaction,
            [
                Outcome(job_id=first.id, attempt=1, state=JobState.completed),
                Outcome(job_id=second.id, attempt=1, state=JobState.retryable, error=error),
            ],
            merge_anyway=True,
        )
    back = give_back(tx, [third], client_id="me", schema=schema)
    notify_inserted(tx, ["default"], schema=schema)
    changing = {"id", "created_at", "scheduled_at", "attempted_at"}
    return [
        waiting,
        [attrs.asdict(job, filter=lambda field, _: field.name not in changing) for job in jobs],
        [states[first.id], states[second.id], back[third.id]],
    ]


def test_walks_alike(engine: Engine, own: Engine, schema: str) -> None:
    """Results are the same on engines with and without statement listeners."""
    statements = follow(own)
    results = []
    for where in (own, engine, engine.execution_options(**{SINGLE: True})):
        for number in range(3):
            insert_job(engine, schema, metadata_={"n": "é"}, tags=["a"], priority=1 + number)
        results.append(walk(where, schema))
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {schema}.river_job"))
    assert results[0] == results[1] == results[2]
    assert results[1][2] == [JobState.completed, JobState.retryable, JobState.available]
    assert [name for name in ("LATERAL", "claimable", "pg_notify") if name in str(statements)] == [
        "LATERAL",
        "claimable",
        "pg_notify",
    ]


@pytest.mark.parametrize(
    "verb",
    [
        lambda where: claim(where, client_id="me", schema="nowhere"),
        lambda where: queues_waiting(where, ["default"], schema="nowhere"),
    ],
)
def test_names_missing_tables(either: Engine, verb: Callable[[Engine], object]) -> None:
    """The error for missing tables is the same, whether SQLAlchemy or the driver executes."""
    with pytest.raises(SchemaMissing, match="nowhere"):
        verb(either)
    assert either.pool.checkedout() == 0


def test_goes_where_the_engine_says(engine: Engine, either: Engine, schema: str) -> None:
    """Without `schema`, the engine's own schema_translate_map applies."""
    insert_job(engine, schema)
    mapped = either.execution_options(schema_translate_map={None: schema})
    assert queues_waiting(mapped, ["default"]) == {"default"}
    assert len(claim(mapped, client_id="me")) == 1


@pytest.mark.parametrize(
    "due",
    ["0001-01-01 BC", "1999-12-31 23:59:59.999999+00", "2000-01-01+00", "2026-07-01 12:00:00.5+09"],
)
def test_reads_the_times_that_are_kept(
    engine: Engine, either: Engine, schema: str, due: str
) -> None:
    """A claim's times equal the row's to the microsecond, in UTC, on either way."""
    job_id = insert_job(engine, schema)
    with engine.begin() as connection:
        params = {"due": due}
        connection.execute(text(f"UPDATE {schema}.river_job SET scheduled_at = :due"), params)
    [job] = claim(either, client_id="me", schema=schema)
    kept = get(engine, job_id, schema=schema)
    times = attrgetter("created_at", "scheduled_at", "attempted_at")
    assert times(job) == times(kept)
    assert {each.tzinfo for each in times(job)} == {UTC}


def test_leaves_the_pool_s_connections_as_they_were(either: Engine, schema: str) -> None:
    """The next user of a connection begins a transaction on it, even after an error."""
    queues_waiting(either, ["default"], schema=schema)
    with contextlib.suppress(DBAPIError):
        notify_inserted(either, ["q" * 9_000])
    pooled = either.raw_connection()
    assert (either.pool.checkedout(), pooled.driver_connection.autocommit) == (1, False)
    pooled.close()


def test_leaves_no_connection_amid_a_statement(own: Engine, schema: str) -> None:
    """An exception thrown into a thread that waits for the database invalidates the connection."""

    class Thrown(BaseException):
        pass

    def throw(*_: object) -> None:
        raise Thrown

    before = signal.signal(signal.SIGALRM, throw)
    locked = own.connect()
    try:
        locked.execute(text(f"LOCK TABLE {schema}.river_job"))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Thrown):
            queues_waiting(own.execution_options(**{SINGLE: True}), ["default"], schema=schema)
    finally:
        signal.signal(signal.SIGALRM, before)
        locked.close()
    assert own.pool.checkedout() == 0
    assert queues_waiting(own, ["default"], schema=schema) == frozenset()


def test_wraps_errors(either: Engine) -> None:
    """An error of the database is SQLAlchemy's error, with the driver's as its orig."""
    with pytest.raises(DBAPIError, match="too long") as raised:
        notify_inserted(either, ["q" * 9_000])
    assert getattr(raised.value.orig, "sqlstate", None) == "22023"
    assert not raised.value.connection_invalidated


@pytest.mark.parametrize("single", [True, False])
def test_wraps_the_error_of_a_connection_that_cannot_be_made(engine: Engine, single: bool) -> None:
    """An unreachable database raises SQLAlchemy's error, as for any other statement."""
    there = create_engine(engine.url.set(database="nowhere"))
    nowhere = there.execution_options(**{SINGLE: single})
    with pytest.raises(OperationalError, match="nowhere") as raised:
        queues_waiting(nowhere, ["default"])
    assert isinstance(raised.value.orig, psycopg.OperationalError)


@pytest.mark.parametrize("kind", [Engine, Session])
def test_a_wait_for_a_connection_delays_no_other(
    engine: Engine, own: Engine, schema: str, kind: type
) -> None:
    """While one transaction waits for its connection, others of other threads have theirs."""
    asked, goes_on = threading.Event(), threading.Event()

    @event.listens_for(own, "do_connect")
    def connect(*_: object) -> None:
        asked.set()
        goes_on.wait()

    def look(on: Engine) -> int:
        where = on if kind is Engine else Session(on)
        with contextlib.ExitStack() as stack:
            if isinstance(where, Session):
                stack.enter_context(where)
            return len(claim(where, client_id="me", schema=schema))

    with ThreadPoolExecutor(2) as threads:
        try:
            waiting = threads.submit(look, own)
            assert asked.wait(DEADLINE_S)
            assert threads.submit(look, engine).result(DEADLINE_S) == 0
            assert not waiting.done()
        finally:
            goes_on.set()
        assert waiting.result(DEADLINE_S) == 0


def test_an_engine_of_ours_uses_a_connection_that_was_just_used(engine: Engine) -> None:
    """The connection that was used last is used next, so that its server process stays warm."""
    ours = engine_at(engine.url.render_as_string(hide_password=False))
    with contextlib.ExitStack() as stack:
        used = [stack.enter_context(ours.connect()) for _ in range(3)]
        pids = [each.scalar(text("SELECT pg_backend_pid()")) for each in used]
        for each in (used[2], used[0], used[1]):
            each.close()
    with ours.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == pids[1]
    ours.dispose()


def test_meets_a_lost_connection_once(engine: Engine, either: Engine, schema: str) -> None:
    """After the server closes its connections, one claim fails and the next one works."""
    with contextlib.ExitStack() as stack:
        open_now = [stack.enter_context(either.connect()) for _ in range(3)]
        pids = [each.scalar(text("SELECT pg_backend_pid()")) for each in open_now]
    insert_job(engine, schema)
    with engine.begin() as connection:
        for pid in pids:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    with pytest.raises(OperationalError, match="terminating connection") as raised:
        claim(either, client_id="me", schema=schema)
    assert raised.value.connection_invalidated
    assert len(claim(either, client_id="me", schema=schema)) == 1
