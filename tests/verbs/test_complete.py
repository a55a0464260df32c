"""Complete, fail, snooze and discard: what each writes, and when it writes nothing."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from factories import insert_job
from riverrun.db.transactions import joined
from riverrun.errors import AttemptLost, InvalidOption, JobCancel, JobCancelledRemotely, JobSnooze
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.outcome import MAX_ERROR_CHARS, MAX_TRACE_CHARS, Outcome
from riverrun.queries import record as record_queries
from riverrun.verbs import cancel, claim, complete, discard, fail, get, snooze
from riverrun.verbs.complete import merge_metadata, record
from riverrun.verbs.give_back import give_back
from riverrun.verbs.record import batches, record_free
from verbs.joins import KINDS, commit, opened, wait_until_blocked
from waiting import DEADLINE_S

START = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
NOW = START + timedelta(seconds=30)


def after(seconds: float) -> Callable[[JobRow, datetime], datetime]:
    """Return a backoff of always so many seconds."""
    return lambda job, now: now + timedelta(seconds=seconds)


@pytest.fixture
def job(engine: Engine, schema: str) -> JobRow:
    """A job claimed by `me` for its third attempt, after two failures."""
    insert_job(
        engine,
        schema,
        attempt=2,
        max_attempts=5,
        scheduled_at=START,
        attempted_by=["a", "b"],
        errors=[{"attempt": 1}, {"attempt": 2}],
        metadata_={"kept": 1},
    )
    [job] = claim(engine, client_id="me", schema=schema, now=START)
    return job


def changes(engine: Engine, schema: str, job: JobRow) -> dict[str, Any]:
    """Return the columns in which the row differs from the claimed job."""
    new, old = attrs.asdict(get(engine, job.id, schema=schema)), attrs.asdict(job)
    return {name: value for name, value in new.items() if value != old[name]}


@pytest.mark.parametrize("kind", KINDS)
def test_complete(engine: Engine, schema: str, job: JobRow, kind: str) -> None:
    """Completing a job changes its state and finalized_at, and nothing else."""
    with opened(kind, engine) as where:
        assert complete(where, job, schema=schema, now=NOW) is JobState.completed
        commit(where)
    assert changes(engine, schema, job) == {"state": "completed", "finalized_at": NOW}


def test_complete_merges_metadata(engine: Engine, schema: str, job: JobRow) -> None:
    """What an attempt staged is merged into the metadata, other keys kept."""
    complete(engine, job, metadata={"output": [1], "kept": 2}, schema=schema, now=NOW)
    assert changes(engine, schema, job) == {
        "state": "completed",
        "finalized_at": NOW,
        "metadata": {"kept": 2, "output": [1]},
    }


@pytest.mark.parametrize("metadata", [{"a": "\x00"}, {"a": float("nan")}, {"a": object()}, "x"])
def test_complete_refuses_metadata(engine: Engine, schema: str, job: JobRow, metadata: Any) -> None:
    """Metadata that jsonb cannot hold is refused, and the job stays running."""
    with pytest.raises(InvalidOption, match="metadata"):
        complete(engine, job, metadata=metadata, schema=schema)
    assert changes(engine, schema, job) == {}


@pytest.mark.parametrize(
    ("delay_s", "state"), [(5, "available"), (5.001, "retryable"), (3600, "retryable")]
)
def test_fail(engine: Engine, schema: str, job: JobRow, delay_s: float, state: str) -> None:
    """A failed job keeps its attempt and waits; if due within 5 s, without the scheduler."""
    error = ValueError("no")
    assert fail(engine, job, error, backoff=after(delay_s), schema=schema, now=NOW) == state
    entry = {
        "at": "2026-05-01T12:00:00.123456Z",
        "attempt": 3,
        "error": "ValueError: no",
        "trace": "ValueError: no\n",
    }
    assert changes(engine, schema, job) == {
        "state": state,
        "scheduled_at": NOW + timedelta(seconds=delay_s),
        "errors": (*job.errors, entry),
    }


def test_first_error_of_a_job(engine: Engine, schema: str) -> None:
    """The first error replaces a null by an array."""
    insert_job(engine, schema)
    [job] = claim(engine, client_id="me", schema=schema)
    fail(engine, job, ValueError("no"), schema=schema)
    assert [entry["attempt"] for entry in get(engine, job.id, schema=schema).errors] == [1]


def test_fail_at_the_last_attempt(engine: Engine, schema: str, job: JobRow) -> None:
    """A job that fails its last attempt is discarded, with the error."""
    last = attrs.evolve(job, max_attempts=3)
    assert fail(engine, last, ValueError("no"), schema=schema, now=NOW) is JobState.discarded
    changed = changes(engine, schema, job)
    assert len(changed.pop("errors")) == 3
    assert changed == {"state": "discarded", "finalized_at": NOW}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JobCancel("enough"), "JobCancelError: enough"),
        (JobCancelledRemotely(), "JobCancelError: job cancelled remotely"),
    ],
)
def test_fail_by_cancel(
    engine: Engine, schema: str, job: JobRow, error: Exception, text: str
) -> None:
    """A worker's cancel is final whatever attempts are left, and is recorded as Go does."""
    assert fail(engine, job, error, schema=schema, now=NOW) is JobState.cancelled
    changed = changes(engine, schema, job)
    assert changed.pop("errors")[-1]["error"] == text
    assert changed == {"state": "cancelled", "finalized_at": NOW}


