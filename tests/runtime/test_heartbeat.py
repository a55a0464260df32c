"""What a client's heartbeats record, and what a client does when they cannot be written."""

import random
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from factories import T0, insert_job, only_state
from riverrun import JobContext, verbs
from riverrun.clock import Clock
from riverrun.errors import ClientNotReady
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.policies.backoff import RiverBackoff
from riverrun.runtime.heartbeat import DEAD_S, GIVEN_UP_S, INTERVAL_S, Heartbeat
from riverrun.verbs.beat import sign_on
from riverrun.verbs.elect import elect
from riverrun.verbs.rescue import rescue
from runtime.conftest import App
from runtime.task import Task
from waiting import DEADLINE_S, until


class Hand(Clock):
    """A clock that is moved by hand."""

    at = 0.0

    def monotonic(self) -> float:
        """Return the time that the test has set."""
        return self.at


class Pulse:
    """A heartbeat with its clock, the jobs that run, and the number of times it gave up."""

    def __init__(self, engine: Engine, schema: str) -> None:
        self.clock = Hand()
        self.running: list[JobRow] = []
        self.given_up = 0
        self.beat = Heartbeat(
            engine,
            client_id="client",
            producers=self,
            completer=SimpleNamespace(held_attempts=frozenset()),
            health=SimpleNamespace(state=dict),
            rescue_after_s=3600.0,
            schema=schema,
            clock=self.clock,
            rng=random.Random(1),
        )

    names = ("default",)

    def claimed(self) -> list[JobRow]:
        """Return the running jobs, as producers do."""
        return self.running

    def cancel_all(self, _: object) -> None:
        """Count the call: the heartbeat gave up."""
        self.given_up += 1


def one(engine: Engine, statement: str) -> Any:
    """Return the single value that a statement reads."""
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar_one()


def test_a_client_takes_itself_for_given_up_before_others_do(engine: Engine, schema: str) -> None:
    """A client that was suspended for long cancels its attempts before it sends a heartbeat.

    It does so before other clients take it for dead.
    """
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    pulse.clock.at = GIVEN_UP_S - 1
    pulse.beat.run_once()
    assert pulse.given_up == 0
    pulse.clock.at += GIVEN_UP_S
    pulse.beat.run_once()
    assert pulse.given_up == 1
    assert GIVEN_UP_S < DEAD_S


def test_knows_whether_its_heartbeats_succeed(engine: Engine, schema: str) -> None:
    """A client is healthy as long as its heartbeats succeed when they are due."""
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    pulse.clock.at = 2 * INTERVAL_S - 0.1
    assert pulse.beat.healthy
    pulse.clock.at = 2 * INTERVAL_S
    assert not pulse.beat.healthy
    pulse.beat.run_once()
    assert pulse.beat.healthy


def test_a_beat_that_fails_is_no_beat(schema: str) -> None:
    """A heartbeat that fails does not count: the silence goes on while there is no database."""
    pulse = Pulse(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"), schema)
    pulse.clock.at = GIVEN_UP_S + 1
    with pytest.raises(OperationalError):
        pulse.beat.run_once()
    assert pulse.given_up == 1


def test_a_long_attempt_stays_out_of_reach_of_river_s_rescuer(engine: Engine, schema: str) -> None:
    """A job's attempt time is renewed six times in the hour after which River would rescue it."""
    insert_job(engine, schema)
    [job] = verbs.claim(engine, client_id="client", schema=schema)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema}.river_job SET attempted_at = '{T0}'"))
    pulse = Pulse(engine, schema)
    pulse.running = [job]
    query = f"SELECT attempted_at FROM {schema}.river_job"
    pulse.beat.run_once()
    for pulse.clock.at in (1.0, 590.0):
        pulse.beat.run_once()
        assert one(engine, query) == T0
    pulse.clock.at = 601.0
    pulse.beat.run_once()
    assert one(engine, query) > T0
    verbs.complete(engine, job, schema=schema)


