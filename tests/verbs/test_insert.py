"""Insert, in every kind of transaction."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    UpdateBase,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from factories import insert_job
from riverrun.errors import InvalidOption, SchemaMissing
from riverrun.jobs.args import JobArgs, RawArgs
from riverrun.jobs.options import InsertOpts, UniqueMark
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.policies.uniqueness import DEFAULT_STATES, REQUIRED_STATES, UniqueOpts
from riverrun.verbs import claim, complete, get, insert, insert_many, insert_many_fast
from schemas import search_path_url
from verbs.joins import JOINED, KINDS, commit, opened, wait_until_blocked
from waiting import DEADLINE_S


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    """Args without options of their own."""

    name: str = "Ada"


@attrs.frozen
class Bill(
    JobArgs,
    kind="bill",
    insert_opts=InsertOpts(queue="billing", priority=3, max_attempts=7, tags=["money"]),
):
    """Args with options of their own."""

    number: int = 1


class HostBase(DeclarativeBase):
    """The application's models."""


class Customer(HostBase):
    """An application's model. It cannot be flushed without a name."""

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("customer.id"))


@pytest.fixture
def customers(engine: Engine) -> Iterator[None]:
    """The application's tables."""
    HostBase.metadata.create_all(engine)
    yield
    HostBase.metadata.drop_all(engine)


def rows(engine: Engine, schema: str) -> list[tuple[int, str]]:
    """Return id and kind of every committed job."""
    with engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: schema})
        return [tuple(row) for row in connection.execute(select(Job.id, Job.kind).order_by(Job.id))]


@pytest.mark.parametrize("kind", KINDS)
def test_is_there_after_commit(engine: Engine, schema: str, kind: str) -> None:
    """A job inserted in the caller's transaction is visible after its commit."""
    with opened(kind, engine) as where:
        result = insert(where, Greet("Grace"), schema=schema)
        assert rows(engine, schema) == ([(result.job.id, "greet")] if kind == "engine" else [])
        commit(where)
    assert rows(engine, schema) == [(result.job.id, "greet")]
    assert not result.skipped_as_duplicate
    assert get(engine, result.job.id, schema=schema) == result.job


@pytest.mark.parametrize("kind", JOINED)
def test_never_was_after_rollback(engine: Engine, schema: str, kind: str) -> None:
    """A job whose transaction rolls back is gone, and the session can be used again."""
    with opened(kind, engine) as where:
        insert(where, Greet(), schema=schema)
        where.rollback()
        assert rows(engine, schema) == []
        kept = insert(where, Greet(), schema=schema)
        commit(where)
    assert [job_id for job_id, _ in rows(engine, schema)] == [kept.job.id]


@pytest.mark.parametrize("kind", JOINED)
def test_savepoint_takes_back_only_its_own(engine: Engine, schema: str, kind: str) -> None:
    """Rolling back to a savepoint undoes the inserts after it, and no others."""
    with opened(kind, engine) as where:
        before = insert(where, Greet(), schema=schema)
        savepoint = where.begin_nested()
        insert(where, Greet(), schema=schema)
        insert_many_fast(where, [Greet()], schema=schema)
        savepoint.rollback()
        commit(where)
    assert [job_id for job_id, _ in rows(engine, schema)] == [before.job.id]


@pytest.mark.parametrize("verb", ["insert", "insert_many", "insert_many_fast", "get", "claim"])
@pytest.mark.parametrize("kind", ["session", "scoped_session"])
def test_flushes_nothing_of_the_host(
    engine: Engine, schema: str, customers: None, kind: str, verb: str
) -> None:
    """An incomplete object of the application's stays pending: no verb flushes it."""
    job_id = insert_job(engine, schema)
    with opened(kind, engine) as where:
        half_built = Customer()
        where.add(half_built)
        match verb:
            case "insert":
                insert(where, Greet(), schema=schema)
            case "insert_many":
                insert_many(where, [Greet()], schema=schema)
            case "insert_many_fast":
                insert_many_fast(where, [Greet()], schema=schema)
            case "get":
                get(where, job_id, schema=schema)
            case _:
                [job] = claim(where, client_id="me", schema=schema)
                complete(where, job, schema=schema)
        assert inspect(half_built).pending
        assert half_built in where.new


