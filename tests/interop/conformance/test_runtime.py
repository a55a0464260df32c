"""How one client runs its jobs, as both sides read them."""

import re
from datetime import timedelta
from typing import Any

import pytest

from goldens import DELAYS_NS
from interop.conformance.fleet import (
    BOTH,
    Fleet,
    Job,
    await_events,
    counted,
    events,
    moment,
    running,
    wait,
)
from interop.conformance.registry import passed
from interop.rpc import Process
from waiting import until

ONE = {"max_attempts": 1}


@pytest.fixture(params=BOTH)
def side(request: pytest.FixtureRequest, fleet: Fleet) -> Process:
    """The process whose client works."""
    return fleet.side(request.param)


def worked(fleet: Fleet, side: Process, *states: str, **job: Any) -> Job:
    """Insert a job, wait until it is in a state, and check that both sides read it alike."""
    made = side.call("insert", **job)
    wait(side, made["id"], *states)
    return fleet.agreed(made["id"])


@passed("a worker may take long; it is one attempt")
def test_barrier_wait_and_release(fleet: Fleet, side: Process) -> None:
    """A worker waits at a barrier until it is released, all in one attempt."""
    side.call("start", client_id="waits")
    side.call("barrier_create", name="runtime")
    job = side.call("insert", behavior="barrier_wait", message="runtime")["id"]
    begun = running(side, job)
    assert begun["attempt"] == 1
    side.call("barrier_release", name="runtime")
    done = wait(side, job)
    assert (done["state"], done["attempted_at"]) == ("completed", begun["attempted_at"])


@passed("the row of each outcome")
def test_single_implementation_worker_outcomes(fleet: Fleet, side: Process) -> None:
    """Each kind of outcome leaves its job as the contract requires."""
    side.call("start", client_id="outcomes")
    done = worked(fleet, side, behavior="output", message="done")
    assert (done["state"], done["metadata"]["output"]) == ("completed", {"message": "done"})
    assert (done["attempt"], done["errors"], done["attempted_by"]) == (1, [], ["outcomes"])
    ends = {"cancel": "cancelled", "discard": "discarded", "error": "discarded"}
    for behavior, state in ends.items():
        job = worked(fleet, side, behavior=behavior, opts=ONE)
        assert (job["state"], job["attempt"], len(job["errors"])) == (state, 1, 1), behavior
        assert job["finalized_at"] is not None
        assert job["errors"][0]["attempt"] == 1
        if behavior == "error":
            assert job["errors"][0]["error"] == "conformance retryable error"
            assert job["errors"][0]["trace"] == ""
    job = side.call("insert", behavior="error")["id"]
    await_events(side, "job_failed", 3)
    retried = fleet.agreed(job)
    assert (retried["attempt"], retried["finalized_at"]) == (1, None)
    assert retried["state"] in {"available", "retryable"}


@passed("the trace of a worker that broke")
def test_panic_attempt_trace(fleet: Fleet, side: Process) -> None:
    """A worker that panics leaves a trace of the place."""
    side.call("start", client_id="breaks")
    job = worked(fleet, side, behavior="panic", opts=ONE)
    (error,) = job["errors"]
    assert job["state"] == "discarded"
    assert "conformance worker panic" in error["error"]
    assert error["trace"].strip()


@passed("a snooze costs no attempt; a short one leaves the job available")
def test_snooze_once_metadata_transition(fleet: Fleet, side: Process) -> None:
    """A snooze spends no attempt; a short one makes the job available, a long one scheduled."""
    side.call("start", client_id="snoozes")
    short = worked(fleet, side, behavior="snooze_once", duration_ms=5)
    assert (short["state"], short["attempt"], short["errors"]) == ("completed", 1, [])
    assert short["metadata"]["snoozes"] == 1
    long = worked(fleet, side, "scheduled", behavior="snooze_once", duration_ms=10_000)
    assert (long["attempt"], long["metadata"]["snoozes"]) == (0, 1)
    later = moment(long["scheduled_at"]) - moment(long["attempted_at"])
    assert timedelta(seconds=9.9) <= later < timedelta(seconds=12)