@pytest.mark.parametrize(
    ("sqlstate", "given_up"), [("57014", False), ("P0001", True)], ids=["held", "given up"]
)
def test_a_finished_attempt_stays_out_of_reach_of_river_s_rescuer(
    app: Any, sqlstate: str, given_up: bool
) -> None:
    """A job whose outcome cannot be written is kept from rescuers, since its worker has run."""
    engine, schema = app.engine, app.schema
    calls: list[int] = []
    client, _ = app.run(lambda args, ctx: calls.append(ctx.job.id), rescue_after=1.2, job_timeout=1)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.state <> 'running' AND OLD.state = 'running' THEN"
            f" RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.river_job"
            f" FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
        )
    job = client.insert(engine, Task()).job
    if given_up:
        until(lambda: client.refused == 1, "it is given up")
    else:
        until(lambda: client.held == 1, "it is held")
    twice = f"SELECT attempted_at > created_at + interval '2.4 s' FROM {schema}.river_job"
    until(lambda: one(engine, twice), "it is renewed for twice as long as River would wait")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER refuse ON {schema}.river_job")
    if not given_up:  # otherwise it is tried again only after minutes, or at the stop
        until(lambda: client.get(engine, job.id).state == "completed", "it is completed")
    assert calls == [job.id]


def test_it_learns_whether_river_leads(engine: Engine, schema: str) -> None:
    """A leader counts as River's if its term runs and it has sent no heartbeat."""
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    assert not pulse.beat.river_leads
    for leader_id, ttl_s, river in (
        ("gopher", 15, True),
        ("client", 15, False),
        ("old", -1, False),
    ):
        with engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {schema}.river_leader"))
        assert elect(engine, leader_id, ttl_s=ttl_s, schema=schema)
        pulse.beat.run_once()
        assert pulse.beat.river_leads is river, leader_id


def test_who_signs_off_leaves_no_row(engine: Engine, schema: str) -> None:
    """A client that leaves no job running deletes its row when it stops."""
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    query = f"SELECT count(*) FROM {schema}.riverrun_client"
    assert one(engine, query) == 1
    pulse.beat.leave()
    assert one(engine, query) == 0


def test_a_name_is_one_client_s(engine: Engine, schema: str) -> None:
    """A client id that is in use, or that still has running jobs, is not given to a second client.

    Otherwise the second client's heartbeats would keep the first one's jobs from being rescued.
    """

    def begin(now: datetime = T0) -> str:
        return sign_on(engine, "ada", hostname="host", pid=7, dead_s=DEAD_S, schema=schema, now=now)

    assert begin() == "ada"
    twin = begin()
    assert twin.startswith("ada_")
    assert len(twin) == len("ada_") + 6
    later = T0 + timedelta(seconds=DEAD_S + 1)
    assert begin(later) == "ada"
    insert_job(engine, schema, state="running", attempted_by=["ada"])
    assert begin(later + timedelta(seconds=DEAD_S + 1)) != "ada"