def test_leaves_the_session_as_it_was(engine: Engine, schema: str, customers: None) -> None:
    """Nothing is committed, closed, expired or added to the caller's identity map."""
    events: list[str] = []
    with Session(engine) as session:
        customer = Customer(name="Ada")
        session.add(customer)
        session.flush()
        customer.name = "Grace"
        for name in ("after_commit", "after_rollback", "after_flush"):
            event.listen(session, name, lambda *args, name=name: events.append(name))
        known = set(session.identity_map)
        insert(session, Greet(), schema=schema)
        insert_many(session, [Greet(), Greet()], schema=schema)
        [job] = claim(session, client_id="me", schema=schema)
        complete(session, job, schema=schema)
        assert set(session.identity_map) == known
        assert set(session.dirty) == {customer}
        assert session.in_transaction()
        assert events == []
        session.rollback()
    assert rows(engine, schema) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [10, 20_000])
def test_inserts_many_in_order(engine: Engine, schema: str, kind: str, count: int) -> None:
    """The results of a batch of any size are in its order, with ascending ids."""
    with opened(kind, engine) as where:
        results = insert_many(where, (Greet(str(n)) for n in range(count)), schema=schema)
        commit(where)
    assert [result.job.args["name"] for result in results] == [str(n) for n in range(count)]
    ids = [result.job.id for result in results]
    assert ids == sorted(ids)
    assert [job_id for job_id, _ in rows(engine, schema)] == ids


@pytest.mark.parametrize("kind", KINDS)
def test_inserts_many_fast(engine: Engine, schema: str, kind: str) -> None:
    """The fast insert writes the same columns as insert_many, at the caller's commit."""
    later = datetime(2030, 1, 1, tzinfo=UTC)
    opts = InsertOpts(
        queue="slow",
        priority=2,
        max_attempts=3,
        scheduled_at=later,
        tags=["one"],
        metadata={"a": 1},
    )
    jobs = [Greet('tab\t, quote ", back\\slash'), (Greet("é日本"), opts), Bill(2)]
    with opened(kind, engine) as where:
        assert insert_many_fast(where, jobs, schema=schema) == 3
        assert len(rows(engine, schema)) == (3 if kind == "engine" else 0)
        commit(where)
    fast = [get(engine, job_id, schema=schema) for job_id, _ in rows(engine, schema)]
    plain = [result.job for result in insert_many(engine, jobs, schema=schema)]

    def comparable(jobs: list[JobRow]) -> list[dict[str, object]]:
        skipped = {"id", "created_at"}
        comparable = []
        for job in sorted(jobs, key=lambda job: str(job.args)):
            values = {k: v for k, v in attrs.asdict(job).items() if k not in skipped}
            if job.scheduled_at != later:
                assert values.pop("scheduled_at") == job.created_at
            comparable.append(values)
        return comparable

    assert comparable(fast) == comparable(plain)


@pytest.mark.parametrize("kind", JOINED)
def test_fast_insert_is_undone(engine: Engine, schema: str, kind: str) -> None:
    """Jobs inserted by COPY are gone when the caller rolls back."""
    with opened(kind, engine) as where:
        insert_many_fast(where, [Greet()] * 100, schema=schema)
        where.rollback()
    assert rows(engine, schema) == []


def test_fast_insert_goes_by_copy(engine: Engine, schema: str) -> None:
    """The fast insert uses COPY; with unique jobs it uses INSERT, and counts the new ones."""
    statements: list[str] = []
    with engine.connect() as connection:
        event.listen(
            connection,
            "before_cursor_execute",
            lambda conn, cursor, statement, *rest: statements.append(statement),
        )
        insert_many_fast(connection, [Greet()] * 3, schema=schema)
        assert statements == []
        unique = (Greet(), InsertOpts(unique=UniqueOpts(by_args=True)))
        assert insert_many_fast(connection, [unique, unique, Bill()], schema=schema) == 2
        assert len(statements) == 1


def test_fast_insert_names_missing_tables(engine: Engine) -> None:
    """COPY and INSERT raise the same error for a missing table."""
    with pytest.raises(SchemaMissing, match="nowhere"):
        insert_many_fast(engine, [Greet()], schema="nowhere")


UNIQUE = InsertOpts(unique=UniqueOpts(by_args=True))


@pytest.mark.parametrize("kind", KINDS)
def test_returns_the_job_that_is_there(engine: Engine, schema: str, kind: str) -> None:
    """A duplicate inserts nothing and returns the existing job, unchanged."""
    first = insert(engine, Greet(), UNIQUE, schema=schema)
    assert first.job.unique_states == DEFAULT_STATES
    with opened(kind, engine) as where:
        again = insert(where, Greet(), UNIQUE, schema=schema)
        commit(where)
    assert (again.skipped_as_duplicate, again.job) == (True, first.job)
    assert not first.skipped_as_duplicate
    assert len(rows(engine, schema)) == 1