@pytest.mark.parametrize(
    ("delay_s", "state"), [(0, "available"), (5, "available"), (6, "scheduled")]
)
@pytest.mark.parametrize("by_error", [True, False])
def test_snooze(
    engine: Engine, schema: str, job: JobRow, delay_s: float, state: str, by_error: bool
) -> None:
    """A snoozed job gets its attempt back, waits, counts the snooze and records no error."""
    if by_error:
        assert fail(engine, job, JobSnooze(delay_s), schema=schema, now=NOW) == state
    else:
        assert snooze(engine, job, timedelta(seconds=delay_s), schema=schema, now=NOW) == state
    assert changes(engine, schema, job) == {
        "state": state,
        "attempt": 2,
        "scheduled_at": NOW + timedelta(seconds=delay_s),
        "metadata": {"kept": 1, "snoozes": 1},
    }


def test_snooze_by_the_database_clock(engine: Engine, schema: str, job: JobRow) -> None:
    """A delay counts from the database's time."""
    with engine.begin() as connection:
        now = connection.execute(select(func.now())).scalar_one()
        snooze(connection, job, 60, schema=schema)
    assert get(engine, job.id, schema=schema).scheduled_at == now + timedelta(seconds=60)


def test_snooze_for_ever(engine: Engine, schema: str, job: JobRow) -> None:
    """A delay beyond the calendar gives the last time of the calendar."""
    assert snooze(engine, job, 1e15, schema=schema) is JobState.scheduled
    assert get(engine, job.id, schema=schema).scheduled_at.year == 9999


@pytest.mark.parametrize("delay", [-1, float("nan")])
def test_snooze_refuses(engine: Engine, schema: str, job: JobRow, delay: float) -> None:
    """An invalid delay is refused, and the job stays running."""
    with pytest.raises(InvalidOption, match="delay"):
        snooze(engine, job, delay, schema=schema)
    assert changes(engine, schema, job) == {}


@pytest.mark.parametrize("now", [NOW, None])
def test_discard(engine: Engine, schema: str, job: JobRow, now: datetime | None) -> None:
    """A discarded job is final with its error, whatever attempts are left."""
    assert discard(engine, job, ValueError("no"), schema=schema, now=now) is JobState.discarded
    changed = changes(engine, schema, job)
    entry = changed.pop("errors")[-1]
    assert (entry["attempt"], entry["error"]) == (3, "ValueError: no")
    assert changed.pop("finalized_at") == now or now is None
    assert changed == {"state": "discarded"}


