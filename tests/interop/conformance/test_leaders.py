"""One leader at a time among both sides' clients, and which client leads next."""

import time
from typing import Any

import psycopg
import pytest

from interop.conformance.fleet import BOTH, WAYS, Fleet, counted, failed, wait
from interop.conformance.registry import passed
from interop.rpc import REJECTED, Process
from waiting import until

both_ways = pytest.mark.parametrize(("by", "to"), WAYS)
# River's harness waits this long for a new term.
TERM_S = 12.0
PERIODIC = {"instrumented": True, "periodic_run_on_start": True}


def periodic_jobs(fleet: Fleet) -> int:
    """Return the number of periodic jobs that were inserted."""
    return int(fleet.one("SELECT count(*) FROM river_job WHERE metadata ? 'periodic'"))


@passed("a client that may not lead works and never leads")
@both_ways
def test_leader_election_disabled_both_directions(fleet: Fleet, by: str, to: str) -> None:
    """A client with leader election disabled never leads, but works and takes no periodic jobs."""
    follower, leader = fleet.side(by), fleet.side(to)
    never = {"client_id": "never", "leader_election_disabled": True}
    failed(follower, REJECTED, "start", periodic_run_on_start=True, **never)

    def works() -> None:
        """Check that the follower works and that no client leads."""
        done = wait(follower, leader.call("insert")["id"])
        assert (done["state"], done["attempted_by"]) == ("completed", ["never"])
        assert fleet.go.call("leader")["leader_id"] is None

    follower.call("start", instrumented=True, **never)
    works()
    # The leader works another queue, so that the follower works its periodic job.
    leader.call("start", client_id="leads", queue="other", **PERIODIC)
    fleet.leads("leads")
    (periodic,) = until(
        lambda: follower.call("list", metadata={"periodic": True})["jobs"], "the periodic job"
    )
    done = wait(follower, periodic["id"])
    assert (done["state"], done["attempted_by"]) == ("completed", ["never"])
    assert counted(follower, "periodic_starts") == 0
    leader.call("stop")
    works()
    follower.call("stop")
    follower.call("start", instrumented=True, **never)
    works()
    assert counted(follower, "periodic_starts") == 0
    assert periodic_jobs(fleet) == 1


@passed(
    "the only client that may lead does",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_leader_election_disabled(fleet: Fleet) -> None:
    """Of four clients of both sides, only the one with leader election enabled leads."""
    processes = [fleet.another("go"), fleet.another("python"), fleet.go]
    for number, process in enumerate(processes):
        process.call("start", client_id=f"never-{number}", leader_election_disabled=True)
    fleet.python.call("start", client_id="may")
    fleet.leads("may")
    fleet.python.call("stop")
    jobs = [process.call("insert")["id"] for process in processes]
    for job in jobs:
        assert wait(fleet.go, job)["state"] == "completed"
    assert fleet.go.call("leader")["leader_id"] is None


@passed("the lead passes between the sides")
@both_ways
def test_mixed_leader_failover_both_directions(fleet: Fleet, by: str, to: str) -> None:
    """When a leader stops, the other side's client leads at once, and the same the other way."""
    first, second = fleet.side(by), fleet.side(to)
    first.call("start", client_id="first")
    term = fleet.leads("first")
    second.call("start", client_id="second")
    fleet.listens(second)
    assert fleet.leads("first") == term
    first.call("stop")
    second_term = fleet.leads("second", TERM_S)
    assert second_term > term
    first.call("start", client_id="first")
    fleet.listens(first)
    assert first.call("leader") == second.call("leader")
    second.call("stop")
    third_term = fleet.leads("first", TERM_S)
    assert third_term > second_term
    assert first.call("leader") == second.call("leader")
    second.call("request_resign")
    until(lambda: _newer(first, third_term), "another term", TERM_S)


@passed(
    "the lead passes through all processes",
    form="two processes of each side; River asks for two implementations beside its own",
)
def test_multi_engine_leader_failover(fleet: Fleet) -> None:
    """Four clients of both sides lead one after the other."""
    processes = [fleet.go, fleet.python, fleet.another("go"), fleet.another("python")]
    clients = {f"client-{number}": process for number, process in enumerate(processes)}
    for name, process in clients.items():
        process.call("start", client_id=name)
        fleet.listens(process)
    terms: list[str] = []
    while clients:
        leader = until(lambda: fleet.go.call("leader")["leader_id"], "a leader")
        terms.append(fleet.leads(leader))
        clients.pop(leader).call("stop")
    assert terms == sorted(set(terms))
    assert len(terms) == 4


@passed("the lease of a killed leader runs out, and the other side leads")
@both_ways
def test_mixed_leader_death_failover_both_directions(fleet: Fleet, by: str, to: str) -> None:
    """When a leader dies, the other side's client leads after the lease and does its work."""
    second = fleet.side(to)
    fleet.side(by).call("start", client_id="dies", **PERIODIC)
    fleet.leads("dies")
    until(lambda: periodic_jobs(fleet) == 1, "the first leader's periodic job")
    second.call("start", client_id="lives", **PERIODIC)
    fleet.listens(second)
    time.sleep(0.3)
    assert (periodic_jobs(fleet), counted(second, "periodic_starts")) == (1, 0)
    fleet.replace(by)
    second.call("fault_expire_leader")
    fleet.leads("lives")
    until(lambda: periodic_jobs(fleet) == 2, "the second leader's periodic job")
    assert counted(second, "periodic_starts") == 1


@passed("a leader resigns on request, at the commit if at all")
@both_ways
def test_mixed_request_resign_terms(fleet: Fleet, by: str, to: str) -> None:
    """A leader resigns on request, but not on a request that is rolled back."""
    asker, leader = fleet.side(by), fleet.side(to)
    url = fleet.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    leader.call("start", client_id="resigns")
    term = fleet.leads("resigns")
    fleet.listens(leader)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'LISTEN "{fleet.schema}.river_leadership"')

        def requests(within_s: float) -> int:
            notifications = connection.notifies(timeout=within_s)
            return sum("request_resign" in each.payload for each in notifications)

        asker.call("tx_begin", handle="a")
        asker.call("request_resign", handle="a")
        asker.call("tx_rollback", handle="a")
        assert requests(0.3) == 0
        assert fleet.leads("resigns") == term
        asker.call("tx_begin", handle="a")
        asker.call("request_resign", handle="a")
        asker.call("tx_commit", handle="a")
        assert requests(0.5) == 1
    second = until(lambda: _newer(leader, term), "another term", TERM_S)
    asker.call("request_resign")
    until(lambda: _newer(leader, second), "a third term", TERM_S)