def test_a_duplicate_leaves_the_other_kind_alone(engine: Engine, schema: str) -> None:
    """If kinds share keys, the existing job keeps its kind and its worker."""
    opts = InsertOpts(unique=UniqueOpts(by_args=True, exclude_kind=True))
    held = insert(engine, RawArgs(kind="wave", encoded={"name": "Ada"}), opts, schema=schema)
    skipped = insert(engine, Greet("Ada"), opts, schema=schema)
    assert skipped.skipped_as_duplicate
    assert skipped.job == held.job


def test_knows_a_duplicate_of_its_own_transaction(engine: Engine, schema: str) -> None:
    """A duplicate of a job inserted earlier in the same transaction is one too."""
    with engine.begin() as connection:
        first = insert(connection, Greet(), UNIQUE, schema=schema)
        again = insert(connection, Greet(), UNIQUE, schema=schema)
        assert (again.job, again.skipped_as_duplicate) == (first.job, True)


def test_knows_duplicates_within_a_batch(engine: Engine, schema: str) -> None:
    """Of duplicates in one batch the first is inserted, and the others return it, in order."""
    held = insert(engine, Greet("held"), UNIQUE, schema=schema)
    jobs = [(Greet(name), UNIQUE) for name in ("b", "held", "a", "b", "held", "a")]
    results = insert_many(engine, [Greet("plain"), *jobs, Greet("plain")], schema=schema)
    assert [result.job.args["name"] for result in results] == [
        *("plain", "b", "held", "a", "b", "held", "a", "plain")
    ]
    skipped = [result.skipped_as_duplicate for result in results]
    assert skipped == [False, False, True, False, True, True, True, False]
    assert results[2].job.id == results[5].job.id == held.job.id
    assert results[1].job.id == results[4].job.id
    assert len(rows(engine, schema)) == 5


def test_knows_duplicates_across_statements(engine: Engine, schema: str) -> None:
    """Duplicates are found in a batch that is too large for one statement."""
    jobs: list[object] = [Greet(str(n)) for n in range(6_000)]
    results = insert_many(engine, [(Greet(), UNIQUE), *jobs, (Greet(), UNIQUE)], schema=schema)
    assert (results[0].skipped_as_duplicate, results[-1].skipped_as_duplicate) == (False, True)
    assert results[0].job.id == results[-1].job.id


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("counted", [True, False])
def test_both_sides_of_a_mask(engine: Engine, schema: str, state: JobState, counted: bool) -> None:
    """A job holds its key in the states of its mask, and in no others."""
    states = REQUIRED_STATES | ({state} if counted else set())
    opts = InsertOpts(unique=UniqueOpts(by_args=True, by_state=states))
    first = insert(engine, Greet(), opts, schema=schema)
    final = {"finalized_at": func.now()} if state.is_final else {}
    with engine.begin() as connection:
        connection.execute(
            update(Job).where(Job.id == first.job.id).values(state=state, **final),
            execution_options={"schema_translate_map": {None: schema}},
        )
    again = insert(engine, Greet(), opts, schema=schema)
    stands = counted or state in REQUIRED_STATES
    assert again.skipped_as_duplicate is stands
    assert (again.job.id == first.job.id) is stands


def test_refuses_a_key_that_is_not_held_throughout() -> None:
    """A mask without the required states is refused: the job could not change its state."""
    for state in REQUIRED_STATES:
        with pytest.raises(InvalidOption, match=f"add {state}"):
            UniqueMark(key=b"k", states=frozenset(JobState) - {state})


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_second_transaction_waits_for_the_first(engine: Engine, schema: str, ends: str) -> None:
    """The second to insert a unique job waits for the first, and gets its row, or inserts."""
    results = []
    with engine.connect() as first:
        held = insert(first, Greet(), UNIQUE, schema=schema)
        with engine.connect() as second:
            pid = second.execute(select(func.pg_backend_pid())).scalar_one()

            def run() -> None:
                results.append(insert(second, Greet(), UNIQUE, schema=schema))
                second.commit()

            thread = threading.Thread(target=run)
            thread.start()
            wait_until_blocked(engine, pid)
            assert results == []
            getattr(first, ends)()
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "the second insert did not end"
    [result] = results
    assert result.skipped_as_duplicate is (ends == "commit")
    assert (result.job.id == held.job.id) is (ends == "commit")
    assert len(rows(engine, schema)) == 1


