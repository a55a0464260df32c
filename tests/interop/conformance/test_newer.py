"""Scenarios that River added after 0.49."""

from datetime import timedelta
from typing import Any

import pytest

from interop.conformance.fleet import BOTH, GO, PYTHON, WAYS, Fleet, moment, wait
from interop.conformance.registry import differs, passed
from waiting import until

both_ways = pytest.mark.parametrize(("by", "to"), WAYS)
each_side = pytest.mark.parametrize("name", BOTH)
UNIQUE = {"by_args": True, "by_state": ["available", "pending", "running", "scheduled"]}


@differs(
    "jobs are claimed by priority, then due time, then id",
    river="with one slot, each job is claimed by itself, at a time of its own",
    riverrun="the same order; several short jobs may be claimed at one time",
    because="riverrun claims ahead when jobs are shorter than a round trip",
)
@each_side
def test_claim_order(fleet: Fleet, name: str) -> None:
    """Jobs are worked by priority, then by due time, then in order of insertion."""
    inserter, worker = fleet.other(fleet.side(name)), fleet.side(name)
    now = moment(fleet.one("SELECT to_json(date_trunc('second', now()))"))
    expected = []
    for priority, ago_s in [(1, 30), (4, 60), (1, 60), (3, 180), (1, 120), (1, 120)]:
        at = now - timedelta(seconds=ago_s)
        opts = {"priority": priority, "scheduled_at": at.isoformat()}
        job = inserter.call("insert", behavior="sleep", duration_ms=5, opts=opts)
        assert job["state"] == "scheduled"
        expected.append((priority, at, job["id"]))
    worker.call("start", client_id="orders", max_workers=1)
    for *_, job in expected:
        done = wait(worker, job)
        assert (done["attempt"], done["attempted_by"], done["errors"]) == (1, ["orders"], [])
    if name == PYTHON:  # jobs claimed by one statement have the same time
        order = fleet.rows(
            "SELECT id FROM river_job ORDER BY attempted_at, priority, scheduled_at, id"
        )
    else:
        assert fleet.one("SELECT count(DISTINCT attempted_at) FROM river_job") == len(expected)
        order = fleet.rows("SELECT id FROM river_job ORDER BY attempted_at")
    assert [row.id for row in order] == [job for *_, job in sorted(expected)]


@passed("the loser of two cancels, or of two retries, waits and returns the winner's row")
@both_ways
def test_cross_language_cancel_retry_race(fleet: Fleet, by: str, to: str) -> None:
    """The second of two concurrent cancels, or retries, waits and returns the first one's row."""
    winner, loser = fleet.side(by), fleet.side(to)
    job = winner.call("insert", opts={"scheduled_at": "2040-01-01T00:00:00Z"})["id"]
    for method in ("cancel", "retry"):
        winner.call("tx_begin", handle=method)
        won = winner.call(f"tx_{method}", handle=method, id=job)
        with fleet.waiting(loser, method, id=job) as answer:
            fleet.lock_awaited(loser)
            winner.call("tx_commit", handle=method)
            assert answer() == won, method
        assert fleet.agreed(job) == won, method


@passed("a retried job without attempts left gets one more")
@both_ways
def test_exhausted_job_retry(fleet: Fleet, by: str, to: str) -> None:
    """Retrying a job without attempts left gives it one more; other jobs keep their maximum."""
    retrier, worker = fleet.side(by), fleet.side(to)
    for behavior, state, before, after in (
        ("error", "discarded", 1, 2),
        ("cancel", "cancelled", 3, 3),
    ):
        job = worker.call("insert", behavior=behavior, opts={"max_attempts": before})["id"]
        final = worker.call("work", id=job)
        assert (final["state"], final["attempt"]) == (state, 1)
        retried = retrier.call("retry", id=job)
        assert fleet.agreed(job) == retried
        assert (retried["state"], retried["attempt"]) == ("available", 1)
        assert (retried["max_attempts"], retried["finalized_at"]) == (after, None)
        assert len(retried["errors"]) == 1
        assert moment(retried["scheduled_at"]) > moment(final["finalized_at"])
    done = worker.call("work", id=job)
    assert (done["attempt"], len(done["errors"])) == (2, 2)


