"""Applications lock rows of river_job while attempts end: no outcome waits for another's lock."""

import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine

from factories import insert_job, job_row
from riverrun.clock import Clock
from riverrun.events import Hub
from riverrun.execution.result import AttemptResult
from riverrun.jobs.row import AttemptError
from riverrun.jobs.states import JobState
from riverrun.outcome import Outcome
from riverrun.runtime.completer import Completer
from riverrun.verbs import cancel, update
from riverrun.verbs.beat import touch
from riverrun.verbs.clean import clean
from riverrun.verbs.schedule import schedule
from waiting import until

LOCKS = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE", "update", "cancel")
HARMLESS = "FOR KEY SHARE"
ENDINGS = ("plain", "output", "failed", "back")


class Locks(RuleBasedStateMachine):
    """Attempts end; hosts lock rows in transactions that stay open; a trigger refuses."""

    engine: Engine
    schema: str
    jobs = Bundle("jobs")
    hosts = Bundle("hosts")

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.exec_driver_sql(f"TRUNCATE {self.schema}.river_job")
        self.locked: dict[Connection, set[int]] = {}
        self.put: set[int] = set()
        self.poison: set[int] = set()
        self.gone: set[int] = set()
        self.part = Completer(
            self.engine.execution_options(isolation_level="AUTOCOMMIT"),
            on_due=lambda queue, due: None,
            schema=self.schema,
            hub=Hub(),
            clock=Clock(),
            rng=random.Random(1),
        )
        self.part.start()

    @rule(target=jobs, count=st.integers(1, 4), poisoned=st.sampled_from([False] * 7 + [True]))
    def claim(self, count: int, poisoned: bool) -> Any:
        """Have some jobs run here, of a kind that the application's trigger may refuse."""
        kind = "poison" if poisoned else "task"
        values: dict[str, Any] = {"state": "running", "attempt": 1, "kind": kind}
        ids = [insert_job(self.engine, self.schema, **values) for _ in range(count)]
        self.poison |= set(ids) if poisoned else set()
        return multiple(*ids)

    @rule(target=hosts)
    def begin(self) -> Any:
        """Have a host begin a transaction."""
        if len(self.locked) >= 4:
            return multiple()
        connection = self.engine.connect()
        # Two hosts that lock each other's rows are none of our business. LOCAL, as the connection
        # goes back to a pool that other tests use.
        connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
        self.locked[connection] = set()
        return connection

    @rule(host=hosts, job_id=jobs, how=st.sampled_from(LOCKS))
    def lock(self, host: Connection, job_id: int, how: str) -> None:
        """Have a host lock a row, by a statement or by what it asks of the job."""
        others = [ids for each, ids in self.locked.items() if each is not host]
        gone = job_id in self.gone or job_id in self.poison
        if host not in self.locked or gone or any(job_id in ids for ids in others):
            return
        if job_id in self.put and job_id not in self.locked[host]:
            return  # it may be written at any moment, and the host would lock a final row
        if how == "update":
            update(host, job_id, metadata={"looked": "at"}, schema=self.schema)
        elif how == "cancel":
            cancel(host, job_id, schema=self.schema)
        else:
            host.exec_driver_sql(f"SELECT FROM {self.schema}.river_job WHERE id = {job_id} {how}")
        if how != HARMLESS:
            self.locked[host].add(job_id)

    @rule(host=hosts, commits=st.booleans())
    def end(self, host: Connection, commits: bool) -> None:
        """Have a host end its transaction."""
        if host in self.locked:
            host.commit() if commits else host.rollback()
            host.close()
            del self.locked[host]

    @rule(job_id=jobs, how=st.sampled_from(ENDINGS))
    def finish(self, job_id: int, how: str) -> None:
        """Have an attempt end, and soon after it another, which is not to wait for it."""
        if job_id in self.put:
            return
        self._put(job_id, how)
        until(lambda: job_id in self.part.held_ids or job_id not in self._running(), "it is met")
        beside = insert_job(self.engine, self.schema, state="running", attempt=1)
        self._put(beside, "plain")
        self.look()

    def _put(self, job_id: int, how: str) -> None:
        self.put.add(job_id)
        error = AttemptError(attempt=1, at=job_row().created_at, error="no", trace="here")
        changes: dict[str, Any] = {
            "plain": {"state": JobState.completed},
            "output": {"state": JobState.completed, "metadata": {"output": "x" * 2_000}},
            "failed": {"state": JobState.discarded, "error": error},
            "back": {"state": JobState.available, "give_back": True},
        }[how]
        self.part.put(
            AttemptResult(
                job=None,
                queue="default",
                outcome=Outcome(job_id=job_id, attempt=1, **changes),
                error=None,
                run_s=0.0,
                ended_monotonic=time.monotonic(),
            )
        )

    @rule()
    def maintain(self) -> None:
        """Have maintenance and the heartbeat do their part, past every lock."""
        schedule(self.engine, schema=self.schema)
        clean(self.engine, cancelled_s=60, completed_s=60, discarded_s=60, schema=self.schema)
        touch(self.engine, {(job_id, 1) for job_id in self.poison}, schema=self.schema)

    @rule()
    def look(self) -> None:
        """Outcomes of free rows are written; the others are held, and reported as held."""
        locked = set().union(*self.locked.values()) if self.locked else set()
        free = self.put - locked - self.poison
        until(lambda: not (free & self._running()), "what is free is written", 30, self._why)
        held = self.put & (locked | self.poison)
        until(lambda: self.part.held_ids == held, "the rest is held", 30, self._why)

    def teardown(self) -> None:
        """Release every lock: then all outcomes that can be written are written."""
        for host in self.locked:
            host.rollback()
            host.close()
        self.locked = {}
        try:
            self.look()
        finally:
            if not self.part.stop(5.0):
                self.part.gave_up.set()
                assert self.part.stop(30.0), "the completer did not end"

    def _running(self) -> set[int]:
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql(
                f"SELECT id FROM {self.schema}.river_job WHERE state = 'running'"
            )
            return set(found.scalars())

    def _why(self) -> object:
        return self.part.held_ids, self.locked, self._running()


@pytest.mark.timeout(300)
def test_no_client_waits_for_a_lock(engine: Engine, schema: str) -> None:
    """Whatever rows hosts lock, in whatever order, all that is free is written meanwhile."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
            " BEGIN IF NEW.kind = 'poison' THEN"
            " RAISE EXCEPTION 'no' USING ERRCODE = 'MY001'; END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.river_job"
            f" FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
        )
    Locks.engine, Locks.schema = engine, schema
    run_state_machine_as_test(
        Locks,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