def test_other_schemas_stay_apart(engine: Engine, schema: str) -> None:
    """With a schema the job goes there, whatever the search path is."""
    with engine.connect() as connection:
        assert insert(connection, Greet(), UNIQUE, schema=schema).job.id == 1
        connection.commit()
    with (
        pytest.raises(SchemaMissing, match="nowhere"),
        engine.begin() as connection,
    ):
        insert(connection, Greet(), schema="nowhere")


def test_search_path_decides_without_a_schema(
    engine: Engine, database_url: str, schema: str
) -> None:
    """Without a schema the search path decides, also for the bitmask's function and the type."""
    url = search_path_url(database_url, schema)
    own = create_engine(url)
    try:
        first = insert(own, Greet(), UNIQUE)
        assert insert(own, Greet(), UNIQUE).skipped_as_duplicate
        assert insert_many_fast(own, [Greet()]) == 1
        [job, _] = claim(own, client_id="me", limit=5)
        assert job.id == first.job.id
        assert complete(own, job) is JobState.completed
    finally:
        own.dispose()
    assert len(rows(engine, schema)) == 2


@pytest.mark.parametrize(
    ("opts", "state"),
    [
        (InsertOpts(), JobState.available),
        (InsertOpts(scheduled_at=datetime(2100, 1, 1, tzinfo=UTC)), JobState.scheduled),
        (InsertOpts(scheduled_at=datetime(2001, 1, 1, tzinfo=UTC)), JobState.scheduled),
        (InsertOpts(pending=True), JobState.pending),
        (
            InsertOpts(pending=True, scheduled_at=datetime(2100, 1, 1, tzinfo=UTC)),
            JobState.pending,
        ),
    ],
)
@pytest.mark.parametrize("fast", [False, True])
def test_first_state(
    engine: Engine, schema: str, opts: InsertOpts, state: JobState, fast: bool
) -> None:
    """A job with a time, past or future, is scheduled; without one it is available or pending."""
    (insert_many_fast if fast else insert_many)(engine, [(Greet(), opts)], schema=schema)
    [(job_id, _)] = rows(engine, schema)
    job = get(engine, job_id, schema=schema)
    assert job.state is state
    assert job.scheduled_at == (opts.scheduled_at or job.created_at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("unique", [None, UniqueOpts(by_args=True)])
def test_returns_what_is_stored(
    engine: Engine, schema: str, kind: str, count: int, unique: UniqueOpts | None
) -> None:
    """The job that an insert returns equals its row in every column, alone or in a batch."""
    opts = [
        InsertOpts(unique=unique),
        InsertOpts(
            priority=2,
            queue="null",
            tags=["one", "two"],
            max_attempts=9,
            metadata={"é": ['"', "\\", None, {"a": "{}"}]},
            scheduled_at=datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2))),
            unique=unique,
        ),
        InsertOpts(pending=True, unique=unique),
    ]
    for start in range(3):
        chosen = [opts[(start + n) % 3] for n in range(count)]
        names = ['"Ada" \\ {Lovelace},', "NULL", "\\N"]
        jobs = [(Greet(f"{start}{names[n]}"), each) for n, each in enumerate(chosen)]
        with opened(kind, engine) as where:
            results = insert_many(where, jobs, schema=schema)
            commit(where)
        for result, (args, given) in zip(results, jobs, strict=True):
            assert result.job.args == {"name": args.name}
            assert (result.job.queue == "null") is (given.queue == "null")
            assert result.job == get(engine, result.job.id, schema=schema)


def test_a_session_that_routes_sees_a_write(engine: Engine, schema: str) -> None:
    """A session that chooses its engine by mapper or statement sees a write to Job."""
    shown = []

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **rest: Any) -> Any:
            shown.append((inspect(mapper).class_, isinstance(clause, UpdateBase)))
            return super().get_bind(mapper, clause=clause, **rest)

    with Routing(engine) as session:
        insert(session, Greet(), schema=schema)
        insert_many_fast(session, [Greet()], schema=schema)
    assert shown
    assert set(shown) == {(Job, True)}