ENDINGS: dict[str, Callable[..., object]] = {
    "complete": complete,
    "complete with metadata": lambda *a, **k: complete(*a, metadata={"b": 2}, **k),
    "fail": lambda *a, **k: fail(*a, ValueError("no"), **k),
    "snooze": lambda *a, **k: snooze(*a, 60, **k),
    "discard": lambda *a, **k: discard(*a, ValueError("no"), **k),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("lost", ["attempt", *(state for state in JobState if state != "running")])
def test_fence(engine: Engine, schema: str, job: JobRow, lost: str, ending: str) -> None:
    """An attempt that is not the job's current one writes nothing and raises."""
    if lost == "attempt":
        values: dict[str, Any] = {"attempt": 4}
    else:
        values = {"state": lost, "finalized_at": START if JobState(lost).is_final else None}
    with engine.begin() as connection:
        connection.execute(
            update(Job).where(Job.id == job.id).values(**values),
            execution_options={"schema_translate_map": {None: schema}},
        )
    before = get(engine, job.id, schema=schema)
    with pytest.raises(AttemptLost, match=f"job {job.id} .* attempt 3"):
        ENDINGS[ending](engine, job, schema=schema)
    assert get(engine, job.id, schema=schema) == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_fence_of_a_deleted_job(engine: Engine, schema: str, job: JobRow, ending: str) -> None:
    """A deleted job cannot be completed or failed."""
    with engine.begin() as connection:
        connection.execute(
            delete(Job).where(Job.id == job.id),
            execution_options={"schema_translate_map": {None: schema}},
        )
    with pytest.raises(AttemptLost):
        ENDINGS[ending](engine, job, schema=schema)


def test_second_completion_is_lost(engine: Engine, schema: str, job: JobRow) -> None:
    """Of two completions of one attempt the second is refused."""
    complete(engine, job, schema=schema)
    with pytest.raises(AttemptLost):
        complete(engine, job, schema=schema)


class Unsayable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("broken")


def test_records_what_jsonb_refuses(engine: Engine, schema: str, job: JobRow) -> None:
    """NUL and half surrogate pairs in an error's text are written as escapes."""
    fail(engine, job, ValueError("a\x00b \ud800 é"), schema=schema)
    entry = get(engine, job.id, schema=schema).errors[-1]
    assert entry["error"] == r"ValueError: a\x00b \ud800 é"


def test_cuts_what_is_huge(engine: Engine, schema: str, job: JobRow) -> None:
    """A huge text keeps both ends, and says how much is missing between."""

    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        raise ValueError("begin" + "x" * 3_000_000 + "end")

    with pytest.raises(ValueError, match="begin") as caught:
        deep(300)
    fail(engine, job, caught.value, schema=schema)
    entry = get(engine, job.id, schema=schema).errors[-1]
    assert entry["error"].startswith("ValueError: beginx")
    assert entry["error"].endswith("xend")
    assert "characters cut" in entry["error"]
    assert len(entry["error"]) < MAX_ERROR_CHARS + 100
    assert "characters cut" in entry["trace"]
    assert len(entry["trace"]) < MAX_TRACE_CHARS + 100


def test_records_errors_without_a_text(engine: Engine, schema: str, job: JobRow) -> None:
    """An error whose __str__ raises is recorded by its class."""
    fail(engine, job, Unsayable(), schema=schema)
    entry = get(engine, job.id, schema=schema).errors[-1]
    assert entry["error"].startswith("Unsayable: ")
    assert "RuntimeError" in entry["error"]


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ("complete", "completed"),
        ("complete with metadata", "completed"),
        ("fail", "cancelled"),
        ("snooze", "cancelled"),
        ("discard", "discarded"),
        ("give back", "cancelled"),
    ],
)
def test_cancel_mark_wins_over_another_try(
    engine: Engine, schema: str, job: JobRow, ending: str, state: str
) -> None:
    """A running job marked for cancelling is cancelled where it would have run again."""
    assert cancel(engine, job.id, schema=schema, now=NOW).state is JobState.running
    if ending == "give back":
        given = give_back(engine, [job], client_id="me", schema=schema)
        assert given == {job.id: JobState.cancelled}
    else:
        assert ENDINGS[ending](engine, job, schema=schema, now=NOW) == state
    after_it = get(engine, job.id, schema=schema)
    assert (after_it.state, after_it.attempt, after_it.scheduled_at) == (state, 3, START)
    assert after_it.finalized_at is not None
    assert "cancel_attempted_at" in after_it.metadata
    assert len(after_it.errors) == (3 if ending in ("fail", "discard") else 2)


@pytest.mark.parametrize("ending", ["fail", "snooze"])
def test_cancel_mark_while_it_is_being_ended(
    engine: Engine, schema: str, job: JobRow, ending: str
) -> None:
    """A cancel counts even if the outcome had to wait for its transaction."""
    results: list[object] = []

    def run(tx: Any) -> None:
        results.append(ENDINGS[ending](tx, job, schema=schema))
        tx.commit()

    with engine.connect() as operator, engine.connect() as worker:
        cancel(operator, job.id, schema=schema)
        pid = worker.execute(select(func.pg_backend_pid())).scalar_one()
        thread = threading.Thread(target=run, args=(worker,))
        thread.start()
        wait_until_blocked(engine, pid)
        operator.commit()
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the ending did not end"
    assert results == [JobState.cancelled]


@pytest.mark.parametrize("commits", [True, False])
def test_one_commit_with_the_hosts_writes(
    engine: Engine, schema: str, job: JobRow, commits: bool
) -> None:
    """The application's write and the completion are committed together or not at all."""
    ledger = Table("ledger", MetaData(), Column("amount", Integer))
    ledger.create(engine)
    try:
        with Session(engine) as session:
            session.execute(ledger.insert().values(amount=7))
            complete(session, job, schema=schema)
            if commits:
                session.commit()
        with engine.connect() as connection:
            amounts = connection.execute(select(ledger.c.amount)).scalars().all()
    finally:
        ledger.drop(engine)
    assert amounts == ([7] if commits else [])
    state = get(engine, job.id, schema=schema).state
    assert state is (JobState.completed if commits else JobState.running)


