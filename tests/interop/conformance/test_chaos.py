"""Processes die, connections are cut, commits fail: no job is lost, none is worked twice."""

import time
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text

from interop.conformance.fleet import BOTH, GO, SOON_S, WAYS, Fleet, Job, running, wait
from interop.conformance.registry import differs, passed
from interop.rpc import Process, RpcError
from waiting import until

both_ways = pytest.mark.parametrize(("by", "to"), WAYS)
each_side = pytest.mark.parametrize("name", BOTH)
DEAF = {"fetch_poll_interval_ms": 60_000}
OUTAGE_S = 3.0
RESCUED = "Stuck job rescued by JobRescuer"
RESCUES = {"rescue_after_ms": 1_500, "job_timeout_ms": 1_000}


@passed("a listener whose connections are cut listens again")
@each_side
def test_listener_backend_disconnect_reconnect(fleet: Fleet, name: str) -> None:
    """A listener whose connection is cut listens again and receives notifications."""
    process = fleet.side(name)
    process.call("start", client_id="cut", **DEAF)
    fleet.listens(process)
    assert process.call("fault_disconnect_listeners")["count"] >= 1
    hears_again(fleet, process)
    cut = fleet.other(process).call("fault_disconnect_application", application_name=process.name)
    assert cut["count"] >= 1
    hears_again(fleet, process)


def hears_again(fleet: Fleet, process: Process) -> None:
    """Wait until a process receives notifications of jobs again."""
    other = fleet.other(process)

    def listens() -> bool:
        # The first call may use a pooled connection that was cut.
        with suppress(RpcError):
            return bool(process.call("listener_count")["count"])
        return False

    until(listens, "listening")

    def notified() -> bool:
        job = other.call("insert", opts={"queue": "default"})["id"]
        time.sleep(0.2)
        return other.call("get", id=job)["state"] == "completed"

    until(notified, "a job that is notified", 30)


@passed("a job without a notification is found by polling")
@each_side
def test_lost_notification_poll_recovery(fleet: Fleet, name: str) -> None:
    """A job without a notification is found by polling."""
    process = fleet.side(name)
    process.call("start", client_id="polls", fetch_poll_interval_ms=250)
    fleet.listens(process)
    job = process.call("raw_insert_no_notify")["id"]
    begun = time.monotonic()
    assert wait(process, job)["state"] == "completed"
    assert time.monotonic() - begun < SOON_S


@passed("the database cannot be reached for a while")
@each_side
def test_database_unavailable_reconnect(fleet: Fleet, name: str) -> None:
    """While the database cannot be reached, neither old nor new jobs lose an attempt."""
    other = fleet.other(fleet.side(name))
    with fleet.behind_proxy(name) as (process, proxy):
        process.call("start", client_id="outlives")
        process.call("barrier_create", name="cut")
        inside = other.call("insert", behavior="barrier_wait", message="cut")["id"]
        running(other, inside)
        proxy.refuse()
        # The worker finishes while its completion cannot be written.
        process.call("barrier_release", name="cut")
        outside = other.call("insert", message="during the outage")["id"]
        time.sleep(OUTAGE_S)
        proxy.accept()
        for job in (inside, outside):
            done = until(lambda job=job: completed(other, job), f"job {job} completed", 60)
            assert (done["attempt"], done["errors"]) == (1, [])
        process.call("stop", cancel=True)
        process.close()


def completed(process: Process, job_id: int) -> Job | None:
    """Return a job if it is completed, else None."""
    job: Job = process.call("get", id=job_id)
    return job if job["state"] == "completed" else None


@passed("a hard stop gives back the job of a worker that ignores it", candidate_only=True)
def test_ignored_cancellation_hard_abort(fleet: Fleet) -> None:
    """A hard stop ends even if a worker ignores it, and the job is given back.

    River runs this against the other implementation alone: a goroutine cannot be interrupted.
    """
    fleet.python.call("start", client_id="ignored")
    job = fleet.go.call("insert", behavior="ignored_cancel")["id"]
    running(fleet.go, job)
    fleet.python.call("stop", cancel=True)
    given = fleet.agreed(job)
    assert (given["state"], given["attempt"], given["errors"]) == ("available", 0, [])


def rescued(fleet: Fleet, crashed: str, recovery: str) -> Job:
    """Kill a side's process while it works a job, and let the other side rescue the job."""
    by = fleet.side(crashed)
    by.call("start", client_id="crashed", **RESCUES)
    job = by.call("insert", behavior="snooze_then_cancel", opts={"metadata": {"snoozes": 1}})["id"]
    running(by, job)
    fleet.replace(crashed)
    # River's rescuer has a fixed interval of 30 s, but it looks when a term begins.
    time.sleep(1.6)
    fleet.do("DELETE FROM river_leader")
    # A client with heartbeats is dead 20 s after its last one, whatever `rescue_after` is.
    fleet.do("UPDATE riverrun_client SET heartbeat_at = heartbeat_at - interval '20 s'")
    fleet.do("UPDATE river_job SET args = args || cast(:args AS jsonb)", args='{"behavior":""}')
    to = fleet.side(recovery)
    to.call("start", client_id="recovery", retry_delay_ms=5, **RESCUES)
    wait(to, job)
    to.call("stop")
    return fleet.agreed(job)


def check_rescued(job: Job) -> None:
    """Check that a job was rescued once, with River's error text, and then completed."""
    assert (job["state"], job["attempt"]) == ("completed", 2)
    assert job["attempted_by"] == ["crashed", "recovery"]
    assert job["metadata"]["river:rescue_count"] == 1
    assert [error["error"] for error in job["errors"]] == [RESCUED]


