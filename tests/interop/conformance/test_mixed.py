"""One side inserts or controls jobs, the other side works them."""

import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from goldens import RESERVED_METADATA
from interop.conformance.fleet import (
    BOTH,
    PYTHON,
    SOON_S,
    WAYS,
    Fleet,
    Job,
    await_events,
    counted,
    events,
    moment,
    running,
    wait,
)
from interop.conformance.registry import differs, passed
from interop.rpc import Process
from waiting import until

# Longer than any test, so whatever happens sooner was caused by a notification.
DEAF = {"fetch_poll_interval_ms": 60_000}
both_ways = pytest.mark.parametrize(("by", "to"), WAYS)


def works_each_others(inserter: Process, worker: Process) -> None:
    """Check that one side's jobs are worked by the other."""
    job = inserter.call("insert", behavior="output", message="across", opts={"tags": ["across"]})
    assert (job["state"], job["kind"], job["attempt"]) == ("available", "conformance_echo", 0)
    assert (job["attempted_by"], job["max_attempts"]) == ([], 25)
    assert worker.call("get", id=job["id"]) == job
    done = worker.call("work", id=job["id"], client_id="works")
    assert (done["state"], done["metadata"]["output"]) == ("completed", {"message": "across"})
    assert (done["attempt"], done["attempted_by"]) == (1, ["works"])
    assert None not in (done["attempted_at"], done["finalized_at"])
    assert inserter.call("get", id=job["id"]) == done


@passed("riverrun inserts, River works")
def test_candidate_insert_reference_work(fleet: Fleet) -> None:
    """Go works jobs that riverrun inserts."""
    works_each_others(fleet.python, fleet.go)


@passed("River inserts, riverrun works")
def test_reference_insert_candidate_work(fleet: Fleet) -> None:
    """Riverrun works jobs that Go inserts."""
    works_each_others(fleet.go, fleet.python)


@passed("an insert wakes a worker that polls once a minute")
@both_ways
def test_notification_only_wakeups(fleet: Fleet, by: str, to: str) -> None:
    """An insert wakes the other side's worker, which polls only once a minute."""
    inserter, worker = fleet.side(by), fleet.side(to)
    worker.call("start", client_id="hears", **DEAF)
    fleet.listens(worker)
    for _ in range(3):
        begun = time.monotonic()
        job = inserter.call("insert")["id"]
        assert wait(worker, job)["state"] == "completed"
        assert time.monotonic() - begun < SOON_S


@passed("an insert is notified at the commit, if at all")
@both_ways
def test_transactional_insert_notification_commit_only(fleet: Fleet, by: str, to: str) -> None:
    """An insert is announced at the commit, and not at all after a rollback."""
    inserter, worker = fleet.side(by), fleet.side(to)
    url = fleet.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    worker.call("start", client_id="hears", **DEAF)
    fleet.listens(worker)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'LISTEN "{fleet.schema}.river_insert"')
        for end in ("tx_rollback", "tx_commit"):
            inserter.call("tx_begin", handle="a")
            batch = [{"message": f"{end} {number}"} for number in range(2)]
            made = inserter.call("tx_insert_many", handle="a", jobs=batch)["results"]
            assert not list(connection.notifies(timeout=0.2))
            inserter.call(end, handle="a")
            notified = list(connection.notifies(timeout=1.0, stop_after=1))
            assert len(notified) == (end == "tx_commit")
    for result in made:
        assert wait(worker, result["job"]["id"])["state"] == "completed"
    assert fleet.one("SELECT count(*) FROM river_job") == 2


@passed("the other side's cancel reaches a running job")
@both_ways
def test_cooperative_remote_cancellation(fleet: Fleet, by: str, to: str) -> None:
    """A job that runs on one side can be cancelled by the other."""
    cancels(fleet, fleet.side(by), fleet.side(to), fetch_poll_interval_ms=100)


