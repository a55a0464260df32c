"""Act on jobs and queues for a user, with a record in the same transaction."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from factories import T0, insert_job
from riverrun import Client, JobListParams, UserActed
from riverrun.errors import InvalidOption, QueueNotFound
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.verbs import (
    act_on,
    act_on_listed,
    act_on_queue,
    get,
    list_actions,
    list_jobs,
    newest_job_id,
    record_action,
)
from riverrun.verbs.queues import upsert_queues
from riverrun.wire.topics import Topic
from verbs.joins import JOINED, KINDS, commit, listening, opened

DISCARDED = JobListParams(states=["discarded"])
CHANGED = {
    "retry": {"scheduled", "retryable", "pending", "completed", "cancelled", "discarded"},
    "cancel": {"available", "running", "scheduled", "retryable", "pending"},
    "delete": set(JobState) - {"running"},
}


def states(engine: Engine, schema: str) -> dict[int, JobState]:
    """Return the state of each job."""
    return {job.id: job.state for job in list_jobs(engine, schema=schema).jobs}


@pytest.mark.parametrize("action", CHANGED)
@pytest.mark.parametrize("kind", KINDS)
def test_an_action_and_its_record(engine: Engine, schema: str, action: str, kind: str) -> None:
    """An action changes the jobs that it applies to, and its record holds exactly those."""
    jobs = {
        insert_job(engine, schema, state=state, scheduled_at=T0): state.value for state in JobState
    }
    changed = [job_id for job_id, state in jobs.items() if state in CHANGED[action]]
    with opened(kind, engine) as where:
        done = act_on(where, action, [*jobs, 4711], user="ada", schema=schema)
        commit(where)
    assert (list(done.job_ids), done.count, done.recorded) == (changed, len(changed), True)
    [row] = list_actions(engine, schema=schema)
    assert (row.user, row.action, row.count) == ("ada", action, len(changed))
    assert (list(row.job_ids), row.filter) == (changed, {})
    assert abs(datetime.now(UTC) - row.created_at) < timedelta(hours=1)
    after = states(engine, schema)
    for job_id, before in jobs.items():
        if job_id not in changed:
            assert after[job_id] == before
        elif action == "delete":
            assert job_id not in after
        elif action == "retry":
            assert after[job_id] is JobState.available
        else:
            marked = "cancel_attempted_at" in get(engine, job_id, schema=schema).metadata
            assert marked
            assert after[job_id] == ("running" if before == "running" else "cancelled")


@pytest.mark.parametrize("kind", JOINED)
def test_a_rollback_undoes_both(engine: Engine, schema: str, kind: str) -> None:
    """Neither the action, nor its record, nor its event and log record outlive a rollback."""
    job_id = insert_job(engine, schema, state="discarded")
    seen: list[UserActed] = []
    with opened(kind, engine) as where:
        act_on(where, "retry", [job_id], user="ada", schema=schema, on_done=seen.append)
        where.rollback()
    assert states(engine, schema) == {job_id: JobState.discarded}
    assert (list_actions(engine, schema=schema), seen) == ([], [])


def test_all_that_match_in_batches(engine: Engine, schema: str) -> None:
    """Batches change each job once, none newer than the user saw, and say how many remain."""
    old = [insert_job(engine, schema, state="discarded") for _ in range(5)]
    other = insert_job(engine, schema, state="cancelled")
    newest = newest_job_id(engine, schema=schema)
    new = insert_job(engine, schema, state="discarded")

    def act(after: int | None, **options: Any) -> Any:
        return act_on_listed(
            engine,
            "retry",
            DISCARDED,
            newest_id=newest,
            user="ada",
            after=after,
            limit=2,
            schema=schema,
            **options,
        )

    tried = act(None, dry_run=True)
    assert (tried.count, tried.remaining, tried.recorded) == (2, 3, False)
    assert list_actions(engine, schema=schema) == []
    first = act(None)
    assert (first.count, first.remaining, first.cursor) == (2, 3, old[1])
    second = act(first.cursor)
    assert (second.count, second.remaining, second.cursor) == (2, 1, old[3])
    third = act(second.cursor)
    assert (third.count, third.remaining, third.cursor) == (1, 0, None)
    assert [list(row.job_ids) for row in list_actions(engine, schema=schema)] == [
        old[4:],
        old[2:4],
        old[:2],
    ]
    [row] = list_actions(engine, limit=1, schema=schema)
    assert row.filter == {"states": ["discarded"], "newest_id": newest}
    found = states(engine, schema)
    assert {found[job_id] for job_id in old} == {JobState.available}
    assert (found[other], found[new]) == (JobState.cancelled, JobState.discarded)


def test_what_stays_selected_is_tried_once(engine: Engine, schema: str) -> None:
    """Running jobs that are only marked as cancelled do not fill every batch."""
    jobs = [insert_job(engine, schema, state="running") for _ in range(3)]
    params = JobListParams(states=["running"])
    after, seen = None, []
    while True:
        done = act_on_listed(
            engine, "cancel", params, newest_id=99, user="u", after=after, limit=2, schema=schema
        )
        seen += done.job_ids
        if (after := done.cursor) is None:
            break
    assert seen == jobs


def test_actions_continue(engine: Engine, schema: str) -> None:
    """A list of actions continues after the last one of another."""
    for number in range(3):
        record_action(engine, user="ada", action=f"do_{number}", count=number, schema=schema)
    [last] = list_actions(engine, limit=1, schema=schema)
    rest = list_actions(engine, after=last.id, schema=schema)
    assert [row.action for row in (last, *rest)] == ["do_2", "do_1", "do_0"]


def test_a_taken_unique_key_stays_taken(engine: Engine, schema: str) -> None:
    """A retry skips a job whose unique key another job holds, and does not record it."""
    key: dict[str, Any] = {"unique_key": b"k", "unique_states": [JobState.available]}
    lost = insert_job(engine, schema, state="discarded", **key)
    insert_job(engine, schema, state="available", **key)
    done = act_on(engine, "retry", [lost], user="ada", schema=schema)
    assert (done.count, done.job_ids) == (0, [])
    [row] = list_actions(engine, schema=schema)
    assert (row.count, row.job_ids) == (0, ())


def test_clients_are_notified(engine: Engine, schema: str) -> None:
    """A retry wakes the clients of the queue, and a cancel reaches the client of a running job."""
    lost = insert_job(engine, schema, state="discarded", queue="mail")
    running = insert_job(engine, schema, state="running")
    with listening(engine, f"{schema!s}.{Topic.insert}") as inserts:
        act_on(engine, "retry", [lost], user="ada", schema=schema)
        assert [json.loads(text) for text in inserts()] == [{"queue": "mail"}]
    with listening(engine, f"{schema!s}.{Topic.control}") as controls:
        act_on(engine, "cancel", [running], user="ada", schema=schema)
        assert [json.loads(text)["job_id"] for text in controls()] == [running]


def test_a_queue(engine: Engine, schema: str) -> None:
    """Pausing and resuming a queue is recorded; a queue that is missing leaves no record."""
    upsert_queues(engine, ["a", "b"], schema=schema)
    assert act_on_queue(engine, "pause", "a", user="ada", schema=schema)[0].paused_at is not None
    assert len(act_on_queue(engine, "resume", "*", user="bob", schema=schema)) == 2
    with pytest.raises(QueueNotFound):
        act_on_queue(engine, "pause", "c", user="ada", schema=schema)
    rows = list_actions(engine, schema=schema)
    assert [(row.user, row.action, row.count, row.filter) for row in rows] == [
        ("bob", "resume_queue", 2, {"queue": "*"}),
        ("ada", "pause_queue", 1, {"queue": "a"}),
    ]


def test_a_clients_event_and_a_log_record(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After the commit there is an event and a log record with user and ids, without args."""
    job_id = insert_job(engine, schema, state="discarded", args={"secret": "hunter2"})
    client = Client(engine, schema=schema)
    seen: list[Any] = []
    client.listen(seen.append, UserActed)
    upsert_queues(engine, ["mail"], schema=schema)
    params = JobListParams(states=["available"], metadata={"secret": "hunter2"})
    with caplog.at_level(logging.INFO, logger="riverrun"), Session(engine) as session:
        client.act_on(session, "retry", [job_id], user="ada")
        client.act_on_queue(session, "pause", "mail", user="ada")
        client.act_on_listed(session, "delete", params, newest_id=job_id, user="ada")
        assert (seen, caplog.records) == ([], [])
        session.commit()
    assert seen == [
        UserActed(user="ada", action="retry", count=1, job_ids=(job_id,)),
        UserActed(user="ada", action="pause_queue", count=1),
    ]
    records = [record for record in caplog.records if record.name == "riverrun.verbs.actions"]
    assert [record.getMessage() for record in records] == [
        "retry by ada changed 1",
        "pause_queue by ada changed 1",
    ]
    assert records[0].__dict__["job_ids"] == (job_id,)
    assert "hunter2" not in caplog.text + str([record.__dict__ for record in records])
    assert "hunter2" not in str(list_actions(engine, schema=schema))