@passed("River rescues the job of a killed riverrun process")
def test_candidate_process_kill_reference_rescue(fleet: Fleet) -> None:
    """Go rescues the job of a riverrun process that was killed."""
    check_rescued(rescued(fleet, "python", "go"))


@passed("riverrun rescues the job of a killed River process")
def test_reference_process_kill_candidate_rescue(fleet: Fleet) -> None:
    """Riverrun rescues the job of a Go process that was killed."""
    check_rescued(rescued(fleet, "go", "python"))


@differs(
    "a restarted client rescues its killed predecessor's job",
    river="within 20 s, with `rescue_after` at 1.5 s",
    riverrun="the same, after the test has set the dead client's heartbeat back by 20 s",
    because="riverrun takes a client for dead 20 s after its last heartbeat, no sooner",
)
@each_side
def test_process_kill_restart_and_rescue(fleet: Fleet, name: str) -> None:
    """A side that is restarted rescues the job of its own killed process."""
    check_rescued(rescued(fleet, name, name))


@passed(
    "a leader is killed at work; another side leads and rescues its job",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_process_kill_rescue_failover(fleet: Fleet) -> None:
    """The leader is killed while it works a job; another side leads, rescues and works the job."""
    for leader, follower in WAYS:
        fleet.reset()
        dies, lives = fleet.another(leader), fleet.side(follower)
        third = fleet.another(follower)
        dies.call("start", client_id="crashed", **RESCUES)
        fleet.leads("crashed")
        meta = {"metadata": {"snoozes": 1}}
        job = dies.call("insert", behavior="snooze_then_cancel", opts=meta)["id"]
        running(dies, job)
        dies.kill()
        fleet.do("UPDATE river_job SET args = args || cast(:args AS jsonb)", args='{"behavior":""}')
        time.sleep(1.6)
        lives.call("fault_expire_leader")
        for process, client_id in ((lives, "recovery"), (third, "recovery-too")):
            process.call("start", client_id=client_id, retry_delay_ms=5, **RESCUES)
        assert wait(lives, job)["state"] == "completed"
        done = fleet.agreed(job)
        assert [error["error"] for error in done["errors"]] == [RESCUED]
        assert done["attempted_by"][0] == "crashed"


@passed(
    "the connections of each process are cut",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_fault_recovery(fleet: Fleet) -> None:
    """Connections of four processes are cut in turn, and every job is worked once."""
    processes = [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")]
    how: dict[str, Any] = {"fetch_poll_interval_ms": 250}
    for number, process in enumerate(processes):
        process.call("start", client_id=f"cut-{number}", **how)
    jobs: list[int] = []
    for process in processes:
        batch = [{"behavior": "sleep", "duration_ms": 50} for _ in range(20)]
        answer = process.call("insert_many", jobs=batch)
        jobs += [result["job"]["id"] for result in answer["results"]]
        fleet.other(fleet.go).call("fault_disconnect_application", application_name=process.name)
    done = "SELECT count(*) FROM river_job WHERE state = 'completed'"
    until(lambda: fleet.one(done) == len(jobs), "all jobs")
    assert fleet.one("SELECT max(attempt) FROM river_job") == 1


@differs(
    "a completion that meets a locked row is not lost",
    river="the completion waits for the row's lock",
    riverrun="it skips the row, completes other jobs, and is written once the lock is gone",
    because="one locked row holds up no other job",
)
@each_side
def test_completion_row_lock_wait(fleet: Fleet, name: str) -> None:
    """A completion of a locked row is not lost, and with riverrun it delays no other."""
    process = fleet.side(name)
    process.call("start", client_id="waits", fetch_poll_interval_ms=250)
    process.call("barrier_create", name="held")
    job = process.call("insert", behavior="barrier_wait", message="held")["id"]
    running(process, job)
    with fleet.open() as execute:
        execute("SELECT FROM river_job WHERE id = :id FOR UPDATE", id=job)
        process.call("barrier_release", name="held")
        if name == GO:
            fleet.lock_awaited(process)
        else:  # Riverrun skips the row and completes other jobs.
            assert wait(process, process.call("insert")["id"])["state"] == "completed"
        assert fleet.agreed(job)["state"] == "running"
    done = wait(process, job)
    assert (done["state"], done["attempt"], done["errors"]) == ("completed", 1, [])


@passed("a completion that the database refuses once is tried again")
@each_side
def test_completion_transient_failure_retry(fleet: Fleet, name: str) -> None:
    """A completion that the database refuses at first is tried again."""
    process = fleet.side(name)
    process.call("start", client_id="tries", fetch_poll_interval_ms=250)
    process.call("barrier_create", name="refused")
    job = process.call("insert", behavior="barrier_wait", message="refused")["id"]
    running(process, job)
    with fleet.engine.begin() as connection:
        connection.execute(text(f"SET LOCAL search_path TO {fleet.schema}"))
        connection.execute(text("CREATE SEQUENCE refusals"))
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.state = 'completed' AND nextval('{fleet.schema}.refusals') = 1 THEN"
            " RAISE EXCEPTION 'not yet' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$"
        )
        connection.execute(
            text(
                "CREATE TRIGGER refuse_once BEFORE UPDATE ON river_job"
                " FOR EACH ROW EXECUTE FUNCTION refuse_once()"
            )
        )
    try:
        process.call("barrier_release", name="refused")
        done = wait(process, job)
        assert (done["state"], done["attempt"], done["errors"]) == ("completed", 1, [])
        assert fleet.one("SELECT last_value FROM refusals") >= 2
    finally:
        fleet.do("DROP TRIGGER refuse_once ON river_job")
        fleet.do("DROP FUNCTION refuse_once")
        fleet.do("DROP SEQUENCE refusals")
