"""Jobs and queues that one side writes and the other reads and changes."""

import json
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from interop.conformance.fleet import BOTH, PYTHON, WAYS, Fleet, failed
from interop.conformance.registry import differs, passed
from interop.rpc import DATABASE, NOT_FOUND, REJECTED, Process

STATES = (
    "available",
    "cancelled",
    "completed",
    "discarded",
    "pending",
    "retryable",
    "running",
    "scheduled",
)
ORDERS = ("id", "finalized_at", "scheduled_at", "time")
# Each character that Go's JSON escapes, and three that it does not.
CURSOR_KIND = "conformance_cursor<>&~~~"


def ids(answer: dict[str, Any]) -> list[int]:
    """Return the ids of the jobs in a response."""
    return [job["id"] for job in answer["jobs"]]


def make_every_state(fleet: Fleet) -> None:
    """Insert three jobs of each state, with different times, tags, priorities and metadata."""
    for n in range(3):
        for m, state in enumerate(STATES):
            number = n * len(STATES) + m
            process = fleet.go if number % 2 else fleet.python
            job = process.call(
                "insert",
                message=str(number),
                opts={
                    "metadata": {"n": n, "even": number % 2 == 0},
                    "priority": 1 + number % 4,
                    "queue": f"queue_{n}",
                    "tags": [f"tag_{n}", state],
                },
            )
            ended = state in {"cancelled", "completed", "discarded"}
            fleet.do(
                "UPDATE river_job SET state = cast(:state AS river_job_state), finalized_at ="
                " CASE WHEN :ended THEN timestamptz '2026-01-01Z' + :later * interval '1 s' END,"
                " scheduled_at = timestamptz '2026-01-02Z' + :later * interval '0.123457 second',"
                " attempted_at = timestamptz '2026-01-03Z' + :later * interval '1 millisecond'"
                " WHERE id = :id",
                id=job["id"],
                state=state,
                ended=ended,
                later=number * 7 % 24,
            )


@passed("get, update, cancel, retry and delete give the same rows")
def test_differential_job_crud(fleet: Fleet) -> None:
    """Both sides see the same job, whichever of them inserts, changes or deletes it."""
    for process in (fleet.go, fleet.python):
        other = fleet.other(process)
        job = process.call("insert", message="one", opts={"tags": ["tag_a"], "metadata": {"a": 1}})
        assert fleet.agreed(job["id"]) == job
        assert other.call("update", id=job["id"], output={"x": [1]})["metadata"]["output"] == {
            "x": [1]
        }
        assert process.call("update", id=job["id"])["metadata"] == {"a": 1, "output": {"x": [1]}}
        cancelled = other.call("cancel", id=job["id"])
        assert (cancelled["state"], cancelled["finalized_at"] is None) == ("cancelled", False)
        assert process.call("cancel", id=job["id"]) == cancelled
        retried = process.call("retry", id=job["id"])
        assert (retried["state"], retried["finalized_at"]) == ("available", None)
        assert other.call("retry", id=job["id"])["state"] == "available"
        assert fleet.agreed(job["id"])["scheduled_at"] >= retried["scheduled_at"]
        last = fleet.agreed(job["id"])
        assert other.call("delete", id=job["id"]) == last
        runs = process.call("insert")["id"]
        fleet.do("UPDATE river_job SET state = 'running' WHERE id = :id", id=runs)
        for each in (process, other):
            for method in ("get", "update", "cancel", "retry", "delete"):
                failed(each, NOT_FOUND, method, id=job["id"])
            assert each.call("retry", id=runs)["state"] == "running"
            failed(each, REJECTED, "delete", id=runs)


@passed("no bulk deletion without a filter, and none of running jobs")
def test_bulk_delete_safety(fleet: Fleet) -> None:
    """A deletion without a filter is refused; one with a filter deletes no running job."""
    for process in (fleet.go, fleet.python):
        process.call("reset")
        made = process.call("insert_many", jobs=[{"message": str(n)} for n in range(5)])
        numbers = [result["job"]["id"] for result in made["results"]]
        fleet.do("UPDATE river_job SET state = 'running' WHERE id = :id", id=numbers[1])
        assert failed(process, REJECTED, "delete_many")
        assert failed(process, REJECTED, "delete_many", limit=2)
        assert ids(process.call("delete_many", ids=[numbers[0], numbers[1]])) == [numbers[0]]
        assert ids(process.call("delete_many", kinds=["no_such_kind"])) == []
        assert ids(process.call("delete_many", states=["available"], limit=1)) == [numbers[2]]
        assert ids(process.call("delete_many", all=True)) == numbers[3:]
        assert ids(fleet.other(process).call("list")) == [numbers[1]]


