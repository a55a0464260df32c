"""Jobs whose client is dead, or just slow, under a leader of the other language."""

import threading
from datetime import datetime, timedelta
from typing import Any

from interop.clients import Clients, Ours
from interop.peers import StartPeer
from interop.rpc import Process
from riverrun import JobContext, QueueConfig
from riverrun.runtime.heartbeat import DEAD_S

RUNNING = """
    INSERT INTO river_job (kind, args, state, attempt, max_attempts, attempted_at, attempted_by)
    VALUES (:kind, '{"behavior": "", "duration_ms": 0, "message": "", "number": 1}', 'running', 1,
        25, now() - make_interval(secs => :age_s), ARRAY[:by])
    RETURNING id
"""


def running(here: Clients, kind: str, by: str, age_s: float) -> int:
    """Insert a job that a client began `age_s` seconds ago; return its id."""
    return int(here.one(RUNNING, kind=kind, by=by, age_s=age_s))


def heart(here: Clients, client_id: str, silent_s: float) -> None:
    """Insert the heartbeat of a riverrun client, `silent_s` seconds ago."""
    statement = """
        INSERT INTO riverrun_client (id, heartbeat_at, hostname, pid, queues)
        VALUES (:id, now() - make_interval(secs => :silent_s), 'host', 1, '{default}')
    """
    here.do(statement, id=client_id, silent_s=silent_s)


def go_leads(peer: Process, here: Clients, **options: Any) -> None:
    """Start a Go client and wait until it leads."""
    peer.call("start", client_id="gopher", **options)
    here.wait(lambda: peer.call("leader")["leader_id"] == "gopher", "Go leads")


def test_ours_are_rescued_while_go_leads(go_peer: StartPeer, here: Clients) -> None:
    """A dead client's job of a kind unknown to Go is retried by riverrun while Go leads.

    A job whose client has no heartbeat is the control: Go's leader discards it, since it does not
    know its kind.
    """
    unknown = running(here, "interop_ours", "some-client", age_s=7200)
    heart(here, "dead", silent_s=DEAD_S + 10)
    ours = running(here, "interop_ours", "dead", age_s=60)
    go_leads(go_peer(), here, queue="other")
    here.wait_state(unknown, "discarded")
    assert here.one("SELECT state::text FROM river_job WHERE id = :id", id=ours) == "running"

    got: list[Ours] = []
    client = here.run(lambda args, _: got.append(args))
    here.wait_state(ours, "completed")
    assert got == [Ours(number=1)]
    assert not client.leads
    row = client.get(here.engine, ours)
    assert (row.attempt, row.metadata["river:rescue_count"]) == (2, 1)
    assert [error["error"] for error in row.errors] == ["Stuck job rescued by JobRescuer"]


def test_a_healthy_job_outlives_a_go_leaders_patience(go_peer: StartPeer, here: Clients) -> None:
    """A job that runs for longer than Go's rescue time is not rescued, whatever its kind."""
    patience_s = 3.0
    begun, release = threading.Event(), threading.Event()

    def work(args: Ours, ctx: JobContext) -> None:
        begun.set()
        release.wait(60)

    client = here.run(work, job_timeout=0, rescue_after=patience_s, leader_election_disabled=True)
    job = client.insert(here.engine, Ours()).job
    assert begun.wait(30)
    # The control: the same job, but of a client that does not renew its attempt time.
    control = running(here, "interop_ours", "some-client", age_s=0)
    age_s = "SELECT extract(epoch FROM now() - attempted_at) FROM river_job WHERE id = :id"
    here.wait(lambda: here.one(age_s, id=control) > patience_s, "as long as Go waits")
    go_leads(
        go_peer(), here, queue="other", job_timeout_ms=1000, rescue_after_ms=int(patience_s * 1000)
    )
    here.wait_state(control, "discarded")
    assert client.get(here.engine, job.id).state == "running"
    release.set()
    here.wait_state(job.id, "completed")
    assert client.get(here.engine, job.id).attempt == 1


