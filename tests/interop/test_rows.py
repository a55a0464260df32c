"""What an attempt writes to its row, as the other language reads it and continues from it."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from factories import job_row
from interop.clients import Clients, Echo
from interop.peers import StartPeer
from riverrun import InsertOpts, JobCancel, JobContext, JobSnooze
from riverrun.policies.backoff import RiverBackoff

LATER = InsertOpts(max_attempts=3)


def instant(text: str) -> datetime:
    """Return the time in a text that Go wrote."""
    return datetime.fromisoformat(text)


def work_once(here: Clients, body: Any) -> str:
    """Work one job with a riverrun client, and return the client's id."""
    done: list[int] = []

    def work(args: Echo, ctx: JobContext) -> None:
        done.append(ctx.job.id)
        body(args, ctx)

    client = here.run(work)
    here.wait(lambda: done, "a job worked")
    client.stop()
    return client.id


def fail(args: Echo, ctx: JobContext) -> None:
    """Fail with an ordinary error."""
    raise ValueError("日本 failed")


def test_failures_of_both_add_up(go_peer: StartPeer, here: Clients) -> None:
    """Each side counts the other's failures in errors, attempted_by, retry times and the end."""
    peer, inserter = go_peer(), here.inserter()
    job = inserter.insert(here.engine, Echo(behavior="error"), LATER).job
    ours = work_once(here, fail)

    seen = peer.call("get", id=job.id)
    (error,) = seen["errors"]
    assert (error["attempt"], error["error"]) == (1, "ValueError: 日本 failed")
    assert 'raise ValueError("日本 failed")' in error["trace"]
    assert error["at"] == seen["attempted_at"]
    assert (seen["state"], seen["attempt"], seen["attempted_by"]) == ("available", 1, [ours])
    # One failure waits a second, 10 % more or less, counted from the attempt's end.
    after = instant(seen["scheduled_at"]) - instant(seen["attempted_at"])
    assert timedelta(seconds=0.9) <= after <= timedelta(seconds=3)

    inserter.retry(here.engine, job.id)  # so that it need not wait a second
    seen = peer.call("work", id=job.id, client_id="gopher")
    row = inserter.get(here.engine, job.id)
    assert (row.state, row.attempt, row.attempted_by) == ("retryable", 2, (ours, "gopher"))
    assert [error["attempt"] for error in row.errors] == [1, 2]
    assert row.errors[1]["error"] == "conformance retryable error"
    assert row.attempted_at is not None
    after = row.scheduled_at - row.attempted_at
    assert timedelta(seconds=14.4) <= after <= timedelta(seconds=20)

    inserter.retry(here.engine, job.id)
    work_once(here, fail)
    here.wait_state(job.id, "discarded")
    seen = peer.call("get", id=job.id)
    assert len(seen["errors"]) == 3
    assert seen["finalized_at"]

    # A retry in Go raises max_attempts for a job without attempts left, and riverrun uses it.
    assert peer.call("retry", id=job.id)["max_attempts"] == 4
    work_once(here, lambda args, ctx: None)
    here.wait_state(job.id, "completed")


@pytest.mark.parametrize("failures", [1, 2, 3, 7, 25, 100, 309, 310, 1000])
def test_retry_times_are_rivers(go_peer: StartPeer, failures: int) -> None:
    """After any number of failures both sides wait equally long, within 10 %, up to the cap."""
    delay_ns = go_peer().call("retry_delay", error_count=failures, job_id=1)["delay_ns"]
    now = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
    job = job_row(errors=({},) * (failures - 1))
    least, most = (
        (RiverBackoff(rng=lambda share=share: share)(job, now) - now).total_seconds()
        for share in (0.0, 1.0)
    )
    # Go's clock was read shortly before it answered, and a float with ten digits is not exact.
    assert least * (1 - 1e-6) - 0.001 <= delay_ns / 1e9 <= most * (1 + 1e-6) + 1


def test_snoozes_of_both_add_up(go_peer: StartPeer, here: Clients) -> None:
    """A snooze by either side gives the attempt back, and both sides count it."""
    peer, inserter = go_peer(), here.inserter()
    metadata = {"big": 2**60 + 1, "half": 0.5, "text": "日本 <&>"}
    opts = InsertOpts(metadata=metadata)
    job = inserter.insert(here.engine, Echo(behavior="snooze_once", duration_ms=4000), opts).job
    seen = peer.call("work", id=job.id, client_id="gopher")
    # It is due within the five seconds that the scheduler looks ahead.
    assert (seen["state"], seen["attempt"], seen["errors"]) == ("available", 0, [])
    row = inserter.get(here.engine, job.id)
    assert (row.attempt, row.metadata) == (0, {**metadata, "snoozes": 1})

    def snooze(args: Echo, ctx: JobContext) -> None:
        assert ctx.job.metadata["snoozes"] == 1
        raise JobSnooze(3600)

    inserter.retry(here.engine, job.id)  # so that it need not wait four seconds
    ours = work_once(here, snooze)
    here.wait_state(job.id, "scheduled")
    seen = peer.call("get", id=job.id)
    assert (seen["attempt"], seen["errors"]) == (0, [])
    assert seen["metadata"] == {**metadata, "snoozes": 2}
    assert seen["attempted_by"] == ["gopher", ours]
    after = instant(seen["scheduled_at"]) - instant(seen["attempted_at"])
    assert timedelta(seconds=3599) < after < timedelta(seconds=3610)

    peer.call("retry", id=job.id)
    done = peer.call("work", id=job.id, client_id="gopher")
    assert (done["state"], done["attempt"]) == ("completed", 1)