def test_a_name_that_another_client_took_is_left_to_it(
    engine: Engine, schema: str, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that was silent until another one took its name leaves the name to that one.

    It cancels its jobs, claims no more, gives back none of the other's jobs and is beyond repair.
    """
    begun, cancelled = threading.Event(), threading.Event()

    def work(args: Task, ctx: JobContext) -> None:
        begun.set()
        if ctx.wait(DEADLINE_S):
            cancelled.set()

    client, _ = app.run(work, id="ada")
    services = client._services
    assert services is not None
    verbs.insert(engine, Task(), schema=schema)
    assert begun.wait(DEADLINE_S)
    now = datetime.now(UTC) + timedelta(seconds=DEAD_S + 60)
    # As if it had been silent: its jobs are rescued, and another takes the name and claims them.
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema}.river_job SET state = 'available'"))
        name = {"hostname": "there", "pid": 1, "dead_s": DEAD_S, "instance": "other", "now": now}
        assert sign_on(connection, "ada", **name, schema=schema) == "ada"
        connection.execute(text(f"UPDATE {schema}.river_job SET state = 'running'"))
    assert services.stocktaker.run_once() == 0
    assert only_state(engine, schema) == "running"
    until(lambda: client.beyond_repair, "the loss of its name is noticed")
    assert cancelled.wait(DEADLINE_S)
    assert "another client has taken its name, and it must be started again" in client.problems
    until(lambda: not any(each.alive for each in services.producers), "it claims no more")
    until(lambda: not services.elector.alive, "it stands for election no more")
    assert not client.leads
    with pytest.raises(ClientNotReady, match="lost its name"):
        client.queues.add("late")
    services.heartbeat._last -= GIVEN_UP_S
    services.heartbeat.check_silence()
    app.stop()
    assert caplog.text.count("another client has taken the name ada") == 1
    assert "no heartbeat has succeeded" not in caplog.text
    query = f"SELECT metadata->>'instance' FROM {schema}.riverrun_client"
    assert one(engine, query) == "other"


def test_silence_is_noticed_while_a_beat_waits_for_its_answer(engine: Engine, schema: str) -> None:
    """While a heartbeat hangs, another thread notices the silence, once per silence."""
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    pulse.clock.at = GIVEN_UP_S - 0.1
    pulse.beat.check_silence()
    assert pulse.given_up == 0
    pulse.clock.at = GIVEN_UP_S
    for _ in range(2):
        pulse.beat.check_silence()
        assert pulse.given_up == 1


def test_who_leaves_a_job_running_is_still_known(engine: Engine, schema: str) -> None:
    """A client that stops without having written all outcomes keeps its row.

    Without the row it would count as one of River's clients, whose jobs are rescued after an hour.
    """
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    insert_job(engine, schema)
    verbs.claim(engine, client_id="client", schema=schema)
    pulse.beat.leave()
    assert one(engine, f"SELECT count(*) FROM {schema}.riverrun_client") == 1


def test_a_client_without_heartbeats_keeps_a_job_while_its_worker_may_take(
    engine: Engine, schema: str
) -> None:
    """A client without heartbeats keeps a job for an hour, or for its kind's timeout if longer.

    A kind without a timeout is never rescued from it.
    """
    for kind in ("hasty", "patient", "endless", "unknown"):
        insert_job(engine, schema, kind=kind, state=JobState.running, attempted_at=T0)

    def rescued(after_s: float) -> list[int]:
        done = rescue(
            engine,
            dead_s=DEAD_S,
            stuck_s=3600,
            backoff=lambda _: RiverBackoff(),
            timeouts_s={"hasty": 60.0, "patient": 7200.0, "endless": None},
            schema=schema,
            now=T0 + timedelta(seconds=after_s),
        )
        return sorted(done.states)

    assert rescued(3599) == []
    assert rescued(3601) == [1, 4]
    assert rescued(7199) == []
    assert rescued(7201) == [2]
    assert rescued(1e9) == []


def test_a_living_client_keeps_its_jobs_and_a_dead_one_does_not(
    engine: Engine, schema: str
) -> None:
    """Jobs are rescued from a client once it has been silent for 20 s, however young they are."""
    insert_job(engine, schema, kind="unknown")
    verbs.claim(engine, client_id="client", schema=schema)
    pulse = Pulse(engine, schema)
    pulse.beat.run_once()
    last = one(engine, f"SELECT heartbeat_at FROM {schema}.riverrun_client")

    def rescued(after_s: float) -> list[JobState]:
        done = rescue(
            engine,
            dead_s=DEAD_S,
            stuck_s=3600,
            backoff=lambda _: RiverBackoff(),
            schema=schema,
            now=last + timedelta(seconds=after_s),
        )
        return list(done.states.values())

    assert rescued(DEAD_S - 1) == []
    assert rescued(DEAD_S + 1) == [JobState.available]
