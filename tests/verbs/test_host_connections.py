"""A host's connections: riverrun works on any of them, and each goes back as it was found."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import attrs
import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row, tuple_row
from psycopg.types.string import StrDumper, TextLoader
from sqlalchemy import URL, Engine, NullPool, create_engine, event, text
from sqlalchemy.orm import Session

from riverrun import Client, JobArgs, JobContext, QueueConfig, UniqueOpts, Workers
from riverrun.events import JobCompleted
from riverrun.jobs.options import InsertOpts
from riverrun.migrations import LATEST, Line, migrate
from riverrun.policies.backoff import Constant
from riverrun.testing import rolled_back
from riverrun.verbs import cancel, claim, complete, count_jobs, get, insert, insert_many_fast
from riverrun.verbs.beat import beat, sign_on
from riverrun.verbs.elect import elect, resign
from riverrun.verbs.notify import notify_inserted
from riverrun.verbs.reindex import reindex
from waiting import DEADLINE_S

CONNECTIONS = 4
UNIQUE = InsertOpts(unique=UniqueOpts(by_args=True))


@attrs.frozen
class Note(JobArgs, kind="note"):
    """Args that no encoding but UTF-8 holds."""

    words: str = "naïve, 5 €"


class LoudLoader(TextLoader):
    """An application's own: texts in capitals."""

    def load(self, data: Any) -> str:
        return str(super().load(data)).upper()


def made(url: URL, **options: Any) -> Engine:
    """An engine with room for what a client needs."""
    return create_engine(url, **{"pool_size": CONNECTIONS, "max_overflow": 4, **options})


def on_connect(url: URL, change: Callable[[psycopg.Connection[Any]], object]) -> Engine:
    """An engine with a listener on its new connections."""
    engine = made(url)
    event.listen(engine, "connect", lambda driver, _: change(driver))
    return engine


def setting(url: URL, *settings: str) -> Engine:
    """An engine whose connections are set up by statements, committed, as SQLAlchemy shows it."""

    def change(driver: psycopg.Connection[Any]) -> None:
        for each in settings:
            driver.execute(each)
        driver.commit()

    return on_connect(url, change)


def with_creator(url: URL) -> Engine:
    """An engine that leaves it to a function to connect, in autocommit."""
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo, autocommit=True)
    )


def with_do_connect(url: URL) -> Engine:
    """An engine with a listener that changes the arguments."""
    engine = made(url)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> None:
        cparams["autocommit"] = True

    return engine


def with_open_transaction(url: URL) -> Engine:
    """An engine whose listener leaves open the transaction in which it set something."""
    engine = made(url)

    @event.listens_for(engine, "checkout")
    def check_out(driver: psycopg.Connection[Any], *_: object) -> None:
        driver.execute("SET LOCAL application_name = 'tenant'")

    return engine


def with_connect_listener_of_the_engine(url: URL) -> Engine:
    """An engine whose listener has SQLAlchemy begin a transaction."""
    engine = made(url)

    @event.listens_for(engine, "engine_connect")
    def connected(connection: Any) -> None:
        connection.execute(text("SET application_name = 'app'"))

    return engine


def loud(driver: psycopg.Connection[Any]) -> None:
    """Register adapters as an application does."""
    driver.adapters.register_loader("text", LoudLoader)
    driver.adapters.register_loader("varchar", LoudLoader)
    driver.adapters.register_dumper(str, StrDumper)


def odd(**attributes: Any) -> Callable[[URL], Engine]:
    """An engine whose connections have `attributes`."""

    def change(driver: psycopg.Connection[Any]) -> None:
        for name, value in attributes.items():
            setattr(driver, name, value)

    return lambda url: on_connect(url, change)