@pytest.mark.parametrize("merge_anyway", [True, False])
def test_record_many(engine: Engine, schema: str, merge_anyway: bool) -> None:
    """Outcomes of many jobs are written together, each only at its own attempt."""
    for _ in range(6):
        insert_job(engine, schema)
    jobs = claim(engine, limit=6, client_id="me", schema=schema)
    done, staged, failed, over, moved, gone = jobs
    complete(engine, over, schema=schema)
    with engine.begin() as connection:
        connection.execute(
            delete(Job).where(Job.id == gone.id),
            execution_options={"schema_translate_map": {None: schema}},
        )

    def outcome(job: JobRow, state: JobState, **rest: Any) -> Outcome:
        return Outcome(job_id=job.id, attempt=job.attempt, state=state, **rest)

    outcomes = [
        outcome(gone, JobState.completed, metadata={"a": 1}),
        outcome(moved, JobState.completed),
        outcome(over, JobState.available, scheduled_at=NOW, give_back=True, metadata={"a": 1}),
        outcome(failed, JobState.retryable, scheduled_at=NOW),
        outcome(staged, JobState.completed, metadata={"a": 1}),
        outcome(done, JobState.completed),
    ]
    outcomes[1] = attrs.evolve(outcomes[1], attempt=2)
    before = get(engine, over.id, schema=schema)
    with joined(engine, schema) as transaction:
        states = record(transaction, outcomes, merge_anyway=merge_anyway, now=NOW)
    expected = {
        done.id: JobState.completed,
        staged.id: JobState.completed,
        failed.id: JobState.retryable,
    }
    if merge_anyway:
        expected[over.id] = JobState.completed
        before = attrs.evolve(before, metadata={"a": 1})
    assert states == expected
    assert get(engine, over.id, schema=schema) == before
    assert get(engine, moved.id, schema=schema).state is JobState.running
    assert get(engine, staged.id, schema=schema).metadata == {"a": 1}


@pytest.mark.parametrize("change", ["complete", "fail", "snooze", "discard", "merge"])
def test_a_claim_that_was_undone_ends_no_later_one(
    engine: Engine, schema: str, change: str
) -> None:
    """After a failover undid a claim, its outcome does not change the job that others claimed.

    Both claims have the same number.
    """
    insert_job(engine, schema)
    [first] = claim(engine, client_id="first", schema=schema)
    with engine.begin() as connection:
        connection.execution_options(schema_translate_map={None: schema}).execute(
            update(Job).values(
                state=JobState.available, attempt=0, attempted_at=None, attempted_by=None
            )
        )
    [second] = claim(engine, client_id="second", schema=schema)
    assert first.attempt == second.attempt
    changes: dict[str, Callable[[], object]] = {
        "complete": lambda: complete(engine, first, schema=schema),
        "fail": lambda: fail(engine, first, ValueError(), schema=schema),
        "snooze": lambda: snooze(engine, first, 60, schema=schema),
        "discard": lambda: discard(engine, first, ValueError(), schema=schema),
        "merge": lambda: merge_metadata(engine, first, {"a": 1}, schema=schema),
    }
    with pytest.raises(AttemptLost):
        changes[change]()
    assert get(engine, second.id, schema=schema) == second
    assert complete(engine, second, schema=schema) is JobState.completed


def test_rows_that_were_locked_for_a_moment(
    engine: Engine, schema: str, job: JobRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that was locked, and is free at the look why it was not written, is written then."""
    [batch] = batches(
        [Outcome(job_id=job.id, attempt=job.attempt, state=JobState.completed)], merge_anyway=True
    )
    unwritten_jobs = record_queries.unwritten_jobs
    with engine.connect() as other:
        lock = text(f"SELECT 1 FROM {schema}.river_job WHERE id = :id FOR UPDATE")
        other.execute(lock, {"id": job.id})

        def let_go() -> Any:
            other.rollback()
            return unwritten_jobs()

        monkeypatch.setattr(record_queries, "unwritten_jobs", let_go)
        with joined(engine, schema) as transaction:
            recorded = record_free(transaction, batch)
    assert recorded.states == {job.id: JobState.completed}
    assert not recorded.locked
    assert not recorded.ignored
    assert get(engine, job.id, schema=schema).state is JobState.completed
