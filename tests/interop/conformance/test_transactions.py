"""Changes in a caller's transaction become visible at its commit, and never without it."""

from contextlib import suppress
from typing import Any

import pytest

from interop.conformance.fleet import BOTH, Fleet, failed, wait
from interop.conformance.registry import passed
from interop.rpc import DATABASE, NOT_FOUND, REJECTED, Process, RpcError

UNIQUE = {"unique": {"by_args": True}}


def listed(process: Process, **params: Any) -> list[int]:
    """Return the ids of the jobs that a listing contains."""
    method = "tx_list" if "handle" in params else "list"
    return [job["id"] for job in process.call(method, **params)["jobs"]]


@passed("a job is visible from the commit on")
@pytest.mark.parametrize("name", BOTH)
def test_transaction_commit_visibility(fleet: Fleet, name: str) -> None:
    """A job is visible to others once its transaction commits."""
    process = fleet.side(name)
    process.call("tx_begin", handle="a")
    job = process.call("tx_insert", handle="a", job={"message": "hidden"})
    assert process.call("tx_get", handle="a", id=job["id"]) == job
    for each in (fleet.go, fleet.python):
        failed(each, NOT_FOUND, "get", id=job["id"])
    process.call("tx_commit", handle="a")
    assert fleet.agreed(job["id"]) == job
    failed(process, NOT_FOUND, "tx_commit", handle="a")
    failed(process, NOT_FOUND, "tx_insert", handle="a", job={})


@passed("a job that was rolled back is never visible")
@pytest.mark.parametrize("name", BOTH)
def test_transaction_rollback_visibility(fleet: Fleet, name: str) -> None:
    """A rolled-back job never becomes visible; two transactions do not see each other's jobs."""
    process = fleet.side(name)
    process.call("tx_begin", handle="a")
    process.call("tx_begin", handle="b")
    failed(process, REJECTED, "tx_begin", handle="a")
    failed(process, REJECTED, "reset")
    gone = process.call("tx_insert", handle="a", job={"message": "gone"})["id"]
    kept = process.call("tx_insert", handle="b", job={"message": "kept"})["id"]
    assert listed(process, handle="a") == [gone]
    process.call("tx_rollback", handle="a")
    process.call("tx_commit", handle="b")
    for each in (fleet.go, fleet.python):
        failed(each, NOT_FOUND, "get", id=gone)
        assert listed(each) == [kept]


@passed("nothing of an aborted transaction is ever visible")
@pytest.mark.parametrize("name", BOTH)
def test_transaction_abort_rollback_visibility(fleet: Fleet, name: str) -> None:
    """After a failed statement every call fails until the rollback, and nothing is written."""
    process = fleet.side(name)
    process.call("tx_begin", handle="a")
    job = process.call("tx_insert", handle="a", job={"message": "aborted"})["id"]
    process.call("tx_fail", handle="a")
    failed(process, DATABASE, "tx_insert", handle="a", job={"message": "after"})
    failed(process, DATABASE, "tx_get", handle="a", id=job)
    process.call("tx_rollback", handle="a")
    assert fleet.one("SELECT count(*) FROM river_job") == 0
    process.call("tx_begin", handle="a")
    process.call("tx_insert", handle="a", job={"message": "committed after a failure"})
    process.call("tx_fail", handle="a")
    # COMMIT of an aborted transaction rolls it back; only some drivers report that.
    with suppress(RpcError):
        process.call("tx_commit", handle="a")
    assert fleet.one("SELECT count(*) FROM river_job") == 0
    process.call("tx_begin", handle="a")
    process.call("tx_insert", handle="a", job={"message": "again"})
    process.call("tx_commit", handle="a")
    assert fleet.one("SELECT count(*) FROM river_job") == 1