@passed("a cancel reaches a worker that polls once a minute")
@both_ways
def test_remote_cancel_notification(fleet: Fleet, by: str, to: str) -> None:
    """A notification cancels a running job at once; its client polls only once a minute."""
    cancels(fleet, fleet.side(by), fleet.side(to), **DEAF)


def cancels(fleet: Fleet, canceller: Process, worker: Process, **how: Any) -> None:
    """Check that one side can cancel a job that runs on the other."""
    worker.call("start", client_id="cancelled", **how)
    fleet.listens(worker)
    job = worker.call("insert", behavior="cooperative_cancel")["id"]
    running(worker, job)
    begun = time.monotonic()
    asked = canceller.call("cancel", id=job)
    assert asked["state"] == "running"
    at = asked["metadata"]["cancel_attempted_at"]
    assert abs(moment(at) - moment(asked["attempted_at"])) < timedelta(seconds=SOON_S)
    wait(worker, job)
    assert time.monotonic() - begun < SOON_S
    done = fleet.agreed(job)
    assert (done["state"], done["attempt"]) == ("cancelled", 1)
    assert done["metadata"]["cancel_attempted_at"] == at
    assert [error["error"] for error in done["errors"]] == [
        "JobCancelError: job cancelled remotely"
    ]
    await_events(worker, "job_cancelled")
    assert events(worker) == ["job_cancelled"]


@passed("a cancel takes effect at the commit, if at all")
@both_ways
def test_transactional_cross_language_cancel(fleet: Fleet, by: str, to: str) -> None:
    """A cancel in a transaction is announced at the commit, and not at all after a rollback."""
    canceller, worker = fleet.side(by), fleet.side(to)
    waiting = worker.call("insert", message="cancelled before it runs")["id"]
    canceller.call("tx_begin", handle="a")
    seen = canceller.call("tx_cancel", handle="a", id=waiting)
    assert (seen["state"], seen["finalized_at"] is None) == ("cancelled", False)
    assert worker.call("get", id=waiting)["state"] == "available"
    canceller.call("tx_commit", handle="a")
    assert fleet.agreed(waiting)["state"] == "cancelled"
    worker.call("start", client_id="cancelled", **DEAF)
    fleet.listens(worker)
    job = worker.call("insert", behavior="cooperative_cancel")["id"]
    running(worker, job)
    canceller.call("tx_begin", handle="a")
    canceller.call("tx_cancel", handle="a", id=job)
    canceller.call("tx_rollback", handle="a")
    time.sleep(0.3)
    assert "cancel_attempted_at" not in fleet.agreed(job)["metadata"]
    assert fleet.agreed(job)["state"] == "running"
    canceller.call("tx_begin", handle="a")
    canceller.call("tx_cancel", handle="a", id=job)
    canceller.call("tx_commit", handle="a")
    assert wait(worker, job)["state"] == "cancelled"


@differs(
    "a cancel between the claim and the beginning of the attempt is not lost",
    river="the worker is called with a cancelled context",
    riverrun="the worker is not called, a plugin's `work` is; the job ends in the same row",
    because="a cancelled job's code need not run",
)
@both_ways
def test_claim_time_cancellation(fleet: Fleet, by: str, to: str) -> None:
    """A cancel that comes after a claim and before the attempt begins is not lost."""
    canceller, worker = fleet.side(by), fleet.side(to)
    worker.call("barrier_create", name="claimed")
    worker.call("start", client_id="claims", claim_barrier="claimed", **DEAF)
    fleet.listens(worker)
    batch = [{"behavior": "cooperative_cancel"}, {"behavior": "output"}]
    results = canceller.call("insert_many", jobs=batch)["results"]
    job, other = (result["job"]["id"] for result in results)
    for each in (job, other):
        until(lambda each=each: canceller.call("get", id=each)["state"] == "running", "claimed")
        assert canceller.call("cancel", id=each)["state"] == "running"
    time.sleep(1)  # River's harness gives the notification this long to arrive
    worker.call("barrier_release", name="claimed")
    wait(worker, job)
    done = fleet.agreed(job)
    assert (done["state"], done["attempt"]) == ("cancelled", 1)
    assert [error["error"] for error in done["errors"]] == [
        "JobCancelError: job cancelled remotely"
    ]
    # In riverrun a plugin counts this; in River, the worker does.
    assert counted(worker, "cancelled_at_start") == 1
    wait(worker, other)
    done = fleet.agreed(other)
    if to == PYTHON:
        assert (done["state"], "output" in done["metadata"]) == ("cancelled", False)
    else:
        assert (done["state"], "output" in done["metadata"]) == ("completed", True)