def test_a_filter_that_may_hold_data_is_recorded_by_name(engine: Engine, schema: str) -> None:
    """The record of an action by metadata says so, without the value."""
    insert_job(engine, schema, metadata_={"who": "hunter2"})
    since = datetime(2026, 1, 1, tzinfo=UTC)
    params = JobListParams(
        metadata={"who": "hunter2"}, args={"name": "Ada"}, since=since, kinds=["greet"]
    )
    act_on_listed(engine, "cancel", params, newest_id=2**63 - 1, user="ada", schema=schema)
    [row] = list_actions(engine, schema=schema)
    assert row.count == 1
    assert row.filter == {
        "metadata": None,
        "args": None,
        "since": since.isoformat(),
        "kinds": ["greet"],
        "newest_id": 2**63 - 1,
    }


def test_without_version_3_actions_are_done_and_not_recorded(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On a database at version 2 an action is done and logged, and says that it has no record."""
    migrate(engine, line="riverrun", to=2, schema=schema)
    job_id = insert_job(engine, schema, state="discarded")
    with caplog.at_level(logging.INFO, logger="riverrun.verbs.actions"):
        done = act_on(engine, "retry", [job_id], user="ada", schema=schema)
    assert (done.count, done.recorded) == (1, False)
    assert caplog.messages == ["retry by ada changed 1"]
    assert list_actions(engine, schema=schema) == []
    assert not record_action(engine, user="ada", action="insert", count=1, schema=schema)


LISTED: dict[str, Any] = {"params": DISCARDED, "newest_id": 1, "user": "ada"}


def searched(**filters: Any) -> dict[str, Any]:
    """Return the arguments for jobs that a list finds within a window alone."""
    return {**LISTED, "params": JobListParams(**filters)}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda tx: act_on(tx, "retry", [1], user=""), "user"),
        (lambda tx: act_on(tx, "retry", [1], user="a\nb"), "user"),
        (lambda tx: act_on(tx, "retry", [1], user="u" * 201), "user"),
        (lambda tx: act_on(tx, "retry", [1], user=None), "user"),  # type: ignore[arg-type]
        (lambda tx: act_on(tx, "explode", [1], user="ada"), "action"),
        (lambda tx: act_on(tx, "retry", [-1], user="ada"), "job_ids"),
        (lambda tx: act_on(tx, "retry", range(1_001), user="ada"), "job_ids"),
        (lambda tx: act_on_queue(tx, "delete", "mail", user="ada"), "action"),
        (lambda tx: act_on_listed(tx, "retry", **{**LISTED, "params": JobListParams()}), "filter"),
        (lambda tx: act_on_listed(tx, "retry", **searched(client="c")), "client"),
        (lambda tx: act_on_listed(tx, "retry", **searched(text="t", kinds=["k"])), "text"),
        (lambda tx: act_on_listed(tx, "retry", **searched(kinds=["k"], window=5)), "window"),
        (lambda tx: act_on_listed(tx, "retry", **LISTED, limit=1_001), "limit"),
        (lambda tx: act_on_listed(tx, "retry", **{**LISTED, "newest_id": -1}), "newest_id"),
        (lambda tx: act_on_listed(tx, "retry", **LISTED, after=-5), "after"),
        (lambda tx: record_action(tx, user="ada", action="", count=1), "action"),
        (lambda tx: record_action(tx, user="ada", action="x", count=-1), "count"),
    ],
)
def test_bad_values_are_refused(call: Callable[[Engine], object], match: str) -> None:
    """A value that is out of range is refused before the database sees anything."""
    nowhere = create_engine("postgresql+psycopg://nowhere@127.0.0.1:1/nowhere")
    with pytest.raises(InvalidOption, match=match):
        call(nowhere)


def test_a_refused_job_holds_up_no_other(engine: Engine, schema: str) -> None:
    """A job that another table refers to is named, and the others of its batch are deleted."""
    jobs = [insert_job(engine, schema, state="discarded") for _ in range(7)]
    with engine.begin() as connection:
        connection.execute(
            text(f"CREATE TABLE {schema}.receipt (job_id bigint REFERENCES {schema}.river_job)")
        )
        connection.execute(
            text(f"INSERT INTO {schema}.receipt VALUES (:one), (:two)"),
            {"one": jobs[2], "two": jobs[6]},
        )
    done = act_on_listed(engine, "delete", DISCARDED, newest_id=jobs[-1], user="ada", schema=schema)
    assert sorted(done.refused) == [jobs[2], jobs[6]]
    assert sorted(done.job_ids) == [jobs[n] for n in (0, 1, 3, 4, 5)]
    assert sorted(states(engine, schema)) == [jobs[2], jobs[6]]
    rows = list_actions(engine, schema=schema)
    assert sorted(job_id for row in rows for job_id in row.job_ids) == sorted(done.job_ids)
    again = act_on(engine, "delete", [jobs[2]], user="ada", schema=schema)
    assert (again.count, list(again.refused)) == (0, [jobs[2]])
    with Session(engine) as session, pytest.raises(IntegrityError):
        act_on(session, "delete", [jobs[2]], user="ada", schema=schema)


def test_a_batch_is_few_statements(engine: Engine, schema: str) -> None:
    """A batch takes as many statements for two jobs as for a hundred."""
    counts = []
    own = create_engine(engine.url)
    statements: list[str] = []
    event.listen(own, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for number in (2, 100):
        with engine.begin() as connection:
            for _ in range(number):
                insert_job(connection, schema, state="discarded")
        statements.clear()
        newest = newest_job_id(engine, schema=schema)
        done = act_on_listed(own, "delete", DISCARDED, newest_id=newest, user="ada", schema=schema)
        assert done.count == number
        counts.append(len(statements))
    own.dispose()
    assert counts[0] == counts[1] <= 6
