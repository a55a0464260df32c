"""What is wrong now."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from factories import insert_job
from riverrun.errors import InvalidOption
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.verbs import Problem, ProblemKind, overview
from verbs.joins import KINDS, opened
from verbs.test_odd_rows import ODD, change


def ago(**since: float) -> datetime:
    """Return the time so long ago."""
    return datetime.now(UTC) - timedelta(**since)


def write(engine: Engine, statement: str) -> None:
    """Write a row by hand."""
    with engine.begin() as connection:
        connection.connection.cursor().execute(statement)


def lead(engine: Engine, schema: str, expires: str = "now() + '1 h'") -> None:
    """Write the row of a leader."""
    write(
        engine,
        f"INSERT INTO {schema}.river_leader (elected_at, expires_at, leader_id, name)"
        f" VALUES (now() - interval '9 days', {expires}, 'one', 'default')",
    )


def live(engine: Engine, schema: str, name: str, silent: str = "0 s", queues: str = "{}") -> None:
    """Write the row of a client that works queues."""
    write(
        engine,
        f"INSERT INTO {schema}.riverrun_client (id, hostname, pid, queues, heartbeat_at)"
        f" VALUES ('{name}', 'host', 1, '{queues}', now() - interval '{silent}')",
    )


def problems(where: Any, schema: str | None, **options: Any) -> list[Problem]:
    """Return what is wrong."""
    return overview(where, dead_s=30, schema=schema, **options)


def kinds(found: list[Problem]) -> list[tuple[str, str | None]]:
    """Return what is wrong with what."""
    return [(each.kind.value, each.subject) for each in found]


@pytest.fixture
def healthy(engine: Engine, schema: str) -> Iterator[str]:
    """A schema with a leader, a client that works two queues, and jobs in every state."""
    lead(engine, schema)
    live(engine, schema, "one", queues="{default,mail}")
    for state in JobState:
        for _ in range(6):
            insert_job(engine, schema, state=state, scheduled_at=datetime.now(UTC))
    return schema


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_well(engine: Engine, healthy: str, kind: str) -> None:
    """Where all is well there is no problem, on any kind of transaction."""
    change(engine, healthy, "state = 'completed', finalized_at = now()", range(1, 99))
    with opened(kind, engine) as where:
        assert problems(where, healthy) == []


def test_no_leader(engine: Engine, schema: str) -> None:
    """A missing leader is shown, with the end of the last term if it is known."""
    assert problems(engine, schema) == [Problem(kind=ProblemKind.no_leader)]
    lead(engine, schema, "now() - interval '1 h'")
    [found] = problems(engine, schema)
    assert found.kind is ProblemKind.no_leader
    assert found.age_s == pytest.approx(3_600, abs=60)
    assert found.since is not None


def test_silent_clients(engine: Engine, healthy: str) -> None:
    """A client without a heartbeat for longer than `dead_s` is named, the longest silent first."""
    change(engine, healthy, "state = 'completed', finalized_at = now()", range(1, 99))
    live(engine, healthy, "two", silent="90 s")
    live(engine, healthy, "three", silent="200 s")
    found = problems(engine, healthy)
    assert kinds(found) == [("silent_client", "three"), ("silent_client", "two")]
    assert found[1].age_s == pytest.approx(90, abs=20)
    assert kinds(problems(engine, healthy, limit=1)) == [("silent_client", "three")]


def test_queues_without_a_worker_and_long_waits(engine: Engine, healthy: str) -> None:
    """A queue that no client works is named, and one that is worked if a job waits for long."""
    early = ago(hours=2)
    change(engine, healthy, "state = 'completed', finalized_at = now()", range(1, 99))
    for queue in ("mail", "lost", "paused"):
        insert_job(engine, healthy, queue=queue, scheduled_at=early, priority=4)
        insert_job(engine, healthy, queue=queue, scheduled_at=ago(hours=-9))
    insert_job(engine, healthy, queue="later", scheduled_at=ago(hours=-9))
    paused = (
        "INSERT INTO {}.river_queue (name, paused_at, updated_at) VALUES ('paused', now(), now())"
    )
    write(engine, paused.format(healthy))
    found = problems(engine, healthy)
    assert kinds(found) == [("unworked_queue", "lost"), ("long_wait", "mail")]
    assert [each.since for each in found] == [early, early]
    assert found[0].age_s == pytest.approx(7_200, abs=300)
    assert kinds(problems(engine, healthy, wait_s=9_999)) == [("unworked_queue", "lost")]


def test_overdue_jobs(engine: Engine, healthy: str) -> None:
    """Scheduled and retryable jobs that nobody made available are counted by state."""
    early = ago(hours=2)
    change(engine, healthy, "state = 'completed', finalized_at = now()", range(1, 99))
    for number in range(4):
        at = early + timedelta(minutes=number)
        queue = f"q{number % 2}"
        insert_job(
            engine, healthy, state="scheduled", scheduled_at=at, queue=queue, priority=1 + number
        )
    insert_job(engine, healthy, state="retryable", scheduled_at=early)
    insert_job(engine, healthy, state="retryable", scheduled_at=ago(hours=-9))
    insert_job(engine, healthy, state="pending", scheduled_at=early)
    found = problems(engine, healthy)
    assert {(each.kind, each.state): (each.count, each.capped) for each in found} == {
        (ProblemKind.overdue, JobState.retryable): (1, False),
        (ProblemKind.overdue, JobState.scheduled): (4, False),
    }
    assert {each.since for each in found} == {early}
    assert problems(engine, healthy, late_s=timedelta(days=1)) == []


def test_many_overdue_jobs(engine: Engine, healthy: str) -> None:
    """Overdue jobs are counted up to a limit, and that is shown."""
    write(
        engine,
        f"INSERT INTO {healthy}.river_job (kind, args, max_attempts, state, scheduled_at)"
        " SELECT 'k', '{}', 9, 'scheduled', now() - interval '1 h' FROM generate_series(1, 1005)",
    )
    [found] = [each for each in problems(engine, healthy) if each.kind is ProblemKind.overdue]
    assert (found.count, found.capped) == (1_000, True)


def test_recent_rescues(engine: Engine, healthy: str) -> None:
    """Rescues of the last hour are counted; texts that are no time are not."""
    change(engine, healthy, "state = 'completed', finalized_at = now()", range(1, 99))
    for at in (
        ago().strftime("%Y-%m-%dT%H:%M:%SZ"),
        ago(minutes=30).strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
        ago(hours=3).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "zzz",
        "",
        None,
        7,
    ):
        errors = [{"error": "Stuck job rescued by JobRescuer", "at": at}]
        insert_job(
            engine,
            healthy,
            state="completed",
            metadata_={"river:rescue_count": 1},
            errors=errors,
        )
    assert problems(engine, healthy) == [Problem(kind=ProblemKind.rescued, count=2)]
    found = problems(engine, healthy, rescued_s=4 * 3_600)
    assert found == [Problem(kind=ProblemKind.rescued, count=3)]
    found = problems(engine, healthy, rescued_s=900)
    assert found == [Problem(kind=ProblemKind.rescued, count=1)]


def test_kinds_that_fail(engine: Engine, healthy: str) -> None:
    """A kind of which a fifth fails is named, the one with most failures first."""
    change(engine, healthy, "state = 'completed', finalized_at = now()", range(1, 99))
    later = ago(hours=-9)
    for kind, failed, done in (("a", 5, 20), ("b", 5, 21), ("c", 4, 0), ("d", 9, 0)):
        for number in range(failed):
            state = JobState.discarded if number % 2 else JobState.retryable
            insert_job(engine, healthy, kind=kind, state=state, scheduled_at=later)
        for _ in range(done):
            insert_job(engine, healthy, kind=kind, state=JobState.completed)
    assert problems(engine, healthy) == [
        Problem(kind=ProblemKind.failing_kind, subject="d", count=9, of=9),
        Problem(kind=ProblemKind.failing_kind, subject="a", count=5, of=25),
    ]


def test_the_worst_comes_first(engine: Engine, schema: str) -> None:
    """Problems are in the order of their kinds."""
    early = ago(hours=2)
    live(engine, schema, "one", silent="1 h", queues="{default}")
    rescued = [{"error": "Stuck job rescued by JobRescuer", "at": ago().isoformat()}]
    for number in range(6):
        insert_job(
            engine,
            schema,
            state=JobState.discarded,
            errors=rescued,
            metadata_={"river:rescue_count": 1 + number},
        )
    insert_job(engine, schema, scheduled_at=early)
    live(engine, schema, "two", queues="{mail}")
    insert_job(engine, schema, scheduled_at=early, queue="mail")
    insert_job(engine, schema, scheduled_at=early, state="scheduled")
    assert [each.kind for each in problems(engine, schema)] == list(ProblemKind)


@pytest.mark.parametrize("state", ["available", "scheduled", "retryable", "running", "completed"])
def test_odd_rows(engine: Engine, schema: str, state: str) -> None:
    """Rows that no client writes do not keep the problems from being read."""
    jobs = {name: insert_job(engine, schema) for name in ("nothing", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    for at in ("infinity", "-infinity", "4000-01-01 BC", "20000-01-01"):
        jobs[at] = insert_job(engine, schema)
        change(engine, schema, f"scheduled_at = '{at}', attempted_at = '{at}'", [jobs[at]])
    final = ", finalized_at = 'infinity'" if state == "completed" else ""
    change(engine, schema, f"state = '{state}'{final}", list(jobs.values()))
    live(engine, schema, "one")
    write(engine, f"UPDATE {schema}.riverrun_client SET heartbeat_at = '-infinity'")
    lead(engine, schema, "'-infinity'")
    found = problems(engine, schema)
    assert kinds(found)[:2] == [("no_leader", None), ("silent_client", "one")]
    if state == "available":
        assert kinds(found)[2:] == [("unworked_queue", "default")]
    if state in ("scheduled", "retryable"):
        assert found[2].kind is ProblemKind.overdue


def test_states_of_a_later_river(empty_database: Engine) -> None:
    """A job in a state that only a later River knows is no problem."""
    early = ago(hours=2)
    migrate(empty_database)
    frozen = insert_job(empty_database, scheduled_at=early)
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {frozen}"))
    assert kinds(problems(empty_database, None)) == [("no_leader", None)]


@pytest.mark.parametrize(
    "options",
    [
        {"dead_s": -1},
        {"wait_s": float("inf")},
        {"late_s": "5"},
        {"rescued_s": None},
        {"limit": 0},
        {"limit": 1_001},
    ],
    ids=str,
)
def test_refuses_odd_durations(engine: Engine, schema: str, options: dict[str, Any]) -> None:
    """A duration or limit out of range is refused; a very long one is not."""
    with pytest.raises(InvalidOption, match=next(iter(options))):
        overview(engine, **{"dead_s": 30, **options}, schema=schema)
    long: dict[str, Any] = dict.fromkeys(["dead_s", "wait_s", "late_s", "rescued_s"], 1e300)
    assert kinds(overview(engine, **long, schema=schema)) == [("no_leader", None)]