@passed("a paused queue stops at once, others go on")
@both_ways
def test_pause_resume_notification(fleet: Fleet, by: str, to: str) -> None:
    """A pause by one side stops the other's queue until it is resumed; other queues go on."""
    controller, worker = fleet.side(by), fleet.side(to)
    worker.call("start", client_id="paused", queue="held", **DEAF)
    worker.call("queue_add", name="free", max_workers=1)
    fleet.listens(worker)
    until(lambda: len(worker.call("queue_list")["queues"]) == 2, "both queues")
    controller.call("queue_pause", name="held")
    await_events(worker, "queue_paused")
    job = controller.call("insert", opts={"queue": "held"})["id"]
    marker = controller.call("insert", opts={"queue": "free"})["id"]
    assert wait(worker, marker)["state"] == "completed"
    assert fleet.agreed(job)["state"] == "available"
    controller.call("queue_resume", name="held")
    await_events(worker, "queue_resumed")
    done = wait(worker, job)
    resumed = controller.call("queue_get", name="held")["updated_at"]
    assert moment(done["attempted_at"]) >= moment(resumed)


@passed("one event for each change of a queue's state")
@both_ways
def test_remote_queue_subscription_events(fleet: Fleet, by: str, to: str) -> None:
    """Each change of a queue causes exactly one event in the other side's client."""
    controller, worker = fleet.side(by), fleet.side(to)
    worker.call("start", client_id="subscribed", **DEAF)
    fleet.listens(worker)
    until(lambda: worker.call("queue_list")["queues"], "the queue")
    seen = []
    for method, name in (
        ("queue_pause", "*"),
        ("queue_pause", "*"),
        ("queue_resume", "*"),
        ("queue_resume", "*"),
        ("queue_pause", "default"),
        ("queue_resume", "default"),
    ):
        controller.call(method, name=name)
        marker = "queue_paused" if method == "queue_pause" else "queue_resumed"
        if seen[-1:] != [marker]:
            seen.append(marker)
        until(lambda: events(worker) == seen, f"{seen}, not {events(worker)}")
    time.sleep(0.3)
    assert events(worker) == ["queue_paused", "queue_resumed"] * 2


@passed("no job is worked before it is due")
@both_ways
def test_clock_boundary_scheduling(fleet: Fleet, by: str, to: str) -> None:
    """A job is worked when it is due and never before, even at the boundary of a second."""
    inserter, worker = fleet.side(by), fleet.side(to)
    worker.call("start", client_id="schedules", fetch_poll_interval_ms=100)
    fleet.leads("schedules")
    now = moment(fleet.one("SELECT to_json(now())"))
    past = (now - timedelta(seconds=1)).isoformat()
    due = now.replace(microsecond=0) + timedelta(seconds=2)
    overdue = inserter.call("insert", opts={"scheduled_at": past})
    later = inserter.call("insert", opts={"scheduled_at": due.isoformat()})
    distant = inserter.call("insert", opts={"scheduled_at": "2100-01-01T00:00:00Z"})
    assert overdue["state"] == later["state"] == distant["state"] == "scheduled"
    assert wait(worker, overdue["id"])["state"] == "completed"
    done = wait(worker, later["id"])
    assert moment(done["attempted_at"]) >= due
    assert moment(done["scheduled_at"]) == due
    assert fleet.agreed(distant["id"])["state"] == "scheduled"
    # Shorter than the scheduler's interval of 5 s: the job stays available, to run later.
    snoozed = inserter.call("insert", behavior="snooze_once", duration_ms=2_000)["id"]
    seen = until(lambda: _snoozed(inserter, snoozed), "the snooze")
    assert seen["state"] in {"available", "running", "completed"}
    assert wait(worker, snoozed)["state"] == "completed"
    done = fleet.agreed(snoozed)
    assert moment(done["attempted_at"]) >= moment(done["scheduled_at"])
    if seen["state"] == "available":
        assert done["scheduled_at"] == seen["scheduled_at"]


