"""Conflicts of transactions: riverrun's own are tried again, and no attempt is spent on one."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from factories import insert_job
from riverrun import Client, JobArgs, JobContext, QueueConfig, UniqueOpts, Workers
from riverrun.db.conflicts import TRIES
from riverrun.events import JobCompleted, JobFailed
from riverrun.jobs.options import InsertOpts
from riverrun.verbs import cancel, claim, delete, get, insert, insert_many, insert_many_fast, retry
from riverrun.verbs.queues import get_queue, pause_queue, upsert_queues
from waiting import DEADLINE_S

UNIQUE = InsertOpts(unique=UniqueOpts(by_args=True))


@attrs.frozen
class Count(JobArgs, kind="count"):
    """Args of no interest."""

    number: int = 0


@pytest.fixture(params=["40001", "40P01"])
def refuse(
    request: pytest.FixtureRequest, engine: Engine, schema: str
) -> Callable[[int, str], None]:
    """Return a function that makes the next writes to a table fail, at once or at commit."""

    def refuse(times: int, table: str = "river_job", *, deferred: bool = False) -> None:
        when = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"""SET LOCAL search_path TO {schema}; CREATE SEQUENCE tries;
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF nextval('{schema}.tries') <= {times} THEN
                        RAISE EXCEPTION 'met another' USING ERRCODE = '{request.param}';
                    END IF;
                    RETURN NULL;
                END $$;
                CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON {table}
                    {when} FOR EACH ROW EXECUTE FUNCTION refuse()"""
            )

    return refuse


VERBS: dict[str, Callable[[Engine, str, int], object]] = {
    "insert": lambda engine, schema, _: insert(engine, Count(), schema=schema),
    "insert_many": lambda engine, schema, _: insert_many(
        engine, (Count(number) for number in range(3)), schema=schema
    ),
    "insert_many_fast": lambda engine, schema, _: insert_many_fast(
        engine, (Count(number) for number in range(3)), schema=schema
    ),
    "insert by a client": lambda engine, schema, _: Client(engine, schema=schema).insert_many(
        engine, iter([(Count(), UNIQUE)])
    ),
    "COPY by a client": lambda engine, schema, _: Client(engine, schema=schema).insert_many_fast(
        engine, iter([Count()])
    ),
    "cancel": lambda engine, schema, job_id: cancel(engine, job_id, schema=schema),
    "claim": lambda engine, schema, _: claim(engine, client_id="me", schema=schema)[0],
    "delete": lambda engine, schema, job_id: delete(engine, job_id, schema=schema),
    "retry": lambda engine, schema, job_id: retry(engine, job_id, schema=schema),
}


@pytest.mark.parametrize("deferred", [False, True], ids=["at once", "at the commit"])
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_own_transactions_are_tried_again(
    engine: Engine,
    schema: str,
    refuse: Callable[..., None],
    verb: Callable[..., object],
    deferred: bool,
) -> None:
    """After a conflict a transaction of riverrun's own is repeated as a whole, and commits once."""
    state = "cancelled" if verb is VERBS["retry"] else "available"
    job_id = insert_job(engine, schema, state=state)
    refuse(1, deferred=deferred)
    assert verb(engine, schema, job_id)


def test_a_conflict_that_stays_is_raised(
    engine: Engine, schema: str, refuse: Callable[..., None]
) -> None:
    """After some tries the error is the caller's, with the database's message."""
    refuse(TRIES)
    with pytest.raises(DBAPIError, match="met another"):
        insert(engine, Count(), schema=schema)
    assert insert(engine, Count(), schema=schema).job.id


def test_a_host_s_transaction_is_not_tried_again(
    engine: Engine, schema: str, refuse: Callable[..., None]
) -> None:
    """A conflict in the application's transaction is raised to the application."""
    refuse(1)
    with Session(engine) as session, pytest.raises(DBAPIError, match="met another"):
        insert(session, Count(), schema=schema)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_own_transactions_read_what_is_committed(engine: Engine, schema: str, level: str) -> None:
    """Whatever the default isolation level is, clients that insert the same job all get one."""
    options = f"-cdefault_transaction_isolation={level.replace(' ', chr(92) + ' ')}"
    engines = [create_engine(engine.url, connect_args={"options": options}) for _ in range(3)]
    meet = threading.Barrier(len(engines))

    def insert_all(own: Engine) -> list[bool]:
        meet.wait(DEADLINE_S)
        jobs = [(Count(number), UNIQUE) for number in range(40)]
        return [insert(own, args, opts, schema=schema).skipped_as_duplicate for args, opts in jobs]

    with ThreadPoolExecutor(len(engines)) as threads:
        skipped = [each for found in threads.map(insert_all, engines) for each in found]
    assert (skipped.count(False), skipped.count(True)) == (40, 80)
    for own in engines:
        own.dispose()


@pytest.fixture
def strict(engine: Engine) -> Iterator[Engine]:
    """An engine at the isolation level SERIALIZABLE."""
    strict = create_engine(engine.url, isolation_level="SERIALIZABLE", pool_size=12)
    yield strict
    strict.dispose()


def test_a_conflict_spends_no_attempt(engine: Engine, strict: Engine, schema: str) -> None:
    """Jobs of one attempt that all change one row are all completed, each once."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {schema}.total (number integer)"))
        connection.execute(text(f"INSERT INTO {schema}.total VALUES (0)"))
    workers = Workers()

    @workers.register
    def count(args: Count, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            session.execute(text(f"UPDATE {schema}.total SET number = number + 1"))

    client = Client(
        strict, schema=schema, workers=workers, queues={"default": QueueConfig(max_workers=4)}
    )
    once = InsertOpts(max_attempts=1)
    ids = {
        result.job.id
        for result in client.insert_many(engine, [(Count(number), once) for number in range(24)])
    }
    done = client.subscribe(JobCompleted)
    waiting = set(ids)
    with client:
        while waiting:
            waiting.discard(done.get(timeout=DEADLINE_S).job.id)
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT number FROM {schema}.total")) == len(ids)
    jobs = [get(engine, job_id, schema=schema) for job_id in ids]
    assert {(job.attempt, job.state.value, job.errors) for job in jobs} == {(1, "completed", ())}


def test_a_job_that_only_conflicts_comes_to_an_end(
    engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After CONFLICTS_MAX conflicts of a job, one more counts as a failure."""
    monkeypatch.setattr("riverrun.outcome.CONFLICTS_MAX", 3)
    workers = Workers()
    calls = []

    @workers.register
    def count(args: Count, ctx: JobContext) -> None:
        calls.append(ctx.job.attempt)
        with ctx.transaction() as session:
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$"))

    client = Client(
        engine, schema=schema, workers=workers, queues={"default": QueueConfig(max_workers=1)}
    )
    job_id = client.insert(engine, Count(), InsertOpts(max_attempts=1)).job.id
    failed = client.subscribe(JobFailed)
    with client:
        failed.get(timeout=DEADLINE_S)
    job = get(engine, job_id, schema=schema)
    assert (job.state, len(job.errors), calls) == ("discarded", 1, [1, 1, 1, 1])


def test_queues_change_by_tries(engine: Engine, schema: str, refuse: Callable[..., None]) -> None:
    """A pause of a queue is repeated after a conflict."""
    upsert_queues(engine, ["default"], schema=schema)
    refuse(2, "river_queue")
    pause_queue(engine, "default", schema=schema)
    assert get_queue(engine, "default", schema=schema).paused_at is not None