def _newer(process: Process, term: str) -> str | None:
    """Return the current term if it is not `term`."""
    elected = process.call("leader")["elected_at"]
    return elected if elected not in {None, term} else None


@passed("a leader does not renew a newer term of its own client id")
@pytest.mark.parametrize("name", BOTH)
def test_leadership_same_client_id_term_replacement(fleet: Fleet, name: str) -> None:
    """A leader whose term was replaced under its own id steps down and is elected again."""
    leader = fleet.side(name)
    leader.call("start", client_id="same", queue="elsewhere", periodic_run_on_start=True)
    term = fleet.leads("same")
    until(lambda: periodic_jobs(fleet) == 1, "the first term's periodic job")
    fleet.do(
        "UPDATE river_leader SET elected_at = elected_at + interval '1 second',"
        " expires_at = now() + interval '3 seconds'"
    )
    replaced = leader.call("leader")["elected_at"]
    assert replaced > term

    def anew() -> bool:
        seen = leader.call("leader")
        return seen["leader_id"] == "same" and seen["elected_at"] not in {term, replaced}

    until(anew, "a term of its own", 45)
    until(lambda: periodic_jobs(fleet) == 2, "the second term's periodic job")


@passed("it stays unique when the lead changes sides")
@both_ways
def test_periodic_unique_cross_engine(fleet: Fleet, by: str, to: str) -> None:
    """The second leader does not repeat the first one's unique periodic job.

    A periodic job without uniqueness is inserted again.
    """
    how: dict[str, Any] = {"periodic_run_on_start": True, "periodic_unique": True}
    for number, process in enumerate((fleet.side(by), fleet.side(to)), 1):
        process.call("start", client_id=f"leader-{number}", **how)
        fleet.leads(f"leader-{number}")
        until(lambda number=number: _said(fleet, "periodic marker") == number, "the marker")
        unique = "SELECT id FROM river_job WHERE args->>'message' = 'periodic run on start'"
        assert wait(process, fleet.one(unique))["state"] == "completed"
        process.call("stop")


def _said(fleet: Fleet, message: str) -> int:
    """Return the number of jobs with a message."""
    asked = "SELECT count(*) FROM river_job WHERE args->>'message' = :message"
    return int(fleet.one(asked, message=message))