ENGINES: Mapping[str, Callable[[URL], Engine]] = {
    "plain": made,
    "NullPool": lambda url: create_engine(url, poolclass=NullPool),
    "AUTOCOMMIT": lambda url: made(url, isolation_level="AUTOCOMMIT"),
    "READ COMMITTED": lambda url: made(url, isolation_level="READ COMMITTED"),
    "REPEATABLE READ": lambda url: made(url, isolation_level="REPEATABLE READ"),
    "SERIALIZABLE": lambda url: made(url, isolation_level="SERIALIZABLE"),
    "AUTOCOMMIT by option": lambda url: made(url).execution_options(isolation_level="AUTOCOMMIT"),
    "SERIALIZABLE by option": lambda url: made(url).execution_options(
        isolation_level="SERIALIZABLE"
    ),
    "READ ONLY by option": lambda url: made(url).execution_options(postgresql_readonly=True),
    "autocommit of the driver": lambda url: made(url, connect_args={"autocommit": True}),
    "autocommit of a creator": with_creator,
    "autocommit by do_connect": with_do_connect,
    "autocommit by connect": odd(autocommit=True),
    "an open transaction": with_open_transaction,
    "a transaction begun by SQLAlchemy": with_connect_listener_of_the_engine,
    "dict_row": odd(row_factory=dict_row),
    "namedtuple_row": lambda url: made(url, connect_args={"row_factory": namedtuple_row}),
    "ClientCursor": lambda url: made(url, connect_args={"cursor_factory": psycopg.ClientCursor}),
    "RawCursor": odd(cursor_factory=psycopg.RawCursor),
    "prepare_threshold None": lambda url: made(url, connect_args={"prepare_threshold": None}),
    "prepare_threshold 0": lambda url: made(url, connect_args={"prepare_threshold": 0}),
    "deferrable": odd(deferrable=True, isolation_level=psycopg.IsolationLevel.SERIALIZABLE),
    "adapters": lambda url: on_connect(url, loud),
    "serializable by default": lambda url: made(
        url,
        connect_args={"options": "-cdefault_transaction_isolation=serializable"},
    ),
    "read only by default": lambda url: made(
        url, connect_args={"options": "-cdefault_transaction_read_only=on"}
    ),
    "read only by default, in autocommit": lambda url: made(
        url,
        isolation_level="AUTOCOMMIT",
        connect_args={"options": "-cdefault_transaction_read_only=on"},
    ),
    "settings": lambda url: setting(
        url,
        "SET DateStyle = 'German, DMY'",
        "SET TimeZone = 'Asia/Kathmandu'",
        "SET IntervalStyle = 'sql_standard'",
        "SET bytea_output = 'escape'",
        "SET extra_float_digits = 0",
        "SET statement_timeout = '57s'",
        "SET standard_conforming_strings = off",
        "SET default_transaction_deferrable = on",
    ),
    "client_encoding": lambda url: made(url, connect_args={"client_encoding": "LATIN1"}),
    "no reset": lambda url: made(url, pool_reset_on_return=None),
    "no reset, in autocommit": lambda url: made(
        url, pool_reset_on_return=None, isolation_level="AUTOCOMMIT"
    ),
    "echo": lambda url: made(url, echo=True),
    "paramstyle": lambda url: made(url, paramstyle="format"),
    "a schema of the engine's": lambda url: made(url).execution_options(
        schema_translate_map={None: "elsewhere"}
    ),
    "set in autocommit": lambda url: made(url, isolation_level="AUTOCOMMIT").execution_options(
        isolation_level="SERIALIZABLE"
    ),
}

ATTRIBUTES = (
    "autocommit",
    "isolation_level",
    "read_only",
    "deferrable",
    "row_factory",
    "cursor_factory",
    "server_cursor_factory",
    "prepare_threshold",
    "prepared_max",
    "_notice_handlers",
    "_notify_handlers",
)


