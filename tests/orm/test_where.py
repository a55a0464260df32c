"""Verbs that act on all jobs that meet criteria: cancel_where, retry_where and the others."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import (
    Engine,
    Integer,
    and_,
    cast,
    column,
    event,
    func,
    select,
    table,
    text,
    true,
    update,
)
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import ObjectDeletedError

from factories import T0, insert_job
from orm.shop import PLACES, Order, Place, SendReceipt, opened
from riverrun import JobRow, JobState
from riverrun.errors import InvalidOption, RiverrunError
from riverrun.jobs.states import FINAL_STATES
from riverrun.models import Job
from riverrun.verbs import (
    cancel,
    cancel_where,
    chosen,
    delete_where,
    get,
    list_jobs,
    reschedule_where,
    retry,
    retry_where,
)
from verbs.joins import JOINED, commit, listening, wait_until_blocked
from verbs.joins import opened as opened_where

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VERBS: dict[str, Callable[..., int]] = {
    "cancel": cancel_where,
    "retry": retry_where,
    "delete": delete_where,
    "reschedule": lambda *args, **options: reschedule_where(*args, delay=HOUR, **options),
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, engine: Engine, schema: str) -> Iterator[Place]:
    """A shop, once with each placement of its jobs."""
    with opened(request.param, engine, schema) as opened_place:
        yield opened_place


def _row(job: JobRow) -> JobRow:
    return attrs.evolve(job, id=0)


def _insert_each(engine: Engine, schema: str, **changes: Any) -> dict[JobState, int]:
    return {state: insert_job(engine, schema, state=state, **changes) for state in JobState}


@pytest.mark.parametrize("kind", ["session", "engine"])
@pytest.mark.parametrize(("one", "many"), [(cancel, cancel_where), (retry, retry_where)])
def test_does_what_the_verb_for_one_does(
    engine: Engine, schema: str, kind: str, one: Callable[..., Any], many: Callable[..., int]
) -> None:
    """In each state, a verb treats every job as the verb for a single job does."""
    metadata = {"cancel_attempted_at": "x", "kept": 1}
    changes: dict[str, Any] = {"attempt": 25, "scheduled_at": T0, "metadata_": metadata}
    alone = _insert_each(engine, schema, kind="alone", **changes)
    many_ids = _insert_each(engine, schema, kind="many", **changes)
    before = {state: get(engine, job_id, schema=schema) for state, job_id in many_ids.items()}
    expected = {}
    for state, job_id in alone.items():
        one(engine, job_id, schema=schema, now=NOW)
        row = get(engine, job_id, schema=schema)
        expected[state] = attrs.evolve(_row(row), kind="many", created_at=before[state].created_at)
    with opened_where(kind, engine) as where:
        count = many(where, Job.kind == "many", schema=schema, now=NOW)
        commit(where)
    found = {state: _row(get(engine, job_id, schema=schema)) for state, job_id in many_ids.items()}
    assert found == expected
    changed = [state for state in JobState if found[state] != _row(before[state])]
    assert count == len(changed)


def test_deletes_none_that_runs(engine: Engine, schema: str) -> None:
    """delete_where deletes jobs in every state but running."""
    _insert_each(engine, schema)
    assert delete_where(engine, true(), schema=schema) == len(JobState) - 1
    assert [job.state for job in list_jobs(engine, schema=schema).jobs] == [JobState.running]


@pytest.mark.parametrize(
    ("at", "states"),
    [
        (NOW + HOUR, ("scheduled", "pending", "retryable", "scheduled")),
        (NOW - HOUR, ("available", "pending", "available", "available")),
        (Job.scheduled_at + HOUR, ("scheduled", "pending", "retryable", "scheduled")),
    ],
)
def test_reschedules_what_waits(
    engine: Engine, schema: str, at: Any, states: tuple[str, ...]
) -> None:
    """A waiting job gets the new time and the state that fits it; other jobs do not change."""
    ids = _insert_each(engine, schema, scheduled_at=NOW)
    before = {state: get(engine, job_id, schema=schema) for state, job_id in ids.items()}
    count = reschedule_where(engine, true(), scheduled_at=at, schema=schema, now=NOW)
    after = {state: get(engine, job_id, schema=schema) for state, job_id in ids.items()}
    waiting = ("available", "pending", "retryable", "scheduled")
    expected = at if isinstance(at, datetime) else NOW + HOUR
    for state, new in zip(waiting, states, strict=True):
        job = after[JobState(state)]
        assert (job.state, job.scheduled_at) == (new, expected)
    rest = [state for state in JobState if state not in waiting]
    assert [after[state] for state in rest] == [before[state] for state in rest]
    assert count == 4
    delayed = reschedule_where(engine, Job.state == "pending", delay=60, schema=schema, now=NOW)
    assert delayed == 1
    pending = get(engine, ids[JobState.pending], schema=schema)
    assert pending.scheduled_at == NOW + timedelta(seconds=60)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", JOINED)
def test_is_the_callers_transaction(engine: Engine, schema: str, kind: str, verb: str) -> None:
    """The caller's rollback undoes what was done, and a dry run changes nothing."""
    ids = [insert_job(engine, schema, state="scheduled", scheduled_at=NOW) for _ in range(3)]
    before = list_jobs(engine, schema=schema)
    with opened_where(kind, engine) as where:
        criterion = Job.id.in_(ids[:2])
        assert VERBS[verb](where, criterion, dry_run=True, schema=schema) == 2
        assert list_jobs(where, schema=schema) == before
        assert VERBS[verb](where, criterion, schema=schema) == 2
        assert list_jobs(where, schema=schema) != before
        where.rollback()
        assert list_jobs(engine, schema=schema) == before