@passed("due jobs whose unique key is taken are discarded")
@each_side
def test_scheduler_unique_conflict_discard(fleet: Fleet, name: str) -> None:
    """Of due jobs with one key one becomes available, or none if a live job has the key."""
    leader, other = fleet.side(name), fleet.other(fleet.side(name))
    opts: dict[str, Any] = {"queue": "elsewhere", "max_attempts": 3, "unique": UNIQUE}

    def retryable(message: str, opts: dict[str, Any]) -> int:
        job: int = other.call("insert", message=message, opts=opts)["id"]
        fleet.do("UPDATE river_job SET state = 'retryable' WHERE id = :id", id=job)
        return job

    conflict = retryable("conflict", opts)
    first = retryable("duplicate", opts)
    second = retryable("duplicate", opts)
    plain = retryable("not unique", {"queue": "elsewhere"})
    holder = other.call("insert", message="conflict", opts=opts)["id"]
    assert len({conflict, first, second, plain, holder}) == 5
    leader.call("start", client_id="schedules")
    left = "SELECT count(*) FROM river_job WHERE state = 'retryable'"
    until(lambda: fleet.one(left) == 0, "all scheduled")
    for job in (conflict, second):
        discarded = fleet.agreed(job)
        assert (discarded["state"], discarded["finalized_at"] is None) == ("discarded", False)
        assert discarded["metadata"]["unique_key_conflict"] == "scheduler_discarded"
    for job in (first, plain, holder):
        kept = fleet.agreed(job)
        assert (kept["state"], kept["finalized_at"]) == ("available", None)
        assert "unique_key_conflict" not in kept["metadata"]


@passed("a skipped duplicate leaves the existing job as it is")
@both_ways
def test_unique_skip_keeps_existing_kind(fleet: Fleet, by: str, to: str) -> None:
    """A duplicate of the other side's job, even of another kind, leaves that job unchanged."""
    first, skipper = fleet.side(by), fleet.side(to)
    job = {"message": "once", "opts": {"unique": {"by_args": True, "exclude_kind": True}}}
    made = first.call("insert", **job)["id"]
    fleet.do("UPDATE river_job SET kind = 'renamed'")
    existing = fleet.agreed(made)
    assert skipper.call("insert", **job) == existing
    (again,) = skipper.call("insert_many", jobs=[job])["results"]
    assert again == {"job": existing, "unique_skipped_as_duplicate": True}
    assert first.call("list")["jobs"] == [existing]


@differs(
    "the lost job of a kind that the leader does not know",
    river="it is discarded",
    riverrun="it is retried as a known kind is",
    because="another client may know the kind",
)
@each_side
def test_rescuer_unknown_kind(fleet: Fleet, name: str) -> None:
    """River discards a lost job of a kind that the leader does not know; riverrun retries it."""
    leader = fleet.side(name)
    known = leader.call("raw_insert_no_notify")["id"]
    unknown = leader.call("raw_insert_no_notify", kind="unknown_kind")["id"]
    fleet.do(
        "UPDATE river_job SET state = 'running', attempt = 1, attempted_by = '{gone}',"
        " attempted_at = now() - interval '1 day', queue = 'elsewhere'"
    )
    leader.call("start", client_id="rescues", rescue_after_ms=60_000, retry_delay_ms=60_000)
    running = "SELECT count(*) FROM river_job WHERE state = 'running'"
    until(lambda: fleet.one(running) == 0, "both rescued", 40)
    outcomes = {known: "retryable", unknown: "discarded" if name == GO else "retryable"}
    for job, state in outcomes.items():
        rescued = fleet.agreed(job)
        assert (rescued["state"], rescued["attempt"]) == (state, 1)
        assert rescued["metadata"]["river:rescue_count"] == 1
        (error,) = rescued["errors"]
        assert (error["error"], error["attempt"]) == ("Stuck job rescued by JobRescuer", 1)
        if state == "retryable":
            delay = moment(rescued["scheduled_at"]) - moment(error["at"])
            assert timedelta(seconds=59) < delay < timedelta(seconds=61)


@differs(
    "a worker works its kind and its former name",
    river="it does so in an ordinary client and in one that fetches only known kinds",
    riverrun="the first half; riverrun has no client that fetches only known kinds",
    because="see heterogeneous_fleet",
)
@each_side
def test_kind_alias_rename(fleet: Fleet, name: str) -> None:
    """A worker works jobs inserted under its kind's alias by either side, in the same order."""
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