def _snoozed(process: Process, job_id: int) -> Job | None:
    """Return a job once it has snoozed, else None."""
    job: Job = process.call("get", id=job_id)
    return job if "snoozes" in job["metadata"] else None


@passed("only River's reserved names are added, and the application's metadata is kept")
@both_ways
def test_reserved_metadata_cross_engine(fleet: Fleet, by: str, to: str) -> None:
    """Each side keeps the other's reserved metadata, and neither adds unknown names."""
    a, b = fleet.side(by), fleet.side(to)
    user = {"user": {"kept": [1, None]}}
    a.call("start", client_id="first", retry_delay_ms=60_000)
    resumed = a.call("insert", behavior="resumable_cursor", opts={"metadata": user})["id"]
    snoozed = a.call("insert", behavior="snooze_once", duration_ms=5, opts={"metadata": user})["id"]
    output = a.call("insert", behavior="output", opts={"metadata": user})["id"]
    wait(a, resumed, "retryable")
    for job in (snoozed, output):
        wait(a, job)
    a.call("stop")
    b.call("start", client_id="second", retry_delay_ms=60_000, periodic_run_on_start=True)
    b.call("retry", id=resumed)
    until(lambda: len(a.call("get", id=resumed)["errors"]) == 2, "the second failure")
    wait(b, resumed, "retryable")
    cancelled = b.call("insert", behavior="cooperative_cancel", opts={"metadata": user})["id"]
    running(b, cancelled)
    a.call("cancel", id=cancelled)
    wait(b, cancelled)
    periodic = until(lambda: a.call("list", metadata={"periodic": True})["jobs"], "periodic")
    for job in (resumed, snoozed, output, cancelled):
        metadata = fleet.agreed(job)["metadata"]
        assert metadata.pop("user") == user["user"]
        assert set(metadata) - {"first_attempt", "cursor_observed"} <= RESERVED_METADATA
    assert set(periodic[0]["metadata"]) - {"periodic"} <= RESERVED_METADATA


@passed("attempts of one job take turns between the sides")
@both_ways
def test_resumable_cross_engine_cursor(fleet: Fleet, by: str, to: str) -> None:
    """A job's attempts alternate between the sides; each resumes where the last one stopped."""
    resumes(fleet, [fleet.side(by), fleet.side(to), fleet.side(by)])