@passed("failed jobs wait as long as River's retry policy says")
def test_default_retry_policy_schedule(fleet: Fleet, side: Process) -> None:
    """The number of a job's failures and the policy of its client decide how long it waits."""
    side.call("start", client_id="retries")
    slack_ns = 250_000_000
    for failures in (1, 2, 3):
        shortest, longest = DELAYS_NS[failures]
        job = side.call("insert", behavior="error", opts={"queue": "elsewhere"})["id"]
        before = '{"at":"2026-01-01T00:00:00Z","attempt":1,"error":"","trace":""}'
        fleet.do(
            "UPDATE river_job SET queue = 'default', attempt = :before,"
            " errors = array_fill(cast(:error AS jsonb), ARRAY[cast(:before AS int)])"
            " WHERE id = :id",
            id=job,
            before=failures - 1,
            error=before,
        )
        await_events(side, "job_failed", failures)
        failed = fleet.agreed(job)
        fleet.do("DELETE FROM river_job")
        ended = moment(failed["errors"][-1]["at"])
        delay = (moment(failed["scheduled_at"]) - ended) // timedelta(microseconds=1) * 1_000
        assert shortest - slack_ns <= delay <= longest + slack_ns
    # The first delay is short, so the job stays available and is claimed when it is due.
    failing = fleet.other(side).call("insert", behavior="error", opts={"max_attempts": 5})["id"]
    wait(side, failing, "retryable")
    failed = fleet.agreed(failing)
    assert (failed["attempt"], len(failed["errors"])) == (2, 2)
    waited = moment(failed["attempted_at"]) - moment(failed["errors"][0]["at"])
    shortest, longest = DELAYS_NS[1]
    slack, late = timedelta(seconds=0.25), timedelta(seconds=5)
    assert waited >= timedelta(microseconds=shortest / 1_000) - slack
    assert waited < timedelta(microseconds=longest / 1_000) + late


@passed("a timeout is a failed attempt")
def test_timeout_cancellation(fleet: Fleet, side: Process) -> None:
    """A job is cancelled after its timeout, which counts as a failed attempt."""
    side.call("start", client_id="timed", job_timeout_ms=20)
    job = worked(fleet, side, behavior="cooperative_cancel", opts=ONE)
    assert (job["state"], job["attempt"], len(job["errors"])) == ("discarded", 1, 1)
    took = moment(job["finalized_at"]) - moment(job["attempted_at"])
    assert took >= timedelta(milliseconds=20)


@passed("an error handler cancels a job that would be retried")
def test_error_handler_cancel_override(fleet: Fleet, side: Process) -> None:
    """An error handler may cancel a job that would otherwise be retried."""
    side.call("start", client_id="handles", error_handler_cancel=True)
    job = worked(fleet, side, behavior="error")
    assert (job["state"], job["attempt"]) == ("cancelled", 1)
    assert job["errors"][0]["error"] == "conformance retryable error"
    await_events(side, "job_cancelled")
    assert counted(side, "error_handler_calls") == 1
    assert events(side) == ["job_cancelled"]


@passed("middleware surrounds hooks")
def test_extension_hook_middleware_order(fleet: Fleet, side: Process) -> None:
    """Middleware runs around hooks, both at an insert and at an attempt."""
    side.call("start", client_id="instrumented", instrumented=True)
    worked(fleet, side)
    until(lambda: "middleware:work_after" in side.call("runtime_stats")["trace"], "work_after")
    trace = side.call("runtime_stats")["trace"]
    for order in (
        ["middleware:insert_before", "hook:insert_begin", "middleware:insert_after"],
        ["middleware:work_before", "hook:work_begin", "hook:work_end", "middleware:work_after"],
        ["middleware:insert_after", "hook:work_begin"],
    ):
        places = [trace.index(step) for step in order]
        assert places == sorted(places), trace