@passed("updates, cancels, retries and deletions in a transaction")
@pytest.mark.parametrize("name", BOTH)
def test_transactional_crud_commit_rollback(fleet: Fleet, name: str) -> None:
    """Updates, cancels, retries and deletions are invisible to others until the commit."""
    process, other = fleet.side(name), fleet.other(fleet.side(name))
    jobs = [process.call("insert", message=str(n))["id"] for n in range(5)]
    before = [fleet.agreed(job) for job in jobs]
    for end in ("tx_rollback", "tx_commit"):
        process.call("tx_begin", handle="a")
        updated = process.call("tx_update", handle="a", id=jobs[0], output=[1])
        assert updated["metadata"] == {"output": [1]}
        assert process.call("tx_cancel", handle="a", id=jobs[1])["state"] == "cancelled"
        process.call("tx_cancel", handle="a", id=jobs[2])
        assert process.call("tx_retry", handle="a", id=jobs[2])["state"] == "available"
        assert process.call("tx_delete", handle="a", id=jobs[3])["id"] == jobs[3]
        deleted = process.call("tx_delete_many", handle="a", ids=[jobs[4]])
        assert [job["id"] for job in deleted["jobs"]] == [jobs[4]]
        failed(process, REJECTED, "tx_delete_many", handle="a")
        assert listed(process, handle="a", states=["cancelled"]) == [jobs[1]]
        assert [other.call("get", id=job) for job in jobs] == before
        process.call(end, handle="a")
        if end == "tx_rollback":
            assert [fleet.agreed(job) for job in jobs] == before
    assert fleet.agreed(jobs[0])["metadata"] == {"output": [1]}
    assert fleet.agreed(jobs[1])["state"] == "cancelled"
    assert listed(other) == jobs[:3]


@passed("pausing and describing queues in a transaction")
@pytest.mark.parametrize("name", BOTH)
def test_transactional_queue_operations(fleet: Fleet, name: str) -> None:
    """Pausing and describing queues is invisible to others until the commit."""
    process, other = fleet.side(name), fleet.other(fleet.side(name))
    fleet.do("INSERT INTO river_queue (name, updated_at) VALUES ('one', now()), ('two', now())")
    for end in ("tx_rollback", "tx_commit"):
        process.call("tx_begin", handle="a")
        process.call("tx_queue_pause", handle="a", name="one")
        process.call("tx_queue_pause", handle="a", name="two")
        process.call("tx_queue_resume", handle="a", name="two")
        process.call("tx_queue_update", handle="a", name="two", metadata={"owner": "tx"})
        assert process.call("tx_queue_get", handle="a", name="one")["paused_at"] is not None
        failed(process, NOT_FOUND, "tx_queue_get", handle="a", name="missing")
        inside = process.call("tx_queue_list", handle="a")["queues"]
        assert [queue["metadata"] for queue in inside] == [{}, {"owner": "tx"}]
        assert other.call("queue_get", name="one")["paused_at"] is None
        process.call(end, handle="a")
        seen = [other.call("queue_get", name=queue) for queue in ("one", "two")]
        committed = end == "tx_commit"
        assert (seen[0]["paused_at"] is not None) == committed
        assert seen[1]["metadata"] == ({"owner": "tx"} if committed else {})
        assert seen[1]["paused_at"] is None


@passed("a batch is visible from the commit on")
@pytest.mark.parametrize("name", BOTH)
def test_transactional_batch_insertion(fleet: Fleet, name: str) -> None:
    """A batch in a transaction becomes visible at the commit, in order and with its duplicates."""
    process = fleet.side(name)
    there = process.call("insert", message="there", opts=UNIQUE)["id"]
    batch = [{"message": "new"}, {"message": "there", "opts": UNIQUE}, {"message": "newer"}]
    for end in ("tx_rollback", "tx_commit"):
        process.call("tx_begin", handle="a")
        failed(process, REJECTED, "tx_insert_many", handle="a", jobs=[])
        results = process.call("tx_insert_many", handle="a", jobs=batch)["results"]
        made = [result["job"]["id"] for result in results]
        skipped = [result["unique_skipped_as_duplicate"] for result in results]
        assert (made[1], skipped) == (there, [False, True, False])
        assert listed(fleet.other(process)) == [there]
        process.call(end, handle="a")
        expected = [there] if end == "tx_rollback" else [there, made[0], made[2]]
        assert listed(fleet.other(process)) == expected


@passed("a worker completes its job in its own transaction")
@pytest.mark.parametrize("name", BOTH)
def test_transactional_completion(fleet: Fleet, name: str) -> None:
    """A worker completes its job in its own transaction."""
    process = fleet.side(name)
    process.call("start", client_id="completes")
    job = process.call("insert", behavior="transactional_complete")["id"]
    wait(process, job)
    process.call("stop")
    done = fleet.agreed(job)
    assert (done["state"], done["errors"], done["attempt"]) == ("completed", [], 1)
    assert done["metadata"]["transactional_completion"] is True