@passed("every filter and order lists the same jobs with the same cursors")
def test_differential_job_list_filters_and_cursors(fleet: Fleet) -> None:
    """For every filter, order and direction, both sides list the same jobs and the same cursor."""
    make_every_state(fleet)
    asked: list[dict[str, Any]] = [
        {},
        {"limit": 3},
        {"ids": [1, 5, 7, 99]},
        {"kinds": ["conformance_echo"]},
        {"kinds": ["other"]},
        {"queues": ["queue_1", "queue_2"]},
        {"states": ["completed", "running"]},
        {"states": ["scheduled"], "order_by": "time"},
        {"priorities": [2, 3]},
        {"tags_all": ["tag_1", "running"]},
        {"tags_any": ["tag_1", "running"]},
        {"metadata": {"even": True}},
        {"metadata": {"n": 2}, "queues": ["queue_2"], "priorities": [1], "limit": 2},
    ]
    finalized = ["cancelled", "completed", "discarded"]
    for order in ORDERS:
        states = finalized if order == "finalized_at" else ["available", "retryable", "scheduled"]
        ordered: dict[str, Any] = {"order_by": order, "states": states, "limit": 4}
        asked += [{**ordered, "direction": direction} for direction in ("asc", "desc")]
    for params in asked:
        answers = [process.call("list", **params) for process in (fleet.go, fleet.python)]
        assert answers[0] == answers[1], params


@passed("a listing continues with the other side's cursor, in every order")
@pytest.mark.parametrize(("by", "to"), WAYS)
def test_job_list_cursor_interchange(fleet: Fleet, by: str, to: str) -> None:
    """One side can continue the other's listing, page by page, in every order."""
    make_every_state(fleet)
    fleet.do("UPDATE river_job SET kind = :kind", kind=CURSOR_KIND)
    hop(fleet, [fleet.side(by), fleet.side(to)])


