"""The rights that docs/permissions.md grants are enough for what it says."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from docs.reader import ROOT, blocks
from riverrun import (
    Client,
    InsertOpts,
    Interval,
    JobArgs,
    JobListParams,
    JobState,
    PeriodicJob,
    QueueConfig,
    UniqueKey,
    UniqueOpts,
    Workers,
)
from riverrun.events import JobCompleted
from riverrun.maintenance.sampler import Sampler
from riverrun.migrations import migrate, validate
from riverrun.testing.clock import FrozenClock
from riverrun.verbs import (
    count_jobs,
    get_leader,
    list_actions,
    list_clients,
    list_periodic,
    list_samples,
)
from waiting import DEADLINE_S, until

GRANTS = {
    block.file.removesuffix(".sql"): block.body
    for block in blocks(ROOT / "docs" / "permissions.md")
    if block.file
}

workers = Workers()


@attrs.frozen
class Step(JobArgs, kind="step"):
    number: int = 0


@workers.register
def step(args: Step) -> None:
    """Fail for a negative number."""
    if args.number < 0:
        raise ValueError("negative")


As = Callable[[str], Engine]


@pytest.fixture
def as_role(empty_database: Engine) -> Iterator[As]:
    """Return an engine whose connections have the rights of a role of the page."""
    migrate(empty_database)
    engines: list[Engine] = []
    name = empty_database.url.database
    roles: list[str] = []

    def make(role: str) -> Engine:
        full = f"{name}_{role}"
        with empty_database.begin() as connection:
            connection.execute(text(f"CREATE ROLE {full}"))
            roles.append(full)
            for line in GRANTS[role].splitlines():
                if line.startswith("GRANT"):
                    connection.execute(text(line.replace(f"TO {role};", f"TO {full}")))
        engines.append(
            create_engine(empty_database.url, connect_args={"options": f"-c role={full}"})
        )
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
    with empty_database.begin() as connection:
        for role in roles:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))


def test_every_role_of_the_page_is_tried() -> None:
    """Each block of the page is a role that a test below connects as."""
    assert set(GRANTS) == {"inserts", "inserts_unique", "works", "leads", "operates", "reads"}


def test_inserts(as_role: As) -> None:
    """A role that inserts has jobs' rows back, by each way of inserting."""
    engine = as_role("inserts")
    client = Client(engine)
    assert client.insert(engine, Step(1)).job.id == 1
    assert len(client.insert_many(engine, [Step(2), Step(3)])) == 2
    assert client.insert_many_fast(engine, [Step(4)]) == 1
    assert client.get(engine, 1).state is JobState.available
    with pytest.raises(ProgrammingError, match="permission denied"):
        client.delete(engine, 1)


def test_inserts_unique(as_role: As) -> None:
    """A role that inserts unique jobs meets duplicates, whatever is done with them."""
    engine = as_role("inserts_unique")
    client = Client(engine)
    once = InsertOpts(unique=UniqueOpts(by_args=True))
    first, second = (client.insert(engine, Step(1), once) for _ in range(2))
    assert second.skipped_as_duplicate
    assert second.job.id == first.job.id
    later = datetime.now(UTC) + timedelta(hours=1)
    for action in ("replace", "reschedule", "debounce"):
        key = UniqueKey(f"key-{action}", on_conflict=action)
        for number in (2, 3):
            client.insert(engine, Step(number), InsertOpts(unique=key, scheduled_at=later))


def test_works(as_role: As, empty_database: Engine) -> None:
    """A worker that never leads claims, completes, fails, beats, pauses and leaves."""
    engine = as_role("works")
    client = Client(
        engine,
        workers=workers,
        queues={"default": QueueConfig(max_workers=2)},
        leader_election_disabled=True,
    )
    with client.subscribe(JobCompleted) as events, client:
        inserter = Client(empty_database)
        failed = inserter.insert(empty_database, Step(-1)).job.id
        inserter.insert(empty_database, Step(1))
        events.get(timeout=DEADLINE_S)
        until(lambda: client.get(engine, failed).errors, "the failure")
        assert client.healthy
    assert list_clients(empty_database) == []


def test_leads(as_role: As, empty_database: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that leads inserts what recurs, and misses no right."""
    engine = as_role("leads")
    client = Client(
        engine,
        workers=workers,
        queues={"default": QueueConfig(max_workers=2)},
        periodic_jobs=[
            PeriodicJob(Interval(3_600), lambda: Step(7), id="seven", run_on_start=True)
        ],
        reindexer_schedule=None,
    )
    with client.subscribe(JobCompleted) as events, client:
        assert events.get(timeout=DEADLINE_S).job.args == {"number": 7}
        assert get_leader(engine) == client.id
    assert not [record for record in caplog.records if "42501" in record.getMessage()]
    assert not [record for record in caplog.records if "ProgrammingError" in record.getMessage()]


def test_a_leader_that_may_not_write_samples(
    as_role: As, empty_database: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A role of a page before samples leads all the same, and logs once what it may not do."""
    engine = as_role("leads")
    with empty_database.begin() as connection:
        role = f"{empty_database.url.database}_leads"
        connection.execute(text(f"REVOKE ALL ON riverrun_sample FROM {role}"))
    clock = FrozenClock()
    sampler = Sampler(engine, schema=None, clock=clock, rng=random.Random(1))
    for _ in range(3):
        assert not sampler.turn()
        clock.advance(timedelta(hours=1))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, messages
    assert "no samples are taken for charts" in messages[0]
    assert "permission denied for table riverrun_sample" in messages[0]


def test_operates(as_role: As, empty_database: Engine) -> None:
    """An operator cancels, retries, deletes, updates, pauses and resumes."""
    engine = as_role("operates")
    inserter = Client(empty_database)
    first, second = (inserter.insert(empty_database, Step(n)).job.id for n in (1, 2))
    with empty_database.begin() as connection:
        connection.execute(
            text("INSERT INTO river_queue (name, updated_at) VALUES ('default', now())")
        )
    client = Client(engine)
    assert client.cancel(engine, first).state is JobState.cancelled
    assert client.retry(engine, first).state is JobState.available
    client.update(engine, first, metadata={"a": 1})
    client.delete(engine, first)
    assert [job.id for job in client.delete_many(engine, JobListParams(ids=[second]))] == [second]
    client.queues.pause(engine, "default")
    client.queues.resume(engine, "default")
    client.act_on(engine, "cancel", [first], user="ada")
    with empty_database.begin() as connection:
        connection.execute(
            text("INSERT INTO riverrun_periodic (id, next_run_at) VALUES ('p', now())")
        )
    client.pause_periodic(engine, "p")
    client.run_periodic_now(engine, "p")
    assert [row.user for row in list_actions(engine)] == ["ada"]
    assert list_samples(engine).kept


def test_reads(as_role: As, empty_database: Engine) -> None:
    """A role that reads sees jobs, queues, clients, the leader and the schema's versions."""
    engine = as_role("reads")
    Client(empty_database).insert(empty_database, Step(1))
    client = Client(engine)
    assert len(client.list_jobs(engine).jobs) == 1
    assert client.queues.list(engine) == []
    assert len(count_jobs(engine)) == 1
    assert (list_clients(engine), get_leader(engine)) == ([], None)
    assert (list_actions(engine), list_periodic(engine)) == ([], [])
    assert list_samples(engine).kept
    with engine.connect() as connection:
        assert not validate(connection, None)
    with pytest.raises(ProgrammingError, match="permission denied"):
        client.cancel(engine, 1)