@passed("completed steps are skipped")
def test_resumable_retry(fleet: Fleet, side: Process) -> None:
    """The next attempt skips a step that is completed."""
    side.call("start", client_id="resumes", retry_delay_ms=5)
    job = worked(fleet, side, behavior="resumable", opts={"max_attempts": 2})
    assert (job["state"], job["attempt"], len(job["errors"])) == ("completed", 2, 1)
    assert job["metadata"]["river:resumable_step"] == "first"
    assert counted(side, "resumable_first_runs") == 1
    assert counted(side, "resumable_second_runs") == 2
    await_events(side, "job_completed")
    assert sorted(events(side)) == ["job_completed", "job_failed"]


@passed("repeated step names, empty steps and malformed cursors")
def test_resumable_validation(fleet: Fleet, side: Process) -> None:
    """Two steps of the same name are refused, and saved steps are checked before work begins."""
    side.call("start", client_id="validates")

    def end(behavior: str, metadata: dict[str, Any]) -> Job:
        opts = ONE | {"metadata": metadata}
        job = worked(fleet, side, behavior=behavior, message="validated", opts=opts)
        assert (job["state"], len(job["errors"])) == ("discarded", 1)
        return job

    twice = end("resumable_duplicate", {})
    assert twice["metadata"]["river:resumable_step"] == "first"
    later = end("resumable_duplicate", {"river:resumable_step": "later"})
    assert later["metadata"]["river:resumable_step"] == "later"
    for job in (twice, later):
        assert "duplicate resumable step" in job["errors"][0]["error"]
    saved = end("resumable", {"river:resumable_step": ""})
    assert saved["metadata"]["river:resumable_step"] == "first"
    malformed = end("output", {"river:resumable_cursor": []})
    assert "output" not in malformed["metadata"]


@passed("a leader inserts it once, with its id in the metadata")
def test_periodic_run_on_start(fleet: Fleet, side: Process) -> None:
    """A leader inserts a periodic job once when it starts, with metadata that marks it."""
    side.call("start", client_id="leads", instrumented=True, periodic_run_on_start=True)
    (job,) = until(lambda: side.call("list")["jobs"], "the periodic job")
    done = wait(side, job["id"])
    assert done["state"] == "completed"
    assert done["metadata"]["periodic"] is True
    assert done["metadata"]["river:periodic_job_id"] == "conformance-periodic"
    assert counted(side, "periodic_starts") == 1
    assert len(side.call("list")["jobs"]) == 1


@passed("queues are added, resized and removed while a client runs")
def test_dynamic_queue_add_reconfigure_remove(fleet: Fleet, side: Process) -> None:
    """A queue is worked, within its worker limit, from when it is added until it is removed."""
    side.call("start", client_id="adds")
    here = {"opts": {"queue": "dynamic"}}
    side.call("queue_add", name="dynamic", max_workers=1)
    assert worked(fleet, side, **here)["state"] == "completed"
    side.call("queue_add", name="dynamic", max_workers=2)
    side.call("barrier_create", name="two")
    at_barrier = {"behavior": "barrier_wait", "message": "two"}
    both = [side.call("insert", **at_barrier, **here)["id"] for _ in range(2)]
    for job in both:
        running(side, job)
    side.call("barrier_release", name="two")
    for job in both:
        assert wait(side, job)["state"] == "completed"
    side.call("queue_remove", name="dynamic")
    left = side.call("insert", **here)["id"]
    assert worked(fleet, side)["state"] == "completed"
    assert fleet.agreed(left)["state"] == "available"


@passed("a worker that ignores its timeout is reported once")
def test_stuck_job_detection(fleet: Fleet, side: Process) -> None:
    """A job that keeps running after its cancel is reported as stuck, once."""
    (name,) = (each for each in BOTH if fleet.side(each) is side)
    side.call("start", client_id="stuck", job_timeout_ms=50, job_stuck_threshold_ms=100)
    job = side.call("insert", behavior="ignored_cancel")["id"]
    running(side, job)
    until(lambda: counted(side, "stuck_jobs") == 1, "a stuck job")
    assert fleet.agreed(job)["state"] == "running"
    fleet.replace(name)