def test_says_now_by_the_database(engine: Engine, schema: str) -> None:
    """Times are the database's own, unless a test gives one."""
    with engine.begin() as connection:
        now = connection.execute(select(func.now())).scalar_one()
        job = insert(connection, Greet(), schema=schema).job
        assert (job.created_at, job.scheduled_at) == (now, now)
        past = datetime(2020, 2, 2, tzinfo=UTC)
        job = insert(connection, Greet(), schema=schema, now=past).job
        assert (job.created_at, job.scheduled_at) == (past, past)


def test_options_precede(engine: Engine, schema: str) -> None:
    """The options of an insert win over those of the args' class, and these over the defaults."""
    job = insert(engine, Bill(), InsertOpts(priority=4), schema=schema).job
    assert (job.priority, job.queue, job.max_attempts, job.tags) == (4, "billing", 7, ("money",))
    job = insert(engine, Bill(), InsertOpts(tags=[]), schema=schema).job
    assert job.tags == ()
    job = insert(engine, Bill(), InsertOpts(queue="default", max_attempts=25), schema=schema).job
    assert (job.queue, job.max_attempts, job.priority) == ("default", 25, 3)


@pytest.mark.parametrize("fast", [False, True])
def test_defaults_are_the_columns(engine: Engine, schema: str, fast: bool) -> None:
    """Without options the row has the defaults of River's columns."""
    (insert_many_fast if fast else insert_many)(engine, [Greet()], schema=schema)
    bare = insert_job(engine, schema)
    ours, theirs = (get(engine, job_id, schema=schema) for job_id, _ in rows(engine, schema))
    assert theirs.id == bare
    skip = {"id", "created_at", "scheduled_at"}
    assert [
        {k: v for k, v in attrs.asdict(j).items() if k not in skip} for j in (ours, theirs)
    ] == [{k: v for k, v in attrs.asdict(theirs).items() if k not in skip}] * 2
    assert ours.errors == ()
    with engine.connect() as connection:
        connection = connection.execution_options(schema_translate_map={None: schema})
        nulls = connection.execute(
            select(func.num_nulls(Job.errors, Job.attempted_by, Job.attempted_at))
        ).scalars()
        assert list(nulls) == [3, 3]


def test_works_in_autocommit(engine: Engine, schema: str) -> None:
    """On a connection that commits every statement, a job is there at once."""
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    with automatic.connect() as connection:
        job = insert(connection, Greet(), schema=schema).job
        assert len(rows(engine, schema)) == 1
        insert_many(connection, [Greet(), Greet()], schema=schema)
        insert_many_fast(connection, [Greet()], schema=schema)
        assert len(rows(engine, schema)) == 4
        claimed = claim(connection, client_id="me", schema=schema)[0]
        assert claimed.id == job.id
        assert complete(connection, claimed, schema=schema) is JobState.completed
    assert get(engine, job.id, schema=schema).state is JobState.completed


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_works_in_an_async_session(
    database_url: str, engine: Engine, schema: str, driver: str
) -> None:
    """An AsyncSession inserts, claims and completes through run_sync, in its own transaction."""
    pytest.importorskip("greenlet")
    pytest.importorskip(driver)
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    later = datetime(2100, 1, 1, tzinfo=UTC)
    opts = InsertOpts(tags=["one"], metadata={"a": 1}, unique=UniqueOpts(by_args=True))

    async def run() -> None:
        own = create_async_engine(url)
        try:
            async with AsyncSession(own) as session:
                first = await session.run_sync(insert, Greet(), opts, schema=schema)
                again = await session.run_sync(insert, Greet(), opts, schema=schema)
                assert (again.job, again.skipped_as_duplicate) == (first.job, True)
                assert again.job.unique_states == DEFAULT_STATES
                batch = [(Greet(), InsertOpts(scheduled_at=later)), Greet()]
                assert await session.run_sync(insert_many_fast, batch, schema=schema) == 2
                assert rows(engine, schema) == []
                await session.commit()
                [job] = await session.run_sync(claim, client_id="me", schema=schema)
                state = await session.run_sync(complete, job, metadata={"b": 2}, schema=schema)
                assert state is JobState.completed
                await session.commit()
                done = await session.run_sync(get, job.id, schema=schema)
                assert done.metadata == {"a": 1, "b": 2}
                await session.run_sync(insert, Greet("gone"), schema=schema)
                await session.rollback()
        finally:
            await own.dispose()

    asyncio.run(run())
    assert len(rows(engine, schema)) == 3


