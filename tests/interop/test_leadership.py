"""One leader among the clients of both languages, whose maintenance is done once."""

import itertools

from interop.clients import Clients, Echo
from interop.peers import StartPeer
from interop.rpc import Process
from riverrun import Client, InsertOpts, Interval, PeriodicJob

PERIODIC = "SELECT count(*) FROM river_job WHERE args->>'message' = :message"
GO_TERM = "periodic run on start"
OUR_TERM = "our periodic run on start"


def our_periodic() -> PeriodicJob:
    """Return a job that is inserted once in each term that riverrun leads."""
    opts = InsertOpts(queue="nobody")
    return PeriodicJob(
        Interval(every=3600), lambda: (Echo(message=OUR_TERM), opts), run_on_start=True
    )


def terms(here: Clients) -> tuple[int, int]:
    """Return how many terms of Go and of riverrun have begun maintenance."""
    return here.one(PERIODIC, message=GO_TERM), here.one(PERIODIC, message=OUR_TERM)


def go_leads(peer: Process, client: Client) -> bool:
    """Return whether Go leads and riverrun's client knows that it does not."""
    return peer.call("leader")["leader_id"] == "gopher" and not client.leads


def test_the_lead_goes_to_and_fro(go_peer: StartPeer, here: Clients) -> None:
    """While leaders resign, stop and return, one client leads and maintenance is done once.

    The leader of each term inserts its periodic job when the term begins, so there are as many jobs
    as terms.
    """
    start = {"client_id": "gopher", "periodic_run_on_start": True, "queue": "other"}
    peer = go_peer()
    peer.call("start", **start)
    here.wait(lambda: peer.call("leader")["leader_id"] == "gopher", "Go leads")
    client = here.run(periodic_jobs=[our_periodic()])
    here.wait(lambda: terms(here) == (1, 0), "Go's maintenance")

    # Go resigns and, unlike riverrun, stands again at once, so it usually wins.
    first = peer.call("leader")["elected_at"]
    client.request_resign(here.engine)
    here.wait(lambda: peer.call("leader")["elected_at"] not in (None, first), "a second term")
    here.wait(lambda: sum(terms(here)) == 2, "maintenance of the second term")

    gos, _ = terms(here)
    peer.call("stop")
    here.wait(lambda: client.leads, "we lead after Go stopped")
    assert peer.call("leader")["leader_id"] == client.id
    here.wait(lambda: terms(here) == (gos, 1), "our maintenance")

    peer.call("start", **start)
    assert peer.call("leader")["leader_id"] == client.id
    here.wait(lambda: peer.call("listener_count")["count"], "Go listens")
    peer.call("request_resign")
    here.wait(lambda: go_leads(peer, client), "Go leads after we resigned")
    here.wait(lambda: terms(here) == (gos + 1, 1), "Go's maintenance")

    peer.kill()
    here.do("UPDATE river_leader SET expires_at = now()")  # ends its lease of 15 s at once
    here.wait(lambda: client.leads, "we lead after Go was killed")
    here.wait(lambda: terms(here) == (gos + 1, 2), "our maintenance again")

    back = go_peer()
    back.call("start", **start)
    assert back.call("leader")["leader_id"] == client.id
    client.stop()
    here.wait(lambda: go_leads(back, client), "Go leads after we stopped")
    here.wait(lambda: terms(here) == (gos + 2, 2), "Go's maintenance again")


def test_one_leads_among_many(go_peer: StartPeer, here: Clients) -> None:
    """Of two clients in each language one leads, whichever stops, and due jobs run once."""
    peers = {f"gopher-{number}": go_peer() for number in (1, 2)}
    clients = {f"python-{number}": here.run(id=f"python-{number}") for number in (1, 2)}
    for name, peer in peers.items():
        peer.call("start", client_id=name)
    leader = "SELECT leader_id FROM river_leader WHERE expires_at >= now()"

    def agreed() -> bool:
        ours = [name for name, client in clients.items() if client.leads]
        named = [row[0] for row in here.rows(leader)]
        return len(named) == 1 and ours == [name for name in named if name in clients]

    inserter, batches = here.inserter(), itertools.count(1)
    while clients or len(peers) > 1:
        here.wait(agreed, "one leader, known as such to itself alone")
        # Due now for the leader's scheduler, which looks five seconds ahead.
        due = here.one("SELECT now() + interval '1 second'")
        opts = InsertOpts(scheduled_at=due)
        inserter.insert_many(here.engine, [(Echo(), opts)] * 20)
        done = 20 * next(batches)
        completed = "SELECT count(*) FROM river_job WHERE state = 'completed' AND attempt = 1"
        here.wait(lambda: here.one(completed) == done, f"{done} jobs completed")  # noqa: B023
        name = here.one(leader)
        if name in clients:
            clients.pop(name).stop()
        else:
            peers.pop(name).call("stop")
    assert here.one("SELECT count(*) FROM river_job WHERE cardinality(attempted_by) > 1") == 0
