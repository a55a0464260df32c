"""A PostgreSQL server for all tests, a database for this run, a fresh schema for each test."""

import os
import random
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.schema import CreateSchema, DropSchema

from databases import own_database
from riverrun.embedded import Cluster, PostgresNotFound
from schemas import AWKWARD, DECOY, ORIGINAL, dump, migrations_of, new_schema_name, quoted

IN_CI = bool(os.environ.get("CI"))

# No deadline: a busy machine is no bug. No example database: a run depends on the code alone.
hypothesis.settings.register_profile("dev", deadline=None, database=None)
hypothesis.settings.register_profile("ci", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("ci" if IN_CI else "dev")

_HERE = Path(__file__).parent

# Hundreds of tests start Python. Where it may not keep what it compiles, as in many containers,
# each start compiles SQLAlchemy and all else again: about three times the time of the import.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell without job control has what it starts in the background ignore Ctrl-C and Ctrl-\, and so
# would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


# Those whose files take longest come first: what begins last is waited for by all. Each has a file
# that takes a minute. tests/unit fills what is left.
FIRST = ("faults", "interop", "browser", "docs", "cli", "ext", "typing", "runtime")
LAST = ("unit",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shuffle`."""
    parser.addoption("--shuffle", metavar="SEED", help="run the tests in the order of this seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests in order: the slowest folders first, or as `--shuffle` has it."""
    seed = config.getoption("shuffle")
    if seed is None:
        items.sort(key=lambda item: _rank(item.path.relative_to(_HERE).parts[0]))
        return
    # Modules and the tests of each; not all in one, or each test would make its module's fixtures.
    order = random.Random(seed)
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    shuffled = list(modules.values())
    order.shuffle(shuffled)
    for tests in shuffled:
        order.shuffle(tests)
    items[:] = [item for tests in shuffled for item in tests]


def _rank(folder: str) -> int:
    if folder in FIRST:
        return FIRST.index(folder)
    return len(FIRST) + LAST.index(folder) + 1 if folder in LAST else len(FIRST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logged be sent to the process that reports, lone surrogates and all."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A server to make databases on: TEST_DATABASE_URL's, else one of our own."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield _with_psycopg(given)
        return
    cluster = Cluster(settings={"max_prepared_transactions": 20})  # two-phase sessions
    try:
        cluster.start()
    except PostgresNotFound as problem:
        if IN_CI:
            pytest.fail(str(problem))
        pytest.skip(str(problem))
    try:
        yield cluster.url()
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def database_url(server_url: str) -> Iterator[str]:
    """An empty database, dropped after the last test."""
    name = f"riverrun_test_{os.getpid()}"
    server = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        if AWKWARD:
            connection.execute(text(f"ALTER DATABASE {name} SET search_path = {DECOY}, public"))
    url = make_url(server_url).set(database=name)
    try:
        if AWKWARD:
            database = create_engine(url)
            with database.begin() as connection:
                connection.execute(CreateSchema(DECOY))
            database.dispose()
        yield url.render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            # By force: a test that left a connection open has failed already.
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the run's database."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def copied(engine: Engine) -> Callable[[str], str]:
    """Returns the statements that make a schema of a name as the migrations have made another."""
    from riverrun.migrations import migrate

    with engine.begin() as connection:
        connection.execute(CreateSchema(ORIGINAL))
        migrate(connection, schema=ORIGINAL)
    script = dump(engine.url, ORIGINAL) or migrations_of(ORIGINAL)
    return lambda name: script.replace(ORIGINAL, quoted(name))


@pytest.fixture
def schema(engine: Engine, copied: Callable[[str], str]) -> Iterator[str]:
    """The name of a schema with every table of River's and riverrun's, all empty."""
    name = new_schema_name("t")
    with engine.begin() as connection:
        connection.connection.cursor().execute(copied(name))
    yield name
    with engine.begin() as connection:
        # A transaction that a test forgot would keep us waiting; so it is an error instead.
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(DropSchema(name, cascade=True))


@pytest.fixture
def empty_database(server_url: str) -> Iterator[Engine]:
    """A database of the test's own, in which there is nothing yet."""
    with own_database(server_url) as engine:
        yield engine


def _with_psycopg(url: str) -> str:
    # SQLAlchemy 2.0 takes a bare postgresql:// for psycopg2, which is not among our dependencies.
    if url.startswith("postgres://"):
        url = url.replace("postgres", "postgresql", 1)
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)