def test_outputs_and_metadata_are_read_by_the_other(go_peer: StartPeer, here: Clients) -> None:
    """The other side reads what a worker records and what an operator updates."""
    peer, inserter = go_peer(), here.inserter()
    job = peer.call("insert", message="first")

    def record(args: Echo, ctx: JobContext) -> None:
        ctx.record_output({"from": "python", "exact": 2**60 + 1})
        ctx.set_metadata("note", ["日本"])

    work_once(here, record)
    here.wait_state(job["id"], "completed")
    seen = peer.call("get", id=job["id"])["metadata"]
    assert seen == {"note": ["日本"], "output": {"from": "python", "exact": 2**60 + 1}}
    peer.call("update", id=job["id"], output={"from": "go"})
    row = inserter.get(here.engine, job["id"])
    assert row.metadata == {"note": ["日本"], "output": {"from": "go"}}

    second = inserter.insert(here.engine, Echo(behavior="output", message="there")).job
    peer.call("work", id=second.id)
    assert inserter.get(here.engine, second.id).metadata["output"] == {"message": "there"}


def test_a_workers_cancel_has_the_same_error_text(go_peer: StartPeer, here: Clients) -> None:
    """A job that its worker cancels has the same row in both languages."""
    peer, inserter = go_peer(), here.inserter()
    ours = inserter.insert(here.engine, Echo(behavior="cancel")).job

    def cancel(args: Echo, ctx: JobContext) -> None:
        raise JobCancel("cancelled by conformance worker")

    work_once(here, cancel)
    here.wait_state(ours.id, "cancelled")
    theirs = peer.call("insert", behavior="cancel")
    peer.call("work", id=theirs["id"])
    both = [peer.call("get", id=job_id) for job_id in (ours.id, theirs["id"])]
    assert both[0]["state"] == both[1]["state"] == "cancelled"
    texts = [[error["error"] for error in job["errors"]] for job in both]
    assert texts[0] == texts[1] == ["JobCancelError: cancelled by conformance worker"]


def test_steps_are_resumed_across_languages(go_peer: StartPeer, here: Clients) -> None:
    """A job that failed after a step in one language continues after it in the other."""
    peer, inserter = go_peer(), here.inserter()
    job = peer.call("insert", behavior="resumable_cursor")
    seen = peer.call("work", id=job["id"])
    assert seen["metadata"]["river:resumable_step"] == "first"
    got: list[Any] = []

    def go_on(args: Echo, ctx: JobContext) -> None:
        ctx.step("first", lambda: got.append("first again"))
        ctx.cursor_step("second", got.append)
        ctx.step("third", lambda: 1 // 0)

    inserter.retry(here.engine, job["id"])
    work_once(here, go_on)
    assert got == [7]
    here.wait(lambda: inserter.get(here.engine, job["id"]).attempt == 2, "second attempt")
    here.wait(lambda: len(inserter.get(here.engine, job["id"]).errors) == 2, "second failure")
    assert inserter.get(here.engine, job["id"]).metadata["river:resumable_step"] == "second"
    inserter.retry(here.engine, job["id"])
    done = peer.call("work", id=job["id"])
    assert (done["state"], done["attempt"]) == ("completed", 3)
    assert done["metadata"]["first_attempt"] == 1


def test_a_full_row_is_read_alike(go_peer: StartPeer, here: Clients) -> None:
    """Every column of a row has the same value in both languages."""
    seen = go_peer().call("raw_insert_full_row")
    row = here.inserter().get(here.engine, seen["id"])
    assert row.unique_key is not None
    assert row.unique_states is not None
    assert {
        "args": row.args,
        "attempt": row.attempt,
        "attempted_at": row.attempted_at,
        "attempted_by": list(row.attempted_by),
        "created_at": row.created_at,
        "errors": list(row.errors),
        "finalized_at": row.finalized_at,
        "id": row.id,
        "kind": row.kind,
        "max_attempts": row.max_attempts,
        "metadata": row.metadata,
        "priority": row.priority,
        "queue": row.queue,
        "scheduled_at": row.scheduled_at,
        "state": row.state,
        "tags": list(row.tags),
        "unique_key": row.unique_key.hex(),
        "unique_states": sorted(row.unique_states),
    } == {name: instant(value) if name.endswith("_at") else value for name, value in seen.items()}