@passed("River's error text; retried, or discarded when its attempts are spent")
def test_mixed_unknown_kind_error(fleet: Fleet, side: Process) -> None:
    """A job of an unknown kind fails with River's error text, and is retried or discarded."""
    kind = "conformance_unregistered"
    words = f"job kind is not registered in the client's Workers bundle: {kind}"
    other = fleet.other(side)
    once = other.call("raw_insert_no_notify", kind=kind, opts=ONE)["id"]
    often = other.call("raw_insert_no_notify", kind=kind, opts={"max_attempts": 5})["id"]
    side.call("start", client_id="knows")
    assert wait(side, other.call("insert")["id"])["state"] == "completed"
    # The first delay is about 1 s, in which the job stays available; the second is about 16 s.
    for job, state, attempts in ((once, "discarded", 1), (often, "retryable", 2)):
        wait(side, job, state)
        done = fleet.agreed(job)
        assert (done["state"], done["attempt"]) == (state, attempts)
        assert [error["error"] for error in done["errors"]] == [words] * attempts
        assert done["attempted_by"] == ["knows"] * attempts
        assert (done["finalized_at"] is None) == (state == "retryable")


@passed("the outcome of each sort of worker after a hard stop")
def test_hard_shutdown_soft_stop_classification(fleet: Fleet, side: Process) -> None:
    """After a hard stop, a job whose worker obeyed is given back, and any other has failed."""
    side.call("start", client_id="stops", max_workers=8)
    behaviors = ("cooperative_cancel", "cancel_error", "cancel_panic")
    jobs = {each: side.call("insert", behavior=each)["id"] for each in behaviors}
    for job in jobs.values():
        running(side, job)
    begun = fleet.agreed(jobs["cooperative_cancel"])
    side.call("stop", cancel=True)
    soft = fleet.agreed(jobs["cooperative_cancel"])
    assert (soft["state"], soft["attempt"], soft["errors"]) == ("available", 0, [])
    assert soft["attempted_at"] == begun["attempted_at"]
    for behavior in ("cancel_error", "cancel_panic"):
        hard = fleet.agreed(jobs[behavior])
        assert hard["state"] in {"available", "retryable"}, behavior
        assert (hard["attempt"], len(hard["errors"])) == (1, 1)
        assert re.search("conformance (failure|panic)", hard["errors"][0]["error"])


@passed("a cancelled job is cancelled by a hard stop, not given back")
def test_shutdown_after_cancel_attempt(fleet: Fleet, side: Process) -> None:
    """A hard stop cancels a job that was cancelled before, and does not give it back."""
    side.call("start", client_id="stops")
    job = side.call("insert", behavior="cooperative_cancel")["id"]
    running(side, job)
    fleet.do(
        "UPDATE river_job SET metadata = metadata ||"
        " jsonb_build_object('cancel_attempted_at', now()) WHERE id = :id",
        id=job,
    )
    side.call("stop", cancel=True)
    done = fleet.agreed(job)
    assert (done["state"], done["attempt"], done["finalized_at"] is None) == ("cancelled", 1, False)


@passed("a job that snoozed and was claimed again is cancelled")
def test_refetched_attempt_cancellation(fleet: Fleet, side: Process) -> None:
    """A job that snoozed and was claimed again at once can be cancelled like any other."""
    other = fleet.other(side)
    side.call("start", client_id="refetches")
    job = side.call("insert", behavior="snooze_then_cancel", duration_ms=5)["id"]

    def again() -> bool:
        seen = other.call("get", id=job)
        return seen["state"] == "running" and seen["metadata"].get("snoozes") == 1

    until(again, "the second attempt")
    other.call("cancel", id=job)
    assert wait(side, job)["state"] == "cancelled"
    assert fleet.agreed(job)["metadata"]["snoozes"] == 1
