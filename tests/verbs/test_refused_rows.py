"""Maintenance changes all rows but those that the database refuses to change."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from factories import insert_job
from riverrun.clock import Clock
from riverrun.db.refusals import UpdateIgnored
from riverrun.jobs.states import JobState
from riverrun.maintenance.job_cleaner import JobCleaner
from riverrun.maintenance.job_scheduler import JobScheduler
from riverrun.policies.backoff import RiverBackoff
from riverrun.verbs import get
from riverrun.verbs.beat import beat, touch
from riverrun.verbs.claim_apart import claim_apart, claim_jobs_but
from riverrun.verbs.clean import clean, clean_queues, forget_clients
from riverrun.verbs.give_back import give_back_unchanged, read_running
from riverrun.verbs.rescue import rescue
from riverrun.verbs.schedule import schedule

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
KEPT: dict[str, Any] = {"cancelled_s": 1, "completed_s": 1, "discarded_s": 1}


def run(engine: Engine, *statements: str) -> None:
    """Execute statements as they are, in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def refuse(engine: Engine, schema: str, state: str, when: str) -> None:
    """Make a trigger of the application's refuse jobs of kind `poison`."""
    row = "OLD" if when == "DELETE" else "NEW"
    run(
        engine,
        f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" BEGIN IF {row}.kind = 'poison' THEN"
        f" RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF; RETURN {row}; END $$",
        f"CREATE TRIGGER refuse BEFORE {when} ON {schema}.river_job"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()",
    )


def states_of(engine: Engine, schema: str, ids: list[int]) -> set[JobState]:
    """Return the states that jobs have."""
    return {get(engine, job_id, schema=schema).state for job_id in ids}


def left(engine: Engine, schema: str) -> list[int]:
    """Return the ids of all jobs."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT id FROM {schema}.river_job ORDER BY id")
        return list(found.scalars())


def old(engine: Engine, schema: str, count: int, **values: Any) -> list[int]:
    """Insert jobs that were completed long ago."""
    return [
        insert_job(engine, schema, state="completed", finalized_at=LONG_AGO, **values)
        for _ in range(count)
    ]


def test_a_job_that_is_referred_to(engine: Engine, schema: str, caplog: Any) -> None:
    """A job that a host's table refers to is kept, all others deleted; the log names the table."""
    ids = old(engine, schema, 20)
    run(
        engine,
        f"CREATE TABLE {schema}.receipt (job_id bigint REFERENCES {schema}.river_job)",
        f"INSERT INTO {schema}.receipt VALUES ({ids[7]})",
    )
    assert clean(engine, schema=schema, **KEPT) == 19
    assert left(engine, schema) == [ids[7]]
    assert "jobs not deleted: 1" in caplog.text
    assert "table receipt, constraint receipt_job_id_fkey" in caplog.text


@pytest.mark.parametrize("state", ["P0001", "54000", "XX000", "57014", "MY001", "42501", "40P01"])
def test_a_job_that_a_trigger_keeps(engine: Engine, schema: str, state: str) -> None:
    """Whatever SQLSTATE one deletion is refused with, the others are made."""
    old(engine, schema, 10)
    [bad] = old(engine, schema, 1, kind="poison")
    old(engine, schema, 10)
    refuse(engine, schema, state, "DELETE")
    assert clean(engine, schema=schema, **KEPT) == 20
    assert left(engine, schema) == [bad]


def test_a_trigger_that_refuses_all_deletions(engine: Engine, schema: str) -> None:
    """An error for which no row is at fault, such as a missing privilege, is raised."""
    old(engine, schema, 200, kind="poison")
    refuse(engine, schema, "42501", "DELETE")
    with pytest.raises(Exception, match="no"):
        clean(engine, schema=schema, **KEPT)


