"""Maintenance that the leader, of either side, does for all clients."""

import pytest
from sqlalchemy import text

from interop.conformance.fleet import BOTH, PYTHON, Fleet
from interop.conformance.registry import differs, passed
from interop.rpc import Process
from waiting import until

UNKNOWN = "maintenance_unregistered_kind"
RESCUES = {"rescue_after_ms": 60_000, "queue": "elsewhere"}


@pytest.fixture(params=BOTH)
def leader(request: pytest.FixtureRequest, fleet: Fleet) -> Process:
    """The process whose client will lead."""
    return fleet.side(request.param)


def stuck(fleet: Fleet, count: int, kind: str = "conformance_echo") -> list[int]:
    """Insert jobs that have been running for a day."""
    rows = fleet.rows(
        "INSERT INTO river_job (args, kind, max_attempts, state, attempt, attempted_at,"
        " attempted_by, scheduled_at)"
        " SELECT '{}', cast(:kind AS text), 25, 'running', 1, now() - interval '1 day',"
        " ARRAY['gone'], now() - interval '1 day'"
        " FROM generate_series(1, :count) RETURNING id",
        kind=kind,
        count=count,
    )
    return [row.id for row in rows]


def rescued(fleet: Fleet, leader: Process, job: int) -> None:
    """Wait until a lost job of unknown kind is rescued. River discards it, riverrun retries it."""
    state = "SELECT state::text FROM river_job WHERE id = :id"
    until(lambda: fleet.one(state, id=job) != "running", f"job {job} rescued", 60)
    expected = {"discarded"} if leader is fleet.go else {"available", "retryable"}
    assert fleet.one(state, id=job) in expected


@passed("each final state has its retention, or none")
def test_maintenance_job_cleaner_retention(fleet: Fleet, leader: Process) -> None:
    """Final jobs are deleted once the retention of their state is over, if it has one."""
    for state in ("cancelled", "completed", "discarded"):
        for age in ("1 hour", "1 second"):
            fleet.do(
                "INSERT INTO river_job (args, kind, max_attempts, state, finalized_at)"
                " VALUES ('{}', :kind, 1, cast(:state AS river_job_state),"
                " now() - cast(:age AS interval))",
                kind=f"{state} {age}",
                state=state,
                age=age,
            )
    leader.call(
        "start",
        client_id="cleans",
        cancelled_job_retention_ms=600_000,
        completed_job_retention_ms=-1,
        discarded_job_retention_ms=600_000,
    )
    kinds = "SELECT array_agg(kind ORDER BY kind) FROM river_job"
    left = ["cancelled 1 second", "completed 1 hour", "completed 1 second", "discarded 1 second"]
    until(lambda: fleet.one(kinds) == left, "old jobs gone")


@passed("queues that no client worked for a day are deleted")
def test_maintenance_queue_cleaner_keeps_active_queues(fleet: Fleet, leader: Process) -> None:
    """Queues that no client worked for a day are deleted, and no others."""
    # No row for the leader's own queue: it renews that while it cleans, and River's DELETE, having
    # waited for the renewal, would at times delete the renewed row.
    for name, age in (("stale", "25 hours"), ("idle", "1 hour")):
        fleet.do(
            "INSERT INTO river_queue (name, updated_at)"
            " VALUES (:name, now() - cast(:age AS interval))",
            name=name,
            age=age,
        )
    leader.call("start", client_id="cleans")
    names = "SELECT array_agg(name ORDER BY name) FROM river_queue"
    until(lambda: fleet.one(names) == ["default", "idle"], "the stale queue gone")


@passed("missing indexes, and those with a leftover beside them, are skipped")
def test_maintenance_reindexer_skips_artifacts(fleet: Fleet, leader: Process) -> None:
    """Indexes are rebuilt, except missing ones and those with an artifact of a failed rebuild."""
    for name in ("rebuilt_idx", "artifact_idx", "artifact_idx_ccnew1"):
        fleet.do(f"CREATE INDEX {name} ON river_job (kind)")

    def node(name: str) -> int:
        asked = "SELECT pg_relation_filenode(cast(:name AS regclass))"
        return int(fleet.one(asked, name=f"{fleet.schema}.{name}"))

    try:
        before = {name: node(name) for name in ("rebuilt_idx", "artifact_idx")}
        leader.call(
            "start",
            client_id="reindexes",
            reindexer_index_names=["missing_idx", "artifact_idx", "rebuilt_idx"],
            reindexer_interval_ms=200,
        )
        until(lambda: node("rebuilt_idx") != before["rebuilt_idx"], "an index rebuilt")
        leader.call("stop")
        assert node("artifact_idx") == before["artifact_idx"]
        assert node("artifact_idx_ccnew1")
    finally:
        for name in ("rebuilt_idx", "artifact_idx", "artifact_idx_ccnew1"):
            fleet.do(f"DROP INDEX {name}")


@differs(
    "10,000 jobs that may run on do not hide one that is lost",
    river="the lost job, of a kind unknown to the leader, is discarded",
    riverrun="it is retried; the 10,000 are left alone, as River asserts",
    because="another client may know the kind",
)
def test_maintenance_rescuer_full_batch_of_unexpired_jobs(fleet: Fleet, leader: Process) -> None:
    """Ten thousand jobs within their timeout do not hide one lost job from the rescuer."""
    # These jobs' client has no heartbeat, so the timeout of their kind's worker decides.
    kept = stuck(fleet, 10_000)
    (other,) = stuck(fleet, 1, UNKNOWN)
    leader.call("start", client_id="rescues", job_timeout_disabled=True, **RESCUES)
    rescued(fleet, leader, other)
    left = "SELECT count(*) FROM river_job WHERE state = 'running' AND errors IS NULL"
    assert fleet.one(left) == len(kept)


