"""Jobs that one side inserts and the other works, and a queue that both work at once."""

import threading
from collections import Counter

from interop.clients import Clients, Echo
from interop.peers import StartPeer
from riverrun import JobContext

# Longer than any test, so a job worked sooner was found by its notification.
NO_POLLING_MS = 600_000


def test_python_works_what_go_inserts(go_peer: StartPeer, here: Clients) -> None:
    """Python is notified of a job that Go inserts, decodes it and completes it."""
    got: list[Echo] = []
    client = here.run(lambda args, _: got.append(args), poll_interval=NO_POLLING_MS / 1000)
    job = go_peer().call("insert", message="日本 <&>", duration_ms=7, opts={"priority": 2})
    here.wait_state(job["id"], "completed")
    assert got == [Echo(duration_ms=7, message="日本 <&>")]
    row = client.get(here.engine, job["id"])
    assert (row.attempt, row.attempted_by, row.priority) == (1, (client.id,), 2)


def test_go_works_what_python_inserts(go_peer: StartPeer, here: Clients) -> None:
    """Go is notified of a job that Python inserts, decodes it and completes it."""
    peer = go_peer()
    peer.call("start", client_id="gopher", fetch_poll_interval_ms=NO_POLLING_MS)
    job = here.inserter().insert(here.engine, Echo(behavior="output", message="日本 <&>")).job
    done = peer.call("wait", id=job.id)
    assert (done["state"], done["attempted_by"]) == ("completed", ["gopher"])
    assert done["metadata"]["output"] == {"message": "日本 <&>"}


def test_go_works_what_a_python_transaction_commits(go_peer: StartPeer, here: Clients) -> None:
    """Go is notified of a job when its transaction commits, and never of one rolled back."""
    peer = go_peer()
    peer.call("start", client_id="gopher", fetch_poll_interval_ms=NO_POLLING_MS)
    client = here.inserter()
    with here.engine.connect() as connection:
        with connection.begin() as transaction:
            dropped = client.insert(connection, Echo()).job
            transaction.rollback()
        with connection.begin():
            kept = client.insert(connection, Echo()).job
    assert peer.call("wait", id=kept.id)["state"] == "completed"
    assert peer.call("list", ids=[dropped.id])["jobs"] == []


def test_both_work_one_queue_of_20000_jobs(go_peer: StartPeer, here: Clients) -> None:
    """A Go client and a Python client share 20,000 jobs, and each job is worked once."""
    inserter = here.inserter()
    peer = go_peer()
    for _ in range(2):
        jobs = [{"message": "go"}] * 5_000
        peer.call("insert_many_fast", jobs=jobs)
        inserter.insert_many_fast(here.engine, [Echo(message="python")] * 5_000)

    ran: Counter[int] = Counter()
    lock = threading.Lock()

    def work(args: Echo, ctx: JobContext) -> None:
        with lock:
            ran[ctx.job.id] += 1

    # Both begin with a full queue. River claims again only after its cooldown, so it needs slots.
    peer.call("start", client_id="gopher", max_workers=1_000)
    here.run(work, slots=100, id="python")
    here.wait(
        lambda: here.one("SELECT count(*) FROM river_job WHERE state = 'completed'") == 20_000,
        "20,000 jobs completed",
    )
    assert set(ran.values()) == {1}
    peer.call("stop")
    by = dict(
        here.rows("SELECT attempted_by[1], count(*) FROM river_job WHERE attempt = 1 GROUP BY 1")
    )
    assert by == {"python": len(ran), "gopher": 20_000 - len(ran)}
    assert 0 < len(ran) < 20_000
    once = "SELECT count(*) FROM river_job WHERE cardinality(attempted_by) = 1 AND errors IS NULL"
    assert here.one(once) == 20_000