def test_jobs_that_are_locked(engine: Engine, schema: str) -> None:
    """A locked row waits for the next turn, whatever is refused beside it."""
    locked, referred, *_ = old(engine, schema, 10)
    run(
        engine,
        f"CREATE TABLE {schema}.receipt (job_id bigint REFERENCES {schema}.river_job)",
        f"INSERT INTO {schema}.receipt VALUES ({referred})",
    )
    with engine.begin() as host:
        host.exec_driver_sql(f"SELECT FROM {schema}.river_job WHERE id = {locked} FOR UPDATE")
        assert clean(engine, schema=schema, **KEPT) == 8
    assert clean(engine, schema=schema, **KEPT) == 1


def test_a_host_s_transaction_is_the_host_s(engine: Engine, schema: str) -> None:
    """On a connection that was handed over, the error is raised: its transaction is over."""
    [job_id] = old(engine, schema, 1)
    run(
        engine,
        f"CREATE TABLE {schema}.receipt (job_id bigint REFERENCES {schema}.river_job)",
        f"INSERT INTO {schema}.receipt VALUES ({job_id})",
    )
    with engine.connect() as connection, pytest.raises(Exception, match="receipt"):
        clean(connection, schema=schema, **KEPT)


def test_the_cleaner_goes_on_behind_what_it_cannot_delete(
    engine: Engine, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that cannot be deleted do not fill every batch, and are tried again later."""
    monkeypatch.setattr("riverrun.maintenance.job_cleaner.BATCH", 3)
    bad = old(engine, schema, 7, kind="poison")
    good = old(engine, schema, 7)
    refuse(engine, schema, "23503", "DELETE")
    clock = Clock()
    cleaner = JobCleaner(engine, **KEPT, schema=schema, clock=clock, rng=random.Random(1))
    for _ in range(5):
        cleaner.turn()
    assert left(engine, schema) == bad
    assert not set(good) & set(left(engine, schema))
    run(engine, f"DROP TRIGGER refuse ON {schema}.river_job")
    cleaner._again_at = 0.0
    while cleaner.turn():
        pass
    assert left(engine, schema) == []


def test_queues_and_clients(engine: Engine, schema: str) -> None:
    """A queue or a dead client that cannot be deleted, or is locked, keeps no other."""
    run(
        engine,
        f"INSERT INTO {schema}.river_queue (name, updated_at)"
        " SELECT 'q' || n, '2020-01-01' FROM generate_series(1, 9) n",
        f"CREATE TABLE {schema}.menu (queue text REFERENCES {schema}.river_queue)",
        f"INSERT INTO {schema}.menu VALUES ('q4')",
    )
    for number in range(6):
        beat(engine, f"c{number}", hostname="h", pid=1, queues=[], schema=schema, now=LONG_AGO)
    run(
        engine,
        f"CREATE TABLE {schema}.host (client text REFERENCES {schema}.riverrun_client)",
        f"INSERT INTO {schema}.host VALUES ('c2')",
    )
    with engine.begin() as host:
        host.exec_driver_sql(f"SELECT FROM {schema}.river_queue WHERE name = 'q5' FOR UPDATE")
        host.exec_driver_sql(f"SELECT FROM {schema}.riverrun_client WHERE id = 'c3' FOR UPDATE")
        assert clean_queues(engine, idle_s=60, schema=schema) == 7
        assert forget_clients(engine, dead_s=60, schema=schema) == 4
    assert clean_queues(engine, idle_s=60, schema=schema) == 1
    assert forget_clients(engine, dead_s=60, schema=schema) == 1


@pytest.mark.parametrize("state", ["P0001", "54000", "XX000", "57014", "MY001"])
def test_scheduling(engine: Engine, schema: str, state: str, caplog: Any) -> None:
    """A job that cannot be scheduled keeps no other from it, and does not fill every batch."""
    values: dict[str, Any] = {"state": "scheduled", "scheduled_at": LONG_AGO}
    [bad] = [insert_job(engine, schema, kind="poison", **values)]
    good = [insert_job(engine, schema, **values) for _ in range(9)]
    refuse(engine, schema, state, "UPDATE")
    done = schedule(engine, schema=schema)
    assert (done.available, done.refused, done.more) == (9, (bad,), False)
    assert states_of(engine, schema, good) == {JobState.available}
    assert "jobs not scheduled: 1" in caplog.text
    scheduler = JobScheduler(engine, schema=schema, clock=Clock(), rng=random.Random(1))
    assert scheduler.run_once().refused == (bad,)
    assert scheduler.run_once().refused == ()


def lost(engine: Engine, schema: str, **values: Any) -> int:
    """Insert a job that a dead client runs."""
    return insert_job(
        engine,
        schema,
        state="running",
        attempt=1,
        attempted_at=LONG_AGO,
        attempted_by=["dead"],
        **values,
    )


@pytest.mark.parametrize("state", ["P0001", "54000", "XX000", "57014", "MY001"])
def test_rescuing(engine: Engine, schema: str, state: str, caplog: Any) -> None:
    """A job that cannot be rescued keeps no other, and no dead client, from it."""
    beat(engine, "dead", hostname="h", pid=1, queues=[], schema=schema, now=LONG_AGO)
    beat(engine, "gone", hostname="h", pid=1, queues=[], schema=schema, now=LONG_AGO)
    good = [lost(engine, schema) for _ in range(4)]
    bad = lost(engine, schema, kind="poison")
    good += [lost(engine, schema) for _ in range(4)]
    refuse(engine, schema, state, "UPDATE")
    policy: dict[str, Any] = {
        "dead_s": 20,
        "stuck_s": None,
        "backoff": lambda kind: RiverBackoff(),
        "schema": schema,
    }
    done = rescue(engine, **policy)
    assert sorted(done.states) == good
    assert f"jobs not rescued: 1, such as [{bad}]" in caplog.text
    with engine.connect() as connection:
        clients = connection.exec_driver_sql(f"SELECT id FROM {schema}.riverrun_client")
        assert list(clients.scalars()) == ["dead"]
    assert rescue(engine, **policy, after_id=bad).states == {}


def test_rescuing_what_is_refused_for_its_metadata(engine: Engine, schema: str) -> None:
    """A job that can be rescued without the count of its rescues is."""
    beat(engine, "dead", hostname="h", pid=1, queues=[], schema=schema, now=LONG_AGO)
    job_id = lost(engine, schema, max_attempts=1)
    run(
        engine,
        f"ALTER TABLE {schema}.river_job ADD CHECK (NOT metadata ? 'river:rescue_count')",
    )
    backoff = RiverBackoff()
    rescue(engine, dead_s=20, stuck_s=None, backoff=lambda kind: backoff, schema=schema)
    job = get(engine, job_id, schema=schema)
    assert (job.state, len(job.errors)) == (JobState.discarded, 1)


def test_rescuing_large_jobs(engine: Engine, schema: str) -> None:
    """Large jobs are read a few at a time, and all are rescued in the end."""
    beat(engine, "dead", hostname="h", pid=1, queues=[], schema=schema, now=LONG_AGO)
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=1_500_000))
    ids = [lost(engine, schema, metadata_={"noise": noise}) for _ in range(5)]
    backoff, turns, after, rescued = RiverBackoff(), 0, 0, []
    while turns < 9:
        turns += 1
        done = rescue(
            engine,
            dead_s=20,
            stuck_s=None,
            backoff=lambda kind: backoff,
            after_id=after,
            schema=schema,
        )
        rescued += sorted(done.states)
        after = done.last_id
        if not done.more:
            break
    assert rescued == ids
    assert turns > 1


def test_touching(engine: Engine, schema: str, caplog: Any) -> None:
    """A row that is locked, or refused, keeps no other's attempt time from being renewed."""
    ids = [lost(engine, schema) for _ in range(5)]
    bad = lost(engine, schema, kind="poison")
    refuse(engine, schema, "MY001", "UPDATE")
    jobs = [get(engine, job_id, schema=schema) for job_id in [*ids, bad]]
    with engine.begin() as host:
        host.exec_driver_sql(f"SELECT FROM {schema}.river_job WHERE id = {ids[0]} FOR UPDATE")
        touch(engine, [(job.id, job.attempt) for job in jobs], schema=schema)
    renewed = [
        job.id
        for job in (get(engine, each.id, schema=schema) for each in jobs)
        if job.attempted_at and job.attempted_at > LONG_AGO + timedelta(days=1)
    ]
    assert renewed == ids[1:]
    assert "attempt time not renewed: 1" in caplog.text


def test_giving_back_unknown(engine: Engine, schema: str) -> None:
    """Locked or refused rows keep no other unknown running job from being given back."""
    locked, *good = [lost(engine, schema) for _ in range(5)]
    bad = lost(engine, schema, kind="poison")
    refuse(engine, schema, "MY001", "UPDATE")
    with engine.begin() as host:
        host.exec_driver_sql(f"SELECT FROM {schema}.river_job WHERE id = {locked} FOR UPDATE")
        rows = read_running(engine, client_id="dead", schema=schema)
        given = give_back_unchanged(engine, rows, client_id="dead", schema=schema)
    assert sorted(given) == good
    assert states_of(engine, schema, [locked, bad]) == {JobState.running}


@pytest.mark.parametrize("state", ["P0001", "54000", "XX000", "57014", "MY001", "23503"])
def test_claiming(engine: Engine, schema: str, state: str) -> None:
    """A job that cannot be claimed is found, and keeps no other from being claimed."""
    good = [insert_job(engine, schema) for _ in range(5)]
    bad = insert_job(engine, schema, kind="poison")
    good += [insert_job(engine, schema) for _ in range(5)]
    other = insert_job(engine, schema, queue="other")
    refuse(engine, schema, state, "UPDATE")
    claim: dict[str, Any] = {"limit": 20, "client_id": "me", "schema": schema}
    found = claim_apart(engine, "default", [good[0]], **claim)
    assert [job.id for job in found.jobs] == good[1:]
    assert [job_id for job_id, _ in found.refused] == [bad]
    passed = {job_id for job_id, _ in found.refused}
    assert [job.id for job in claim_jobs_but(engine, "default", passed, **claim)] == good[:1]
    assert states_of(engine, schema, [bad, other]) == {JobState.available}


def test_claiming_what_a_trigger_ignores(engine: Engine, schema: str) -> None:
    """A job whose claim a trigger ignores is found; one that is locked is not taken for such."""
    ignored = [insert_job(engine, schema, kind="poison") for _ in range(2)]
    locked, *good = [insert_job(engine, schema) for _ in range(4)]
    run(
        engine,
        f"CREATE FUNCTION {schema}.ignore() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER ignore BEFORE UPDATE ON {schema}.river_job FOR EACH ROW"
        f" WHEN (NEW.kind = 'poison') EXECUTE FUNCTION {schema}.ignore()",
    )
    claim: dict[str, Any] = {"limit": 20, "client_id": "me", "schema": schema}
    with engine.begin() as host:
        host.exec_driver_sql(f"SELECT FROM {schema}.river_job WHERE id = {locked} FOR UPDATE")
        found = claim_apart(engine, "default", [], **claim)
    assert [job.id for job in found.jobs] == good
    assert {job_id: type(error) for job_id, error in found.refused} == dict.fromkeys(
        ignored, UpdateIgnored
    )


def test_claiming_where_no_job_is_at_fault(engine: Engine, schema: str) -> None:
    """An error for which no job is at fault, such as a missing privilege, is raised."""
    for _ in range(60):
        insert_job(engine, schema, kind="poison")
    refuse(engine, schema, "42501", "UPDATE")
    with pytest.raises(Exception, match="no"):
        claim_apart(engine, "default", [], limit=60, client_id="me", schema=schema)