@differs(
    "jobs completed or claimed again since the rescuer selected them are left alone",
    river="the third job, of a kind unknown to the leader, is discarded",
    riverrun="it is retried; the other two are left alone, as River asserts",
    because="another client may know the kind",
)
def test_maintenance_rescuer_stale_selection(fleet: Fleet, leader: Process) -> None:
    """A job that was completed or claimed again after the rescuer chose it is left alone."""
    completed, claimed, plain = stuck(fleet, 3, UNKNOWN)
    running = "SELECT state = 'running' FROM river_job WHERE id = :id"
    with fleet.open() as execute:
        execute(
            "SELECT FROM river_job WHERE id IN (:completed, :claimed) FOR UPDATE",
            completed=completed,
            claimed=claimed,
        )
        leader.call("start", client_id="rescues", **RESCUES)
        # River's rescuer waits for the two; riverrun's skips them and rescues the third.
        until(
            lambda: fleet.waits_for_lock(leader) or not fleet.one(running, id=plain),
            "a rescuer that has met the locked jobs",
            40,
        )
        execute(
            "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id = :id",
            id=completed,
        )
        execute("UPDATE river_job SET attempt = 2, attempted_at = now() WHERE id = :id", id=claimed)
        execute("COMMIT")
    rescued(fleet, leader, plain)
    leader.call("stop")
    for job, expected in ((completed, ("completed", 1)), (claimed, ("running", 2))):
        seen = fleet.agreed(job)
        assert (seen["state"], seen["attempt"]) == expected
        assert seen["errors"] == []
        assert "river:rescue_count" not in seen["metadata"]


@passed("a due periodic job is inserted as available")
def test_periodic_due_job_available(fleet: Fleet, leader: Process) -> None:
    """A periodic job that is due is inserted as available, without waiting for a scheduler."""
    fleet.do("CREATE TABLE inserted_states (id bigint, state text)")
    fleet.do(
        f"CREATE FUNCTION note_state() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO {fleet.schema}.inserted_states VALUES (NEW.id, NEW.state);"
        f" RETURN NEW; END $$"
    )
    fleet.do(
        "CREATE TRIGGER note_state AFTER INSERT ON river_job"
        " FOR EACH ROW EXECUTE FUNCTION note_state()"
    )
    try:
        leader.call("start", client_id="due", queue="elsewhere", periodic_run_on_start=True)
        (job,) = until(lambda: leader.call("list")["jobs"], "the periodic job")
        assert (job["queue"], job["attempt"]) == ("default", 0)
        states = fleet.rows("SELECT id, state FROM inserted_states")
        assert [tuple(row) for row in states] == [(job["id"], "available")]
        leader.call("stop")
    finally:
        fleet.do("DROP TRIGGER note_state ON river_job")
        fleet.do("DROP FUNCTION note_state")
        fleet.do("DROP TABLE inserted_states")


@differs(
    "a leader renews its lease while its cleaner is slow",
    river="the lease is renewed while the cleaner waits for a row that another transaction locks",
    riverrun="the cleaner skips that row; the lease is renewed while a trigger holds its deletion"
    " for 8 s",
    because="the cleaner deletes with SKIP LOCKED, so a locked row does not stop it",
)
@pytest.mark.parametrize("name", BOTH)
def test_leadership_renewal_under_slow_maintenance(fleet: Fleet, name: str) -> None:
    """A leader whose cleaner is slow still renews its lease."""
    leader = fleet.side(name)
    (old,) = stuck(fleet, 1)
    fleet.do(
        "UPDATE river_job SET state = 'completed', finalized_at = now() - interval '2 days'"
        " WHERE id = :id",
        id=old,
    )
    sleeps = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = :name AND wait_event = 'PgSleep'"
    )
    sleep_s = 8 if name == PYTHON else 0
    fleet.do(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({sleep_s}); RETURN NULL; END $$"
    )
    fleet.do(
        "CREATE TRIGGER slowly BEFORE DELETE ON river_job"
        " FOR EACH STATEMENT EXECUTE FUNCTION slowly()"
    )

    def is_slow() -> bool:
        if name == PYTHON:
            assert not fleet.waits_for_lock(leader)
            return bool(fleet.one(sleeps, name=leader.name))
        return fleet.waits_for_lock(leader)

    try:
        with fleet.open() as execute:
            execute("SELECT FROM river_job WHERE id = :id FOR UPDATE", id=old)
            leader.call("start", client_id="renews")
            term = fleet.leads("renews")
            lease = fleet.one("SELECT expires_at FROM river_leader")
            until(is_slow, "a slow cleaner")
            renewed = "SELECT expires_at > :lease FROM river_leader"
            until(lambda: fleet.one(renewed, lease=lease), "the lease renewed", 8)
            assert is_slow()
            assert fleet.leads("renews") == term
    finally:
        with fleet.engine.begin() as connection:
            # The sleeping statement holds a lock on the table.
            cut = text(sleeps.replace("count(*)", "pg_terminate_backend(pid)"))
            connection.execute(cut, {"name": leader.name})
            connection.execute(text(f"DROP FUNCTION {fleet.schema}.slowly CASCADE"))