def test_constraints_of_the_host_are_its_own(engine: Engine, schema: str, customers: None) -> None:
    """An error of the application's flush is raised unchanged, and undoes the insert."""
    with Session(engine) as session:
        insert(session, Greet(), schema=schema)
        session.add(Customer())
        with pytest.raises(IntegrityError):
            session.commit()
    assert rows(engine, schema) == []


LATER = datetime(2030, 1, 1, tzinfo=UTC)
SOONER = datetime(2029, 1, 1, tzinfo=UTC)


@attrs.frozen
class Reindex(JobArgs, kind="reindex"):
    document: int = 1
    version: int = 1


def once(on_conflict: str, **opts: Any) -> InsertOpts:
    """Return options by which a document has one job at a time."""
    return InsertOpts(unique=UniqueOpts(by_args=("document",), on_conflict=on_conflict), **opts)


@pytest.mark.parametrize(
    ("on_conflict", "version", "at", "priority"),
    [
        ("skip", 1, SOONER, 1),
        ("replace", 2, SOONER, 2),
        ("reschedule", 1, LATER, 1),
        ("debounce", 2, LATER, 2),
    ],
)
def test_a_duplicate_does_what_it_was_asked_to(
    engine: Engine, schema: str, on_conflict: str, version: int, at: datetime, priority: int
) -> None:
    """The existing job keeps its id, and gets the duplicate's input, its time, or both."""
    first = insert(engine, Reindex(), once("skip", scheduled_at=SOONER), schema=schema)
    opts = once(on_conflict, scheduled_at=LATER, priority=2, tags=["new"], metadata={"new": 1})
    again = insert(engine, Reindex(version=2), opts, schema=schema)
    assert again.skipped_as_duplicate
    assert again.changed == (on_conflict != "skip")
    job = get(engine, first.job.id, schema=schema)
    assert job == again.job
    assert (job.args["version"], job.scheduled_at, job.priority) == (version, at, priority)
    assert (job.tags, job.metadata) == ((("new",), {"new": 1}) if priority == 2 else ((), {}))
    assert job.state is JobState.scheduled


def test_a_debounce_without_a_time_is_due_now(engine: Engine, schema: str) -> None:
    """The last insert may also bring the job forward, from retryable too."""
    job_id = insert(engine, Reindex(), once("skip", scheduled_at=LATER), schema=schema).job.id
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema}.river_job SET state = 'retryable'"))
    result = insert(engine, Reindex(), once("debounce"), schema=schema)
    assert (result.job.id, result.job.state) == (job_id, JobState.available)
    assert result.job.scheduled_at < LATER


@pytest.mark.parametrize("state", [JobState.running, JobState.completed])
def test_what_runs_or_has_run_is_left_as_it_is(
    engine: Engine, schema: str, state: JobState
) -> None:
    """A job that is no longer waiting is not changed, and the result shows that."""
    insert(engine, Reindex(), once("skip"), schema=schema)
    final = "now()" if state is JobState.completed else "NULL"
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {schema}.river_job SET state = '{state}', finalized_at = {final}")
        )
    result = insert(engine, Reindex(version=2), once("debounce"), schema=schema)
    assert (result.skipped_as_duplicate, result.changed) == (True, False)
    assert (result.job.state, result.job.args["version"]) == (state, 1)


def test_the_last_duplicate_of_a_batch_counts(engine: Engine, schema: str) -> None:
    """A batch that debounces itself inserts one job, with its last args."""
    jobs = [(Reindex(n % 2, n), once("debounce")) for n in range(6)]
    results = insert_many(engine, jobs, schema=schema)
    assert len({result.job.id for result in results}) == 2
    assert {result.job.args["version"] for result in results} == {4, 5}
    assert [result.skipped_as_duplicate for result in results] == [False] * 2 + [True] * 4


def test_a_copy_keeps_every_character(engine: Engine, schema: str) -> None:
    """Backslashes, quotes, newlines, tabs and the marks of COPY are stored unchanged."""
    odd = "a\\b\\N\\.\t\n\r\x01\x1f\x7f\"'\u2028 ä 🎉 {}"
    opts = InsertOpts(metadata={odd: odd}, tags=["NULL", "a_b-c"])
    assert insert_many_fast(engine, [(Note(odd), opts)], schema=schema) == 1
    with engine.connect() as connection:
        row = connection.execute(text(f"SELECT * FROM {schema}.river_job")).one()
    assert (row.args, row.metadata, row.tags) == ({"text": odd}, {odd: odd}, ["NULL", "a_b-c"])


@attrs.frozen
class Note(JobArgs, kind="note"):
    text: str