@passed(
    "pages of one listing from several processes",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_job_list_cursor_interchange(fleet: Fleet) -> None:
    """Four processes of both sides alternate on the pages of one listing."""
    make_every_state(fleet)
    hop(fleet, [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")])


def hop(fleet: Fleet, processes: list[Process]) -> None:
    """List in pages of two, each page by the next process, in every order and direction."""
    listings = [
        ("id", ["available", "scheduled"]),
        ("finalized_at", ["cancelled", "completed", "discarded"]),
        ("scheduled_at", ["available", "scheduled"]),
        ("time", ["available", "scheduled"]),
        ("time", ["cancelled"]),
        # The first state's time decides, which the others lack: ascending order puts nulls last.
        ("time", ["cancelled", "available"]),
        ("time", ["available", "cancelled"]),
    ]
    for order, states in listings:
        for direction in ("asc", "desc"):
            params: dict[str, Any] = {"order_by": order, "direction": direction, "states": states}
            whole = [ids(process.call("list", **params)) for process in processes]
            assert all(each == whole[0] for each in whole), params
            pages, after = [], {}
            for turn in range(len(whole[0])):
                page = processes[turn % len(processes)].call("list", limit=2, **params, **after)
                next_page = processes[(turn + 1) % len(processes)]
                assert next_page.call("list", limit=2, **params, **after) == page, params
                if not page["jobs"]:
                    break
                pages += ids(page)
                after = {"after": page["cursor"]}
            assert pages == whole[0], params


@passed("queues are read and changed alike; a metadata update is notified once")
def test_differential_queue_crud(fleet: Fleet) -> None:
    """Both sides list, pause, resume and describe queues alike."""
    url = fleet.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    fleet.do(
        "INSERT INTO river_queue (name, updated_at)"
        " VALUES ('q1', now()), ('q2', now()), ('q3', now()), ('q4', now())"
    )
    for process in (fleet.go, fleet.python):
        other = fleet.other(process)
        process.call("queue_pause", name="q1")
        paused = other.call("queue_get", name="q1")
        assert paused["paused_at"] is not None
        other.call("queue_pause", name="q1")
        assert process.call("queue_get", name="q1") == paused
        process.call("queue_resume", name="q1")
        assert other.call("queue_get", name="q1")["paused_at"] is None
        metadata = {"owner": process.name, "nested": {"list": [1, None, "é"]}}
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'LISTEN "{fleet.schema}.river_control"')
            changed = process.call("queue_update", name="q2", metadata=metadata)
            assert changed["metadata"] == metadata
            connection.execute(f"NOTIFY \"{fleet.schema}.river_control\", 'marker'")
            payloads = [each.payload for each in connection.notifies(timeout=10, stop_after=2)]
        assert payloads[1] == "marker"
        assert json.loads(payloads[0]) == {
            "action": "metadata_changed",
            "metadata": metadata,
            "queue": "q2",
        }
        process.call("queue_pause", name="*")
        lists = [each.call("queue_list", limit=3) for each in (process, other)]
        assert lists[0] == lists[1]
        assert [queue["name"] for queue in lists[0]["queues"]] == ["q1", "q2", "q3"]
        assert all(queue["paused_at"] for queue in lists[0]["queues"])
        process.call("queue_resume", name="*")
        assert process.call("queue_get", name="q2") == other.call("queue_get", name="q2")


@passed("unusual queue names; control of a queue that does not exist")
@pytest.mark.parametrize("name", BOTH)
def test_queue_names_and_unknown_queue_control(fleet: Fleet, name: str) -> None:
    """Jobs can be inserted into any queue name; control of an unknown queue finds none."""
    process = fleet.side(name)
    job = process.call("insert", opts={"queue": "tenant|emails"})
    assert fleet.agreed(job["id"])["queue"] == "tenant|emails"
    for missing in ("missing", "tenant|emails", "missing queue", "q" * 129):
        for method in ("queue_get", "queue_pause", "queue_resume", "queue_update"):
            failed(process, NOT_FOUND, method, name=missing)
    process.call("queue_pause", name="*")
    process.call("queue_resume", name="*")


@differs(
    "batches keep their order and options, and insert all jobs or none",
    river="a batch that repeats a unique key fails, and inserts nothing",
    riverrun="the second job of the key is returned as a duplicate of the first; all else as River"
    " asserts",
    because="an insert of a duplicate is no error anywhere else either",
)
@pytest.mark.parametrize("name", BOTH)
def test_typed_batch_insertion(fleet: Fleet, name: str) -> None:
    """A batch keeps its order and options, and is inserted as a whole or not at all.

    An empty batch is refused.
    """
    process = fleet.side(name)
    failed(process, REJECTED, "insert_many", jobs=[])
    unique = {"unique": {"by_args": True}}
    jobs: list[dict[str, Any]] = [
        {"message": "first", "opts": {"priority": 4, "tags": ["tag_a"]}},
        {"message": "second", "behavior": "output", "opts": {"queue": "batch", "pending": True}},
        {"message": "unique", "opts": unique},
        {"message": "later", "opts": {"scheduled_at": "2040-01-01T00:00:00Z", "max_attempts": 2}},
    ]
    results = process.call("insert_many", jobs=jobs)["results"]
    made = [result["job"] for result in results]
    assert [job["args"]["message"] for job in made] == [job["message"] for job in jobs]
    assert [job["state"] for job in made] == ["available", "pending", "available", "scheduled"]
    assert [job["id"] for job in made] == sorted(job["id"] for job in made)
    assert [fleet.agreed(job["id"]) for job in made] == made
    again = process.call("insert_many", jobs=[jobs[2], jobs[0]])["results"]
    assert [result["unique_skipped_as_duplicate"] for result in again] == [True, False]
    assert again[0]["job"]["id"] == made[2]["id"]
    before = fleet.one("SELECT count(*) FROM river_job")
    twice = [{"message": "twice", "opts": unique}] * 2
    if name == PYTHON:
        first, second = process.call("insert_many", jobs=twice)["results"]
        assert not first["unique_skipped_as_duplicate"]
        assert second == {"job": first["job"], "unique_skipped_as_duplicate": True}
        before += 1
    else:
        failed(process, DATABASE, "insert_many", jobs=twice)
    bad = [*jobs, {"message": "bad", "opts": {"priority": 9}}]
    failed(process, REJECTED, "insert_many", jobs=bad)
    only = {"unique": {"exclude_kind": True}}
    failed(process, REJECTED, "insert_many", jobs=[{"opts": only}])
    assert fleet.one("SELECT count(*) FROM river_job") == before
    many = process.call("insert_many", jobs=[{"message": str(n)} for n in range(6_000)])["results"]
    assert [result["job"]["args"]["message"] for result in many] == [*map(str, range(6_000))]
    assert all(a["job"]["id"] < b["job"]["id"] for a, b in pairwise(many))
    assert fleet.agreed(many[-1]["job"]["id"]) == many[-1]["job"]