@passed(
    "attempts of one job in three processes",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_resumable_cursor(fleet: Fleet) -> None:
    """A job's attempts pass through three processes of both sides."""
    resumes(fleet, [fleet.go, fleet.python, fleet.another("go")])


def resumes(fleet: Fleet, turns: list[Process]) -> None:
    """Check that each attempt resumes where the last one stopped, on any process."""
    metadata = {"application": "retained"}
    job = turns[0].call("insert", behavior="resumable_cursor", opts={"metadata": metadata})["id"]
    steps = []
    for number, process in enumerate(turns, 1):
        if number > 1:
            process.call("retry", id=job)
        process.call("start", client_id=f"turn-{number}", retry_delay_ms=60_000)
        wait(process, job, "retryable" if number < len(turns) else "completed")
        process.call("stop")
        seen = fleet.agreed(job)
        assert seen["attempt"] == number
        assert seen["metadata"]["first_attempt"] == 1
        assert seen["metadata"]["application"] == "retained"
        steps.append(seen["metadata"].get("river:resumable_step"))
        cursor = seen["metadata"].get("river:resumable_cursor")
        assert cursor == ({"second": 7} if number == 1 else None), seen["metadata"]
    assert steps == ["first", "second", "second"]
    assert seen["metadata"]["cursor_observed"] == 7
    assert len(seen["errors"]) == 2
    assert seen["attempted_by"] == ["turn-1", "turn-2", "turn-3"]


@passed("a state written from outside while the job ran stands")
@both_ways
def test_external_terminal_completion_race(fleet: Fleet, by: str, to: str) -> None:
    """A final state written from outside is kept; the late worker only adds its metadata."""
    worker, other = fleet.side(by), fleet.side(to)
    worker.call("start", client_id="late")
    outside = {"external": True, "shared": "external"}
    cases = (
        ("barrier_output", "completed"),
        ("barrier_output", "discarded"),
        ("barrier_wait", "completed"),
    )
    for number, (behavior, state) in enumerate(cases):
        gate = f"race-{number}"
        worker.call("barrier_create", name=gate)
        job = worker.call("insert", behavior=behavior, message=gate)["id"]
        running(worker, job)
        ended = other.call("raw_finalize", id=job, state=state, metadata=outside)
        worker.call("barrier_release", name=gate)
        until(lambda n=number: len(events(worker)) == n + 1, "the event")
        done = fleet.agreed(job)
        for field in ("state", "finalized_at", "errors", "attempt"):
            assert done[field] == ended[field]
        if state == "discarded":
            assert done["errors"][0]["at"] == "2026-02-03T04:05:06.789Z"
            assert done["errors"][0]["trace"] == "external trace"
        output = {"output": {"race": "worker"}} if behavior == "barrier_output" else {}
        assert done["metadata"] == outside | output
    assert events(worker) == ["job_completed", "job_failed", "job_completed"]


@passed("processes are replaced one by one; each job is worked once")
def test_rolling_deployment_same_protocol(fleet: Fleet) -> None:
    """While each side's process is replaced, the other works, and every job is worked once."""
    processes = {name: fleet.another(name) for name in BOTH}
    clients = {name: f"{name}-0" for name in BOTH}
    how = {"fetch_poll_interval_ms": 100}
    for name, process in processes.items():
        process.call("start", client_id=clients[name], **how)
    made: list[int] = []

    def insert() -> None:
        for process in processes.values():
            batch = [{"behavior": "sleep", "duration_ms": 20} for _ in range(10)]
            answer = process.call("insert_many", jobs=batch)
            made.extend(result["job"]["id"] for result in answer["results"])

    insert()
    for name in BOTH:
        processes[name].call("stop")
        insert()
        processes[name] = fleet.another(name)
        clients[name] = f"{name}-1"
        processes[name].call("start", client_id=clients[name], **how)
        insert()
    # Insert until both new processes have worked: one may empty the queue before the other begins.
    until(lambda: insert() or set(clients.values()) <= workers(fleet), "both new processes at work")
    for job in made:
        done = wait(fleet.go, job)
        assert (done["state"], done["attempt"], done["errors"]) == ("completed", 1, [])
        assert len(done["attempted_by"]) == 1
    assert until(lambda: fleet.go.call("leader")["leader_id"], "a leader") in clients.values()


def workers(fleet: Fleet) -> set[str]:
    """Return the ids of the clients that have worked a job."""
    return {row[0] for row in fleet.rows("SELECT DISTINCT unnest(attempted_by) FROM river_job")}


@passed("both sides claim from one queue, each job once")
def test_mixed_skip_locked_competition(fleet: Fleet) -> None:
    """If both sides work one queue, each job is worked once, and each side works some."""
    competes(fleet, [fleet.go, fleet.python], 300)


@passed(
    "several processes claim from one queue, each job once",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_competition(fleet: Fleet) -> None:
    """If two processes of each side work one queue, each job is worked once and all work some."""
    processes = [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")]
    competes(fleet, processes, 400)


def competes(fleet: Fleet, processes: list[Process], jobs: int) -> None:
    """Check that each job is worked once, and that each process works some."""
    share = jobs // len(processes)
    for process in processes:
        batch = [{"behavior": "sleep", "duration_ms": 20} for _ in range(share)]
        process.call("insert_many", jobs=batch)
    for number, process in enumerate(processes):
        process.call("start", client_id=f"competes-{number}", fetch_poll_interval_ms=50)
    done = "SELECT count(*) FROM river_job WHERE state = 'completed'"
    until(lambda: fleet.one(done) == jobs, "all jobs")
    rows = fleet.rows("SELECT attempt, attempted_by FROM river_job")
    assert all(attempt == len(by) == 1 for attempt, by in rows)
    assert len({by[0] for _, by in rows}) == len(processes)


@passed(
    "each process works, wakes and cancels for each other",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_directed_candidate_work_notification_cancellation(fleet: Fleet) -> None:
    """Every process works, wakes and cancels the jobs of every other process."""
    processes = [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")]
    for number, worker in enumerate(processes):
        worker.call("start", client_id=f"directed-{number}", queue=f"q{number}", **DEAF)
        fleet.listens(worker)
    for number, worker in enumerate(processes):
        opts = {"queue": f"q{number}"}
        for other in processes:
            job = other.call("insert", opts=opts)["id"]
            assert wait(worker, job)["attempted_by"] == [f"directed-{number}"]
            long = other.call("insert", behavior="cooperative_cancel", opts=opts)["id"]
            running(worker, long)
            other.call("cancel", id=long)
            assert wait(worker, long)["state"] == "cancelled"


@passed("rows of unusual shapes are worked, or fail by themselves")
@pytest.mark.parametrize("name", BOTH)
def test_claimed_row_decode_isolation(fleet: Fleet, name: str) -> None:
    """Rows with errors or metadata in shapes unlike River's are worked, and keep them."""
    worker, other = fleet.side(name), fleet.other(fleet.side(name))
    odd = (
        '{"at": "2024-01-02 03:04:05+00", "attempt": "1", "error": {"message": "boom"},'
        ' "trace": ["frame"]}'
    )
    shapes = [[], ['{"error": "sparse", "extra": true}'], [odd, "42"]]
    shapes += [[each] for each in ("{}", '{"attempt": "x"}', "[]", "null", '"text"')]

    def insert(errors: list[str], metadata: str = "{}", **opts: Any) -> int:
        job: int = other.call("insert", opts={"queue": "odd", **opts})["id"]
        fleet.do(
            "UPDATE river_job SET errors = nullif(cast(:errors AS jsonb[]), '{}'),"
            " metadata = cast(:metadata AS jsonb) WHERE id = :id",
            id=job,
            errors=errors,
            metadata=metadata,
        )
        return job

    for errors in shapes:
        insert(errors)
    insert([], metadata="[1]")
    insert([], metadata="[1]", max_attempts=1)
    kept = "SELECT id, errors::text, metadata::text FROM river_job ORDER BY id"
    before = fleet.rows(kept)
    done = "SELECT count(*) FROM river_job WHERE state = 'completed' AND attempt = 1"
    worker.call("start", client_id="decodes", queue="odd", retry_delay_ms=3_600_000)
    until(lambda: fleet.one(done) == len(before), "all completed")
    await_events(worker, "job_completed", len(before))
    assert counted(worker, "error_handler_calls") == 0
    assert worker.call("get", id=before[2].id)["errors"] == [
        {
            "at": "0001-01-01T00:00:00Z",
            "attempt": 1,
            "error": '{"message":"boom"}',
            "trace": '["frame"]',
        },
        {"at": "0001-01-01T00:00:00Z", "attempt": 0, "error": "42", "trace": ""},
    ]
    worker.call("stop")
    insert([], metadata="[1]")
    worker.call("start", client_id="decodes", queue="odd", error_handler_cancel=True)
    until(lambda: fleet.one(done) == len(before) + 1, "the last completed")
    assert counted(worker, "error_handler_calls") == 0
    assert fleet.rows(kept)[: len(before)] == before