def test_a_finished_job_outlives_a_go_leaders_patience(go_peer: StartPeer, here: Clients) -> None:
    """A job whose outcome cannot be written for long is not rescued and run again by Go."""
    patience_s = 3.0
    calls: list[int] = []
    client = here.run(
        lambda args, ctx: calls.append(ctx.job.id),
        job_timeout=1,
        rescue_after=patience_s,
        leader_election_disabled=True,
    )
    here.do(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.state = 'completed' THEN RAISE EXCEPTION 'no' USING ERRCODE = '57014'; END IF;"
        " RETURN NEW; END $$"
    )
    here.do(
        "CREATE TRIGGER refuse BEFORE UPDATE ON river_job FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    job = client.insert(here.engine, Ours()).job
    here.wait(lambda: client.held == 1, "its outcome is held")
    control = running(here, "interop_ours", "some-client", age_s=0)
    age_s = "SELECT extract(epoch FROM now() - attempted_at) FROM river_job WHERE id = :id"
    here.wait(lambda: here.one(age_s, id=control) > patience_s, "as long as Go waits")
    go_leads(
        go_peer(), here, queue="other", job_timeout_ms=1000, rescue_after_ms=int(patience_s * 1000)
    )
    here.wait_state(control, "discarded")
    assert client.get(here.engine, job.id).state == "running"
    here.do("DROP TRIGGER refuse ON river_job")
    here.wait_state(job.id, "completed")
    assert calls == [job.id]


def test_go_rescues_what_a_killed_python_client_ran(
    go_peer: StartPeer, python_peer: StartPeer, here: Clients
) -> None:
    """Without any riverrun client, Go rescues and works a killed client's job after an hour."""
    doomed = python_peer()
    doomed.call("start", client_id="doomed")
    doomed.call("barrier_create", name="never")
    job_id = doomed.call("insert", behavior="barrier_wait", message="never")["id"]
    here.wait_state(job_id, "running")
    doomed.kill()
    here.do("UPDATE river_leader SET expires_at = now()")  # ends its lease of 15 s at once
    here.do("UPDATE river_job SET attempted_at = attempted_at - interval '2 hours'")

    peer = go_peer()
    peer.call("barrier_create", name="never")
    peer.call("barrier_release", name="never")
    go_leads(peer, here, retry_delay_ms=0)
    here.wait_state(job_id, "completed")
    job = peer.call("get", id=job_id)
    assert (job["attempt"], job["attempted_by"]) == (2, ["doomed", "gopher"])
    assert [error["error"] for error in job["errors"]] == ["Stuck job rescued by JobRescuer"]
    assert job["metadata"] == {"river:rescue_count": 1}


def test_we_rescue_what_a_killed_go_client_ran(go_peer: StartPeer, here: Clients) -> None:
    """Riverrun rescues the job of a killed Go client after `rescue_after`, and not before."""
    peer = go_peer()
    peer.call("start", client_id="gopher", leader_election_disabled=True)
    job = peer.call("insert", behavior="ignored_cancel", opts={"metadata": {"big": 2**60 + 1}})
    here.wait_state(job["id"], "running")
    peer.kill()

    client = here.run(rescue_after=2, job_timeout=1)
    here.wait_state(job["id"], "completed")
    row = client.get(here.engine, job["id"])
    assert row.attempted_by == ("gopher", client.id)
    assert row.metadata == {"big": 2**60 + 1, "river:rescue_count": 1}
    (error,) = row.errors
    assert (error["attempt"], error["error"]) == (1, "Stuck job rescued by JobRescuer")
    assert datetime.fromisoformat(error["at"]) - row.created_at > timedelta(seconds=2)


def test_our_leader_retries_kinds_that_it_does_not_know(here: Clients) -> None:
    """A stuck job of a kind that only Go knows is retried: riverrun does not discard it."""
    job_id = running(here, "go_only", "gopher", age_s=7200)
    client = here.run(lambda args, ctx: None, queues={"other": QueueConfig()})
    here.wait(lambda: here.one("SELECT state::text FROM river_job") != "running", "rescued")
    row = client.get(here.engine, job_id)
    assert (row.state, row.attempt, row.finalized_at) == ("available", 1, None)
    assert row.metadata["river:rescue_count"] == 1
