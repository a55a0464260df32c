"""A client's kept connection does what any other connection of its pool does."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import NotSupportedError, OperationalError

from factories import insert_job
from riverrun import verbs
from riverrun.db.kept import KEPT, Kept
from riverrun.db.statement_timeout import SINGLE
from riverrun.errors import SchemaMissing
from riverrun.verbs.claim import claim_jobs, queues_waiting
from waiting import DEADLINE_S


@pytest.fixture
def host(engine: Engine) -> Iterator[Engine]:
    """An engine of a host with a pool of two connections."""
    own = create_engine(engine.url, pool_size=2, max_overflow=0, pool_timeout=DEADLINE_S)
    yield own
    own.dispose()


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What keeps the connection; closed at the end."""
    kept = Kept()
    yield kept
    kept.close()


@pytest.fixture
def keeping(host: Engine, kept: Kept) -> Engine:
    """The host's engine, with a kept connection for transactions of one statement."""
    return host.execution_options(**{SINGLE: True, KEPT: kept})


def claimed(engine: Engine, schema: str, limit: int = 1) -> list[int]:
    """Claim jobs and return their ids."""
    return [
        job.id for job in claim_jobs(engine, "default", limit=limit, client_id="é", schema=schema)
    ]


def test_claims_the_same_rows(engine: Engine, keeping: Engine, schema: str) -> None:
    """A job that is claimed on the kept connection has the same columns as on another."""
    ids = [insert_job(engine, schema, args={"text": "é\\ %s"}, tags=["a", "b"]) for _ in range(2)]
    job, other = (verbs.claim(tx, client_id="é", schema=schema)[0] for tx in (keeping, engine))
    assert [job.id, other.id] == ids
    names = [name for name in dir(job) if not name.startswith("_") and not name.endswith("_at")]
    assert {name: getattr(job, name) for name in names if name != "id"} == {
        name: getattr(other, name) for name in names if name != "id"
    }
    assert job.created_at.tzinfo is not None


def test_one_connection_is_used_again(
    engine: Engine, keeping: Engine, kept: Kept, schema: str
) -> None:
    """Statements of one after another use one connection, which the pool has back after a close."""
    for _ in range(3):
        insert_job(engine, schema)
        assert len(claimed(keeping, schema)) == 1
        with kept.connection(keeping) as ready:
            assert ready is not None
            pid = ready.driver.info.backend_pid
            assert not ready.driver.closed
    kept.close()
    with keeping.connect() as one, keeping.connect() as other:
        pids = {each.scalar(text("SELECT pg_backend_pid()")) for each in (one, other)}
        assert pid in pids
        assert not any(each.connection.driver_connection.autocommit for each in (one, other))
    assert claimed(keeping, schema) == []