@pytest.mark.parametrize("verb", VERBS)
def test_an_engine_has_batches(
    engine: Engine, schema: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an Engine every job is changed once, in batches with a transaction each."""
    monkeypatch.setattr(chosen, "BATCH", 3)
    monkeypatch.setattr(chosen, "PAGE", 7)
    for number in range(23):
        insert_job(engine, schema, state="scheduled", scheduled_at=NOW, args={"n": number})
    running = insert_job(engine, schema, state="running")
    commits: list[object] = []

    def count(connection: object) -> None:
        commits.append(connection)

    event.listen(engine, "commit", count)
    try:
        expected = 24 if verb == "cancel" else 23
        assert VERBS[verb](engine, true(), schema=schema, dry_run=True) == expected
        before = len(commits)
        assert VERBS[verb](engine, true(), schema=schema) == expected
        assert len(commits) - before >= 8
    finally:
        event.remove(engine, "commit", count)
    assert get(engine, running, schema=schema).state is JobState.running


def test_notifies_the_clients_of_running_jobs(engine: Engine, schema: str) -> None:
    """At the commit, clients that run the affected jobs are notified, and no others."""
    running = [insert_job(engine, schema, state="running", queue="mail") for _ in range(2)]
    insert_job(engine, schema)
    with listening(engine, f"{schema!s}.river_control") as notified:
        with Session(engine) as session:
            assert cancel_where(session, true(), schema=schema) == 3
            assert notified() == []
            session.commit()
        payloads = notified()
    controls = [json.loads(payload) for payload in payloads]
    assert sorted(each["job_id"] for each in controls) == running
    assert {(each["action"], each["queue"]) for each in controls} == {("cancel", "mail")}


def test_joins_the_hosts_tables(place: Place) -> None:
    """Criteria may use the application's tables; a job counts once, however many rows join it."""
    args = Job.args_of(SendReceipt)
    with Session(place.engine) as session, session.begin():
        session.add_all([Order(id=n, status="void" if n > 2 else "new") for n in (1, 2, 3, 4)])
        session.flush()
        place.client.insert_many(session, [SendReceipt(n) for n in (1, 2, 3, 3, 4, 5)])
    criteria: dict[str, tuple[Any, ...]] = {
        "join": (args.order == Order.id, Order.status == "void"),
        "many rows": (Order.status == "void", args.order >= 3, args.order <= 4),
        "subquery": (args.order.in_([3, 4]), Job.id.in_(select(Job.id).where(args.order > 2))),
        "exists": (select(Order.id).where(args.order == Order.id, Order.id > 2).exists(),),
        "select": (
            args.order.in_(select(Order.id).where(Order.status == "void")),
            Job.state == JobState.available,
        ),
        "states": (Job.state.in_([JobState.available]), Job.kind_is(SendReceipt), args.order > 2),
        "a cast": (Job.state == cast("available", Job.state.type), args.order > 2, args.order < 5),
        "its own class": (place.job.args_of(SendReceipt).order.in_([3, 4]),),
    }
    for name, each in criteria.items():
        expected = 4 if name == "states" else 3
        assert place.client.cancel_where(place.engine, *each, dry_run=True) == expected, name
    assert place.client.cancel_where(place.engine, *criteria["join"]) == 3
    assert place.client.retry_where(place.engine, *criteria["join"]) == 3
    assert place.client.reschedule_where(place.engine, *criteria["join"], delay=60) == 3
    with Session(place.engine) as session, session.begin():
        assert place.client.delete_where(session, *criteria["join"]) == 3
    with Session(place.engine) as session:
        assert session.scalar(select(func.count()).select_from(place.job)) == 3


@pytest.mark.parametrize("kind", ["session", "engine"])
def test_retries_a_unique_key_once(
    engine: Engine, schema: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of jobs with the same unique key the newest is retried, unless another job holds the key."""
    monkeypatch.setattr(chosen, "BATCH", 100)
    states = frozenset(JobState) - FINAL_STATES
    key = {"unique_states": states, "unique_key": b"a" * 32}
    old = insert_job(engine, schema, state="discarded", **key)
    new = insert_job(engine, schema, state="cancelled", **key)
    taken = {**key, "unique_key": b"b" * 32}
    insert_job(engine, schema, state="discarded", **taken)
    holder = insert_job(engine, schema, state="running", **taken)
    free = [insert_job(engine, schema, state="discarded") for _ in range(2)]
    with opened_where(kind, engine) as where:
        assert retry_where(where, true(), schema=schema, dry_run=True) == 3
        assert retry_where(where, true(), schema=schema) == 3
        commit(where)
    jobs = {job.id: job.state for job in list_jobs(engine, schema=schema).jobs}
    assert {job_id for job_id, state in jobs.items() if state is JobState.available} == {new, *free}
    assert (jobs[old], jobs[holder]) == (JobState.discarded, JobState.running)


def test_loaded_jobs_expire(place: Place) -> None:
    """Loaded jobs are expired, except for attributes with pending changes."""
    with Session(place.engine) as session:
        first, second = (
            session.get_one(place.job, place.client.insert(session, SendReceipt(n)).job.id)
            for n in (1, 2)
        )
        second.tags = ["mine"]
        assert place.client.cancel_where(session, Job.kind_is(SendReceipt)) == 2
        assert first.state is JobState.cancelled
        assert second.tags == ["mine"]
        session.rollback()
        assert place.client.cancel_where(session, Job.kind_is(SendReceipt)) == 0

    with Session(place.engine) as session:
        job = session.get_one(place.job, place.client.insert(session, SendReceipt(1)).job.id)
        assert place.client.delete_where(session, Job.kind_is(SendReceipt)) == 1
        with pytest.raises(ObjectDeletedError):
            _ = job.state


def test_flushes_nothing(place: Place) -> None:
    """Pending changes of the caller's session are not flushed."""
    with Session(place.engine) as session:
        session.add(Order(id=1))
        place.client.cancel_where(session, Job.args_of(SendReceipt).order == Order.id)
        assert session.new


@pytest.mark.parametrize("verb", ["cancel_where", "retry_where", "delete_where"])
def test_passes_for_a_write(place: Place, verb: str) -> None:
    """A listener to ORM statements, such as zope.sqlalchemy's, sees that jobs are changed."""
    job_id = place.client.insert(place.engine, SendReceipt(1), delay=60).job.id
    seen: list[bool] = []
    with Session(place.engine) as session:
        event.listen(
            session,
            "do_orm_execute",
            lambda state: seen.append(state.is_orm_statement and not state.is_select),
        )
        assert getattr(place.client, verb)(session, Job.id == job_id) == 1
    assert True in seen


def test_waits_for_a_locked_row(engine: Engine, schema: str) -> None:
    """A verb waits for a job that another transaction has locked, then checks it again."""
    ids = [insert_job(engine, schema, kind="old_kind") for _ in range(2)]
    options = {"schema_translate_map": {None: schema}}
    with ThreadPoolExecutor(1) as pool, engine.connect() as host, engine.connect() as other:
        changed = update(Job).where(Job.id == ids[0]).values(kind="new_kind")
        host.execute(changed, execution_options=options)
        pid = other.execute(text("SELECT pg_backend_pid()")).scalar_one()
        done = pool.submit(cancel_where, other, Job.kind == "old_kind", schema=schema)
        wait_until_blocked(engine, pid)
        host.commit()
        assert done.result(30) == 1
        other.commit()
    states = [get(engine, job_id, schema=schema).state for job_id in ids]
    assert states == [JobState.available, JobState.cancelled]


def test_from_async_code(place: Place) -> None:
    """The async verbs do the same in an AsyncSession, and in batches with an AsyncEngine."""

    async def main() -> None:
        engine = create_async_engine(place.engine.url)
        client, criterion = place.client, Job.kind_is(SendReceipt)
        place.client.insert_many(place.engine, [SendReceipt(n) for n in range(3)])
        async with AsyncSession(engine) as session:
            assert await client.cancel_where_async(session, criterion) == 3
            await session.rollback()
            assert await client.reschedule_where_async(session, criterion, delay=60) == 3
            await session.commit()
        assert await client.cancel_where_async(engine, criterion, dry_run=True) == 3
        assert await client.cancel_where_async(engine, criterion) == 3
        assert await client.retry_where_async(engine, criterion) == 3
        assert await client.delete_where_async(engine, criterion) == 3
        with pytest.raises(RiverrunError, match="without await"):
            await client.delete_where_async(place.engine, criterion)  # type: ignore[arg-type]
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (Order.id == 5, "name Job"),
        (Order.receipts.any(), "name Job outside"),
        (
            and_(Job.id > 0, select(Order.id).where(Order.id == Job.id).lateral().c.id == 5),
            r"exists\(\)",
        ),
        (select(Order.id).where(Order.id == 5).exists(), "name Job outside"),
        (True, "for all jobs"),
        ("id = 5", "SQLAlchemy criteria"),
        (None, "SQLAlchemy criteria"),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_criteria_that_choose_no_jobs(
    engine: Engine, schema: str, verb: str, criterion: Any, message: str
) -> None:
    """Criteria that are missing, that are not SQL, or that do not concern jobs are refused."""
    job_id = insert_job(engine, schema)
    with pytest.raises(InvalidOption, match=message):
        VERBS[verb](engine, criterion, schema=schema)
    with pytest.raises(InvalidOption, match="true"):
        VERBS[verb](engine, schema=schema)
    assert get(engine, job_id, schema=schema).state is JobState.available


@pytest.mark.parametrize("verb", VERBS)
def test_errors_of_the_criteria_are_the_databases(engine: Engine, schema: str, verb: str) -> None:
    """What is missing of the application's own is not taken for a missing table of River's."""
    for criterion in (
        (Job.id == table("no_such_table", column("id")).c.id),
        (Job.id == func.no_such_function(type_=Integer)),
        (Job.id == "five"),
    ):
        with pytest.raises(ProgrammingError):
            VERBS[verb](engine, criterion, schema=schema)


def test_reschedule_needs_one_time(engine: Engine, schema: str) -> None:
    """Both a time and a delay, neither, or a time without a zone, are refused."""
    options: list[dict[str, Any]] = [
        {},
        {"delay": 1, "scheduled_at": NOW},
        {"delay": -1},
        {"scheduled_at": datetime(2026, 5, 1)},
    ]
    for each in options:
        with pytest.raises(InvalidOption):
            reschedule_where(engine, true(), schema=schema, **each)
