"""Which client leads, and until when: electors on one row, with a clock that the test sets."""

import math
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from riverrun.clock import Clock
from riverrun.maintenance.elector import STAND_S, TRUST_S, TTL_S, Elector
from riverrun.maintenance.leadership import Leadership
from riverrun.maintenance.maintainer import Maintainer
from riverrun.runtime.service import Service
from riverrun.verbs.elect import elect, reelect, request_resign, resign
from waiting import DEADLINE_S, until


class Hand(Clock):
    """A clock that the test sets."""

    at = 0.0

    def monotonic(self) -> float:
        """Return the time that the test has set."""
        return self.at


class Post:
    """An elector, its clock, and a record of its calls to start and stop the maintainer."""

    def __init__(self, engine: Engine, schema: str, name: str) -> None:
        self.clock = Hand()
        self.calls: list[str] = []
        self.elected = threading.Event()
        self.elector = Elector(
            engine,
            client_id=name,
            schema=schema,
            leadership=Leadership(self.clock),
            maintainer=self,
            heartbeat=SimpleNamespace(name_taken=False),
            clock=self.clock,
            rng=random.Random(1),
        )

    def start(self) -> None:
        """Record the call that starts the maintainer."""
        self.calls.append("begin")
        self.elected.set()

    def stop(self) -> None:
        """Record the call that stops the maintainer."""
        self.calls.append("end")


@pytest.fixture
def ada(engine: Engine, schema: str) -> Post:
    """The first elector to stand."""
    return Post(engine, schema, "ada")


@pytest.fixture
def bob(engine: Engine, schema: str) -> Post:
    """The second elector to stand."""
    return Post(engine, schema, "bob")


def change(engine: Engine, schema: str, statement: str) -> None:
    """Execute a statement on the leader's row."""
    with engine.begin() as connection:
        connection.execute(text(statement.format(s=schema)))


def test_one_leads_and_goes_on_leading(ada: Post, bob: Post) -> None:
    """The elector that stands first leads term after term; the second one does not."""
    assert ada.elector.run_once().leads
    assert not bob.elector.run_once().leads
    ada.clock.at += 5
    assert ada.elector.run_once().leads
    assert (ada.calls, bob.calls) == (["begin"], [])


def test_a_term_is_trusted_for_a_second_less_than_it_lasts(ada: Post) -> None:
    """A leader that cannot renew its term stops a second before another client may lead."""
    ada.elector.run_once()
    ada.clock.at = TRUST_S - 0.1
    assert ada.elector.leads
    ada.clock.at = TRUST_S
    assert not ada.elector.leads
    assert TRUST_S < TTL_S


def test_a_leader_that_slept_too_long_gives_up_without_asking(ada: Post) -> None:
    """A leader that was suspended for longer than its term first stops its services."""
    ada.elector.run_once()
    ada.clock.at = TRUST_S + 1
    assert not ada.elector.run_once().leads
    assert ada.calls == ["begin", "end"]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM {s}.river_leader",
        "UPDATE {s}.river_leader SET leader_id = 'go'",
        "UPDATE {s}.river_leader SET expires_at = now() - interval '1 second'",
        "UPDATE {s}.river_leader SET elected_at = elected_at + interval '1 second'",
    ],
)
def test_a_term_that_is_another_s_is_over(
    engine: Engine, schema: str, ada: Post, statement: str
) -> None:
    """A term ends if its row is gone or expired, or belongs to another leader or another term."""
    ada.elector.run_once()
    change(engine, schema, statement)
    assert not ada.elector.run_once().leads
    assert ada.calls == ["begin", "end"]


def test_an_expired_term_is_the_next_one_s(
    engine: Engine, schema: str, ada: Post, bob: Post
) -> None:
    """After the term of a leader that died, the next client that stands leads."""
    ada.elector.run_once()
    change(engine, schema, "UPDATE {s}.river_leader SET expires_at = now() - interval '1 second'")
    assert bob.elector.run_once().leads


def test_a_notified_resignation_is_followed(
    engine: Engine, schema: str, ada: Post, bob: Post
) -> None:
    """A client that stops resigns; one that is notified of it stands at once, not seconds later."""
    ada.elector.run_once()
    bob.elector.start()
    try:
        bob.elector.notified({"action": "resigned", "leader_id": "bob"})
        assert not bob.elected.wait(2 * STAND_S)
        ada.elector.start()
        ada.elector.stop()
        bob.elector.notified({"action": "resigned", "leader_id": "ada"})
        assert bob.elected.wait(2), "bob did not stand within 2 s of hearing it"
    finally:
        bob.elector.stop()
    assert ada.calls == ["begin", "end"]
    with engine.connect() as connection:
        left = connection.execute(text(f"SELECT count(*) FROM {schema}.river_leader"))
        assert left.scalar_one() == 0


def test_a_request_to_resign_is_obeyed(engine: Engine, schema: str, app: Any) -> None:
    """If an operator requests it, the leader resigns and another client leads."""
    clients = {name: app.client(id=name) for name in ("ada", "bob")}
    for client in clients.values():
        client.start()

    def leader() -> str | None:
        with engine.connect() as connection:
            statement = text(f"SELECT leader_id FROM {schema}.river_leader")
            return connection.execute(statement).scalar_one_or_none()

    first = until(leader, "a leader")
    assert first in clients
    asked_at = -math.inf

    def moved() -> bool:
        nonlocal asked_at
        # A request that comes before the leader listens is lost.
        if time.monotonic() - asked_at >= 1:
            asked_at = time.monotonic()
            request_resign(engine, schema=schema)
        return leader() not in {None, first}

    until(moved, "another leader")


def test_the_verbs_tell_terms_apart(engine: Engine, schema: str) -> None:
    """A term is identified by leader and start: no other term can be extended or resigned."""
    first = elect(engine, "ada", ttl_s=10, schema=schema)
    assert first is not None
    assert elect(engine, "bob", ttl_s=10, schema=schema) is None
    assert resign(engine, first, schema=schema)
    second = elect(engine, "ada", ttl_s=10, schema=schema)
    assert second is not None
    assert not reelect(engine, first, ttl_s=10, schema=schema)
    assert not resign(engine, first, schema=schema)
    assert reelect(engine, second, ttl_s=10, schema=schema)


def test_a_term_that_begins_in_the_future(engine: Engine, schema: str) -> None:
    """A leader that was killed while the server's clock was ahead keeps nobody from leading."""
    ahead = datetime.now(UTC) + timedelta(days=365)
    assert elect(engine, "ada", ttl_s=15, schema=schema, now=ahead) is not None
    assert elect(engine, "bob", ttl_s=15, schema=schema) is not None
    assert elect(engine, "ada", ttl_s=15, schema=schema) is None


def test_the_end_of_a_term_stops_every_service_at_once() -> None:
    """At the end of a term every service is requested to stop before any of them is waited for."""
    running = threading.Barrier(3)
    order: list[str] = []

    class Slow(Service):
        def run(self) -> None:
            running.wait(DEADLINE_S)
            self.stopping.wait(DEADLINE_S)
            running.wait(DEADLINE_S)
            order.append(self.name)

    maintainer = Maintainer([Slow("a"), Slow("b")])
    maintainer.start()
    running.wait(DEADLINE_S)
    stopper = threading.Thread(target=maintainer.stop)
    stopper.start()
    # Both pass only if the second was requested to stop before the first had finished.
    running.wait(DEADLINE_S)
    stopper.join(DEADLINE_S)
    assert sorted(order) == ["riverrun.a", "riverrun.b"]
