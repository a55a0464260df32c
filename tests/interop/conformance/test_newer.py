"""Scenarios that River added after 0.49."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from interop.conformance.fleet import BOTH, WAYS, Fleet, until, wait

both_ways = pytest.mark.parametrize(("by", "to"), WAYS)
each_side = pytest.mark.parametrize("name", BOTH)
UNIQUE = {"by_args": True, "by_state": ["available", "pending", "running", "scheduled"]}


@each_side
def test_claim_order(fleet: Fleet, name: str) -> None:
    """Jobs are worked by priority, then by when they were due, then in order of insertion."""
    expected = []
    for number, (priority, hour) in enumerate([(4, 1), (2, 3), (2, 2), (1, 5), (2, 2), (3, 1)]):
        opts = {"priority": priority, "scheduled_at": f"2026-01-01T0{hour}:00:00Z"}
        job = fleet.side(BOTH[number % 2]).call("insert", opts=opts)["id"]
        fleet.do("UPDATE river_job SET state = 'available' WHERE id = :id", id=job)
        expected.append((priority, hour, job))
    worker = fleet.side(name)
    worker.call("start", client_id="orders", max_workers=1)
    for *_, job in expected:
        wait(worker, job)
    # What one statement claims or completes has one time; of those the order is not to be seen.
    worked = fleet.rows(
        "SELECT id FROM river_job ORDER BY attempted_at, finalized_at, priority, scheduled_at, id"
    )
    assert [row.id for row in worked] == [job for *_, job in sorted(expected)]


@both_ways
def test_cross_language_cancel_retry_race(fleet: Fleet, by: str, to: str) -> None:
    """Of a cancel and a retry at once either is the last: the row is whole in both cases."""
    canceller, retrier = fleet.side(by), fleet.side(to)
    job = canceller.call("insert", opts={"scheduled_at": "2040-01-01T00:00:00Z"})["id"]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(30):
            calls = [
                threads.submit(canceller.call, "cancel", id=job),
                threads.submit(retrier.call, "retry", id=job),
            ]
            for call in calls:
                call.result()
            seen = fleet.agreed(job)
            assert (seen["state"], seen["finalized_at"] is None) in {
                ("cancelled", False),
                ("available", True),
            }
    assert canceller.call("cancel", id=job)["state"] == "cancelled"
    assert retrier.call("retry", id=job)["state"] == "available"


@both_ways
def test_exhausted_job_retry(fleet: Fleet, by: str, to: str) -> None:
    """A job without attempts left gets one more when it is retried."""
    worker = fleet.side(to)
    job = worker.call("insert", behavior="error", opts={"max_attempts": 1})["id"]
    assert worker.call("work", id=job)["state"] == "discarded"
    retried = fleet.side(by).call("retry", id=job)
    assert (retried["state"], retried["attempt"], retried["max_attempts"]) == ("available", 1, 2)
    done = worker.call("work", id=job)
    assert (done["state"], done["attempt"], len(done["errors"])) == ("discarded", 2, 2)


@each_side
def test_scheduler_unique_conflict_discard(fleet: Fleet, name: str) -> None:
    """A job that is due while another has its key is discarded, and its metadata says so."""
    leader, other = fleet.side(name), fleet.other(fleet.side(name))
    opts = {"queue": "elsewhere", "unique": UNIQUE}
    due = other.call("insert", message="once", opts=opts)["id"]
    fleet.do("UPDATE river_job SET state = 'retryable' WHERE id = :id", id=due)
    holder = other.call("insert", message="once", opts=opts)["id"]
    assert holder != due
    leader.call("start", client_id="schedules")
    until(lambda: leader.call("get", id=due)["state"] != "retryable", "scheduled")
    discarded = fleet.agreed(due)
    assert (discarded["state"], discarded["finalized_at"] is None) == ("discarded", False)
    assert discarded["metadata"]["unique_key_conflict"] == "scheduler_discarded"
    assert fleet.agreed(holder)["state"] == "available"


@each_side
def test_unique_skip_keeps_existing_kind(fleet: Fleet, name: str) -> None:
    """A duplicate of a job of another kind leaves that job's kind as it is."""
    process = fleet.side(name)
    opts = {"unique": {"by_args": True, "exclude_kind": True}}
    there = process.call("insert", message="once", opts=opts)
    fleet.do("UPDATE river_job SET kind = 'renamed'")
    batch = [{"message": "once", "opts": opts}]
    (again,) = process.call("insert_many", jobs=batch)["results"]
    assert again["unique_skipped_as_duplicate"]
    assert (again["job"]["id"], again["job"]["kind"]) == (there["id"], "renamed")
    assert fleet.agreed(there["id"])["kind"] == "renamed"


def test_rescuer_unknown_kind(fleet: Fleet) -> None:
    """A lost job of a kind that the leader does not know is retried: another client may."""
    job = fleet.python.call("raw_insert_no_notify", kind="unknown_kind")["id"]
    fleet.do(
        "UPDATE river_job SET state = 'running', attempt = 1, attempted_by = '{gone}',"
        " attempted_at = now() - interval '1 day', queue = 'elsewhere'"
    )
    fleet.python.call("start", client_id="rescues", rescue_after_ms=60_000, retry_delay_ms=5)
    until(lambda: fleet.python.call("get", id=job)["state"] != "running", "rescued")
    rescued = fleet.agreed(job)
    assert rescued["state"] in {"available", "retryable"}
    assert (rescued["attempt"], len(rescued["errors"])) == (1, 1)


@each_side
def test_kind_alias_rename(fleet: Fleet, name: str) -> None:
    """A worker also works, and in one order, what either side inserts by its kind's alias."""
    python = fleet.python
    kind = python.call("insert", opts={"queue": "elsewhere"})["kind"]
    before = fleet.side(name).call("raw_insert_no_notify", kind=f"{kind}_before")["id"]
    now = python.call("insert")["id"]
    python.call("start", client_id="renames", max_workers=1)
    worked = [wait(python, job) for job in (before, now)]
    assert [(job["kind"], job["state"]) for job in worked] == [
        (f"{kind}_before", "completed"),
        (kind, "completed"),
    ]