def test_a_connection_that_was_given_back_is_used_again(
    engine: Engine, keeping: Engine, kept: Kept, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that comes back from its pool goes on with its prepared statements."""
    monkeypatch.setattr("riverrun.db.kept.KEEP_S", 0.0)
    for _ in range(5):
        insert_job(engine, schema)
        assert len(claimed(keeping, schema)) == 1
    kept.close()
    with keeping.connect() as one, keeping.connect() as other:
        counts = [
            each.scalar(
                text("SELECT count(*) FROM pg_prepared_statements WHERE name ~ '^riverrun'")
            )
            for each in (one, other)
        ]
    assert max(counts) == 1


def test_a_disposed_pool_takes_it_along(
    engine: Engine, keeping: Engine, kept: Kept, schema: str
) -> None:
    """After the engine's dispose() the kept connection is closed and another one is taken."""
    assert claimed(keeping, schema) == []
    with kept.connection(keeping) as ready:
        assert ready is not None
        old = ready.driver
    keeping.dispose()
    job_id = insert_job(engine, schema)
    assert claimed(keeping, schema) == [job_id]
    assert old.closed


def test_a_thread_does_not_wait_for_another(keeping: Engine, kept: Kept, schema: str) -> None:
    """While a thread uses the connection, others take theirs from the pool."""
    taken: list[list[int]] = []
    with kept.connection(keeping):
        thread = threading.Thread(target=lambda: taken.append(claimed(keeping, schema)))
        thread.start()
        thread.join(DEADLINE_S)
    assert taken == [[]]


@pytest.mark.parametrize(
    "change",
    [
        "DEALLOCATE ALL",
        "ALTER TABLE {jobs} ALTER COLUMN queue TYPE varchar(128)",
        "ALTER TABLE {jobs} ALTER COLUMN max_attempts TYPE int",
        "ANALYZE {jobs}",
    ],
)
def test_a_forgotten_statement_is_prepared_again(
    engine: Engine, keeping: Engine, kept: Kept, schema: str, change: str
) -> None:
    """A claim works after the server has forgotten its statement or a table has changed."""
    insert_job(engine, schema)
    assert len(claimed(keeping, schema)) == 1
    table = f"{schema}.river_job"
    with kept.connection(keeping) as ready:
        assert ready is not None
        ready.driver.execute(change.format(jobs=table).encode())
    job_id = insert_job(engine, schema)
    assert claimed(keeping, schema) == [job_id]


def test_a_lost_connection_is_replaced(
    engine: Engine, keeping: Engine, kept: Kept, schema: str
) -> None:
    """A claim on a connection that was cut raises what SQLAlchemy would; the next one works."""
    job_id = insert_job(engine, schema)
    with kept.connection(keeping) as ready:
        assert ready is not None
        pid = ready.driver.info.backend_pid
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    with pytest.raises(OperationalError) as caught:
        claimed(keeping, schema)
    assert caught.value.connection_invalidated
    assert claimed(keeping, schema) == [job_id]


def test_a_refusal_is_no_outdated_statement(
    engine: Engine, keeping: Engine, kept: Kept, schema: str
) -> None:
    """An error of a trigger that looks like a changed table's is raised as it is, each time."""
    insert_job(engine, schema)
    with engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'not here' USING ERRCODE = '0A000'; END $$"
            )
        )
        connection.execute(
            text(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.river_job"
                f" FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
            )
        )
    for _ in range(3):
        with pytest.raises(NotSupportedError, match="not here"):
            claimed(keeping, schema)
    with kept.connection(keeping) as ready:
        assert ready is not None
        prepared = ready.driver.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert prepared == (1,)


def test_binds_of_many_sorts(engine: Engine, keeping: Engine, kept: Kept, schema: str) -> None:
    """Arrays of any texts reach the server; what only the driver can adapt goes another way."""
    insert_job(engine, schema)
    names = ["default", "none", 'a"b', "a\\b", "", "{x,y}", "NULL", "é"]
    assert queues_waiting(keeping, names, schema=schema) == {"default"}
    with kept.connection(keeping) as ready:
        assert ready is not None
        query = "SELECT unnest(%(names)s::text[])"
        assert ready.rows(query, {"names": names}, times=False) == [(name,) for name in names]
        assert ready.rows("SELECT %(a)s::int", {"a": None}, times=False) == [(None,)]
        for value in (True, "\x00", ["\x00"], [1], b"x", 1.5):
            assert ready.rows("SELECT %(a)s", {"a": value}, times=False) is None
    now = datetime.now(UTC)
    assert claim_jobs(keeping, "default", limit=1, client_id="x", schema=schema, now=now)


def test_missing_tables_are_named(keeping: Engine) -> None:
    """Without River's tables the error says so, as on any connection."""
    with pytest.raises(SchemaMissing):
        claimed(keeping, "nowhere")


def test_a_connection_that_needs_a_begin_is_not_kept(
    engine: Engine, kept: Kept, schema: str
) -> None:
    """At another default isolation level each claim has a transaction of its own."""
    options = {"options": "-c default_transaction_isolation=serializable"}
    strict = create_engine(engine.url, connect_args=options)
    keeping = strict.execution_options(**{SINGLE: True, KEPT: kept})
    job_id = insert_job(engine, schema)
    assert claimed(keeping, schema) == [job_id]
    with kept.connection(keeping) as ready:
        assert ready is None
    kept.close()
    strict.dispose()