def snapshot(driver: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return all that a host could have set on a connection."""
    found: dict[str, Any] = {name: getattr(driver, name) for name in ATTRIBUTES}
    found["_notice_handlers"] = len(found["_notice_handlers"])
    found["loaders"] = [
        driver.adapters.get_loader(oid, form)  # type: ignore[arg-type]
        for oid in (20, 25, 1043, 1184, 3802)
        for form in (0, 1)
    ]
    found["dumpers"] = [
        driver.adapters.get_dumper(kind, psycopg.adapt.PyFormat.AUTO) for kind in (str, int)
    ]
    status = driver.info.transaction_status
    cursor = psycopg.Cursor(driver, row_factory=tuple_row)
    # What depends on the transaction that is open while it is asked says nothing.
    statement = (
        "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'transaction%'"
        " UNION ALL SELECT 'listens', channel FROM pg_listening_channels() AS channel"
        " UNION ALL SELECT 'locks', locktype FROM pg_locks"
        " WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
        " UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relpersistence = 't'"
    )
    found["server"] = cursor.execute(statement).fetchall()
    if not driver.autocommit and status == psycopg.pq.TransactionStatus.IDLE:
        driver.rollback()
    return found


def snapshots(engine: Engine) -> dict[int, dict[str, Any]]:
    """Return a snapshot of each connection of the pool, up to its size."""
    used = []
    with ExitStack() as stack:
        # SQLAlchemy sets a connection's isolation level when it is used for the first time.
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(engine.connect())
            connection.commit()
            used.append(connection.connection.driver_connection)
    with ExitStack() as stack:
        found = {}
        for _ in range(CONNECTIONS):
            pooled = engine.raw_connection()
            stack.callback(pooled.close)
            driver = pooled.driver_connection
            assert driver is not None
            # Another one is new, made while an announcer has one of those, and has not been used.
            if isinstance(engine.pool, NullPool) or any(driver is each for each in used):
                found[id(driver)] = snapshot(driver)
        return found


class Host:
    """A host, its engine and its client."""

    def __init__(self, engine: Engine, schema: str, *, only_ours: bool) -> None:
        self.engine = engine
        self.only_ours = only_ours
        self.schema = schema
        self.workers = Workers()
        self.client = Client(engine, schema=schema, workers=self.workers, queues={})
        self.rows = 0

        @self.workers.register
        def note(args: Note, ctx: JobContext) -> None:
            if not only_ours:
                with ctx.transaction() as session:
                    session.execute(text(f"INSERT INTO {schema}.host VALUES (1)"))
                    if ctx.job.attempt == 1:
                        raise LookupError

    @property
    def is_in_autocommit(self) -> bool:
        """Whether what the host writes is there without a commit."""
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            return bool(driver.autocommit)

    def write(self) -> None:
        """Write a row and commit nothing."""
        with self.engine.connect() as connection:
            connection.execute(text(f"INSERT INTO {self.schema}.host VALUES (1)"))
        self.rows += 1


def insert_by_session(host: Host) -> None:
    """Insert in the host's transaction."""
    with Session(host.engine) as session:
        host.client.insert(session, Note())
        session.commit()


def insert_many_by_session(host: Host) -> None:
    """Insert many, by INSERT and COPY, in the host's transaction."""
    with Session(host.engine) as session:
        host.client.insert_many(session, [(Note(str(number)), UNIQUE) for number in range(3)])
        host.client.insert_many_fast(session, [Note(), Note()])
        session.commit()


def insert_by_engine(host: Host) -> None:
    """Insert in a transaction of riverrun's."""
    host.client.insert(host.engine, Note())
    insert(host.engine, Note(), schema=host.schema)


def insert_many_by_engine(host: Host) -> None:
    """Insert many in a transaction of riverrun's."""
    host.client.insert_many(host.engine, [(Note(str(number)), UNIQUE) for number in range(3)])
    host.client.insert_many_fast(host.engine, [Note(), Note()])
    insert_many_fast(host.engine, [Note()], schema=host.schema)


def walk(host: Host) -> None:
    """Do what a worker does, with the verbs."""
    where = host.engine
    first = insert(where, Note(), InsertOpts(queue="walk"), schema=host.schema).job
    [job] = claim(where, "walk", client_id="me", schema=host.schema)
    assert (job.id, job.args) == (first.id, {"words": Note().words})
    complete(where, job, metadata={"a": "€"}, schema=host.schema)
    done = get(where, job.id, schema=host.schema)
    assert (done.state, done.metadata["a"]) == ("completed", "€")
    assert done.attempted_at is not None
    assert done.finalized_at is not None
    other = insert(where, Note(), InsertOpts(queue="walk"), schema=host.schema).job
    assert cancel(where, other.id, schema=host.schema).state == "cancelled"
    assert count_jobs(where, schema=host.schema)


def services(host: Host) -> None:
    """Do what a client does for itself."""
    where, schema = host.engine, host.schema
    name = sign_on(where, "me", hostname="here", pid=1, dead_s=30, schema=schema)
    beat(where, name, hostname="here", pid=1, queues=["default"], schema=schema)
    term = elect(where, name, ttl_s=30, schema=schema)
    assert term is not None
    assert resign(where, term, schema=schema)
    notify_inserted(where, ["default"], schema=schema)


def maintain(host: Host) -> None:
    """Migrate and reindex."""
    assert migrate(host.engine, schema=host.schema) == []
    migrate(host.engine, line=Line.riverrun, to=0, schema=host.schema)
    assert len(migrate(host.engine, schema=host.schema)) == LATEST[Line.riverrun]
    assert reindex(host.engine, "river_job_kind", timeout_s=30, schema=host.schema)


def undo(host: Host) -> None:
    """Insert in a test's transaction."""
    before = len(count_jobs(host.engine, schema=host.schema))
    with rolled_back(host.engine) as session:
        host.client.insert(session, Note(), InsertOpts(queue="rolled_back"))
        session.commit()
    assert len(count_jobs(host.engine, schema=host.schema)) == before


def work(host: Host) -> None:
    """Run a client whose worker fails once after it wrote."""
    client = Client(
        host.engine,
        schema=host.schema,
        workers=host.workers,
        queues={"worked": QueueConfig(max_workers=2)},
        backoff=Constant(delay=0),
    )
    events = client.subscribe(JobCompleted)
    with client:
        ids = {client.insert(host.engine, Note(), InsertOpts(queue="worked")).job.id}
        if not host.only_ours:
            with Session(host.engine) as session:
                ids.add(client.insert(session, Note(), InsertOpts(queue="worked")).job.id)
                session.commit()
            host.rows += len(ids)
        if host.is_in_autocommit and not host.only_ours:
            host.write()
        while ids:
            ids.remove(events.get(timeout=DEADLINE_S).job.id)


OPERATIONS = (
    insert_by_session,
    insert_by_engine,
    insert_many_by_session,
    insert_many_by_engine,
    walk,
    services,
    maintain,
    undo,
    work,
)
# Those with statements of the host's own; some engines cannot execute these.
NEED_TO_WRITE = (insert_by_session, insert_many_by_session, maintain, undo)


@pytest.fixture(params=ENGINES)
def host(request: pytest.FixtureRequest, engine: Engine, schema: str) -> Iterator[Host]:
    """A host with an engine of each kind."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {schema}.host (number integer)"))
    own = ENGINES[request.param](engine.url)
    # What is read only or has RawCursor executes none of a Session's statements. SQLAlchemy 2.0
    # does not commit a Session's work in a transaction that a listener has begun.
    only_ours = "read only" in request.param.casefold() or request.param in {
        "RawCursor",
        "a transaction begun by SQLAlchemy",
    }
    yield Host(own, schema, only_ours=only_ours)
    own.dispose()


def test_each_operation_leaves_connections_as_they_were(host: Host, engine: Engine) -> None:
    """Whatever riverrun does, it does on any engine, and each connection keeps its settings."""
    autocommit = host.is_in_autocommit and not host.only_ours
    before = snapshots(host.engine)
    expected = next(iter(before.values()))
    for operation in OPERATIONS:
        if host.only_ours and operation in NEED_TO_WRITE:
            continue
        if autocommit:
            host.write()
        operation(host)
        if autocommit:
            host.write()
        for found in snapshots(host.engine).values():
            assert found == expected, operation.__name__
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT count(*) FROM {host.schema}.host")).scalar()
    assert rows == host.rows
