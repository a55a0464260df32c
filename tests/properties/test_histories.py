"""Histories of several clients on one table, step by step beside a model without a database.

The model of an attempt's end is `outcome.decide` itself, which has tests of its own; here it is
what the statements make of rows that others change meanwhile.
"""

from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from factories import T0
from riverrun import Constant, InsertOpts, JobArgs, JobCancel, JobSnooze, JobState, verbs
from riverrun.db.transactions import joined
from riverrun.errors import AttemptLost, JobNotFound, JobRunning
from riverrun.jobs.row import JobRow
from riverrun.models import Job
from riverrun.outcome import decide
from riverrun.verbs.beat import beat
from riverrun.verbs.clean import clean
from riverrun.verbs.complete import record
from riverrun.verbs.rescue import rescue
from riverrun.verbs.schedule import schedule

CLIENTS = ("ada", "bob", "cy")
BACKOFF = Constant(delay=60, jitter=0)
DEAD_S = 20.0
ENDINGS = st.sampled_from([None, ValueError("x"), JobSnooze(60), JobSnooze(1), JobCancel("x")])


@attrs.frozen
class Step(JobArgs, kind="step"):
    number: int = 0


@attrs.define
class Known:
    """A row of the model."""

    state: JobState
    attempt: int
    scheduled_at: datetime
    max_attempts: int
    owner: str | None = None
    errors: int = 0
    cancel_asked: bool = False
    finalized_at: datetime | None = None


class Histories(RuleBasedStateMachine):
    """Clients insert, claim, end, die and are rescued, while an operator interferes."""

    engine: Engine
    schema: str
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.rows: dict[int, Known] = {}
        self.beats: dict[str, datetime] = {}
        with self.engine.begin() as connection:
            connection.execute(
                text(f"TRUNCATE {self.schema}.river_job, {self.schema}.riverrun_client")
            )

    @initialize(target=jobs, tries=st.lists(st.integers(1, 3), min_size=2, max_size=4))
    def begin(self, tries: list[int]) -> Any:
        """Begin with some jobs that are due."""
        return multiple(*(self.insert(None, each) for each in tries))

    @rule(target=jobs, delay_s=st.sampled_from([None, 30, 300]), tries=st.integers(1, 3))
    def add(self, delay_s: float | None, tries: int) -> int:
        """Insert a job, due now or later."""
        return self.insert(delay_s, tries)

    def insert(self, delay_s: float | None, tries: int) -> int:
        """Insert a job; return its id."""
        at = None if delay_s is None else self.now + timedelta(seconds=delay_s)
        opts = InsertOpts(scheduled_at=at, max_attempts=tries)
        job = verbs.insert(self.engine, Step(), opts, schema=self.schema, now=self.now).job
        state = JobState.available if at is None else JobState.scheduled
        self.rows[job.id] = Known(state, 0, at or self.now, tries)
        return job.id

    @rule(target=claims, client=st.sampled_from(CLIENTS))
    def come_back(self, client: str) -> Any:
        """Write no heartbeat until other clients rescue the jobs, then claim again."""
        self.pass_time(65)
        self.rescue()
        self.schedule()
        return multiple(*self.claim(client, 4))

    @rule(delay_s=st.sampled_from([1, 10, 25, 100]))
    def later(self, delay_s: float) -> None:
        """Let time pass."""
        self.pass_time(delay_s)

    def pass_time(self, delay_s: float) -> None:
        """Let time pass, and with it heartbeats."""
        self.now += timedelta(seconds=delay_s)

    @rule(target=claims, client=st.sampled_from(CLIENTS), limit=st.integers(1, 4))
    def take(self, client: str, limit: int) -> Any:
        """Claim."""
        return multiple(*self.claim(client, limit))

    def claim(self, client: str, limit: int) -> list[JobRow]:
        """Claim what is due, in order; a client that claims lives."""
        beat(self.engine, client, hostname="h", pid=1, queues=[], schema=self.schema, now=self.now)
        self.beats[client] = self.now
        due = sorted(
            (row.scheduled_at, job_id)
            for job_id, row in self.rows.items()
            if row.state is JobState.available and row.scheduled_at <= self.now
        )[:limit]
        jobs = verbs.claim(
            self.engine, limit=limit, client_id=client, schema=self.schema, now=self.now
        )
        assert [job.id for job in jobs] == [job_id for _, job_id in due]
        for job in jobs:
            row = self.rows[job.id]
            row.state, row.attempt, row.owner = JobState.running, row.attempt + 1, client
            assert job.attempt == row.attempt
        return jobs

    @rule(job=claims, error=ENDINGS, batched=st.booleans())
    def finish(self, job: JobRow, error: BaseException | None, batched: bool) -> None:
        """End an attempt."""
        self.end(job, error, batched)

    def end(self, job: JobRow, error: BaseException | None, batched: bool) -> None:
        """End an attempt, perhaps long after another client has claimed the job."""
        outcome = decide(job, error, now=self.now, backoff=BACKOFF)
        row = self.rows.get(job.id)
        owner = job.attempted_by[-1]
        claimed = (JobState.running, job.attempt, owner)
        held = row is not None and (row.state, row.attempt, row.owner) == claimed
        if batched:
            with joined(self.engine, self.schema) as transaction:
                states = record(
                    transaction, [outcome], merge_anyway=True, owner=owner, now=self.now
                )
            assert held or states.get(job.id) in {None, row and row.state}
        else:
            try:
                if error is None:
                    verbs.complete(self.engine, job, schema=self.schema, now=self.now)
                else:
                    verbs.fail(
                        self.engine, job, error, backoff=BACKOFF, schema=self.schema, now=self.now
                    )
                assert held
            except AttemptLost:
                assert not held
        if held:
            assert row is not None
            self._apply(row, outcome)

    @rule(target=claims, error=ENDINGS, batched=st.booleans())
    def end_too_late(self, error: BaseException | None, batched: bool) -> Any:
        """End attempts whose jobs were rescued and claimed by another client."""
        late = self.claim("ada", 2)
        self.pass_time(65)
        self.rescue()
        self.pass_time(65)
        self.schedule()
        taken = self.claim("bob", 4)
        for job in late:
            self.end(job, error, batched)
        return multiple(*taken)

    @rule(job_id=jobs)
    def cancel(self, job_id: int) -> None:
        """Cancel a job: at once if it waits, a mark if it runs, nothing if it is final."""
        row = self.rows.get(job_id)
        try:
            job = verbs.cancel(self.engine, job_id, schema=self.schema, now=self.now)
        except JobNotFound:
            assert row is None
            return
        assert row is not None
        if row.state is JobState.running:
            row.cancel_asked = True
        elif not row.state.is_final:
            row.state, row.finalized_at, row.cancel_asked = JobState.cancelled, self.now, True
        assert job.state is row.state

    @rule(job_id=jobs)
    def retry(self, job_id: int) -> None:
        """Retry a job: available now, unless it runs; one try more if it has none left."""
        row = self.rows.get(job_id)
        try:
            job = verbs.retry(self.engine, job_id, schema=self.schema, now=self.now)
        except JobNotFound:
            assert row is None
            return
        assert row is not None
        if row.state is not JobState.running:
            due = row.state is JobState.available and row.scheduled_at < self.now
            if row.max_attempts == row.attempt:
                row.max_attempts += 1
            row.state, row.finalized_at = JobState.available, None
            row.cancel_asked = False if not due else row.cancel_asked
            if not due:
                row.scheduled_at = self.now
        assert job.state is row.state

    @rule(job_id=jobs)
    def delete(self, job_id: int) -> None:
        """Delete a job that does not run."""
        row = self.rows.get(job_id)
        try:
            verbs.delete(self.engine, job_id, schema=self.schema)
            assert row is not None
            assert row.state is not JobState.running
            del self.rows[job_id]
        except JobNotFound:
            assert row is None
        except JobRunning:
            assert row is not None
            assert row.state is JobState.running

    @rule()
    def make_available(self) -> None:
        """Be the leader's scheduler."""
        self.schedule()

    def schedule(self) -> None:
        """Schedule: what is due within 5 s becomes available."""
        schedule(self.engine, schema=self.schema, now=self.now)
        for row in self.rows.values():
            waiting = row.state in {JobState.scheduled, JobState.retryable}
            if waiting and row.scheduled_at <= self.now + timedelta(seconds=5):
                row.state = JobState.available

    @rule()
    def take_back(self) -> None:
        """Be the leader's rescuer."""
        self.rescue()

    def rescue(self) -> None:
        """Rescue: jobs whose client has been silent for more than 20 s are taken back."""
        done = rescue(
            self.engine,
            dead_s=DEAD_S,
            stuck_s=3600,
            backoff=lambda _: BACKOFF,
            schema=self.schema,
            now=self.now,
        )
        dead = {
            client for client, at in self.beats.items() if at < self.now - timedelta(seconds=DEAD_S)
        }
        lost = {
            job_id: row
            for job_id, row in self.rows.items()
            if row.state is JobState.running and row.owner in dead
        }
        assert done.states.keys() == lost.keys()
        for row in lost.values():
            row.errors += 1
            row.owner = None
            if row.cancel_asked:
                row.state, row.finalized_at = JobState.cancelled, self.now
            elif row.attempt >= row.max_attempts:
                row.state, row.finalized_at = JobState.discarded, self.now
            else:
                row.state = JobState.retryable
                row.scheduled_at = self.now + timedelta(seconds=60)
        for client in dead:
            del self.beats[client]

    @rule()
    def clean(self) -> None:
        """Clean: final jobs older than 50 s are gone."""
        clean(
            self.engine,
            cancelled_s=50,
            completed_s=50,
            discarded_s=50,
            limit=100,
            schema=self.schema,
            now=self.now,
        )
        bound = self.now - timedelta(seconds=50)
        self.rows = {
            job_id: row
            for job_id, row in self.rows.items()
            if row.finalized_at is None or row.finalized_at >= bound
        }

    @invariant()
    def rows_are_as_modelled(self) -> None:
        """The table and the model agree on every row."""
        options = {"schema_translate_map": {None: self.schema}}
        with Session(self.engine) as session:
            found = {
                job.id: (
                    job.state,
                    job.attempt,
                    job.max_attempts,
                    job.scheduled_at,
                    len(job.errors or []),
                    job.finalized_at,
                    "cancel_attempted_at" in job.metadata_,
                )
                for job in session.query(Job).execution_options(**options)
            }
        assert found == {
            job_id: (
                row.state,
                row.attempt,
                row.max_attempts,
                row.scheduled_at,
                row.errors,
                row.finalized_at,
                row.cancel_asked,
            )
            for job_id, row in self.rows.items()
        }

    def _apply(self, row: Known, outcome: Any) -> None:
        row.owner = None
        row.errors += outcome.error is not None
        if row.cancel_asked and not outcome.state.is_final:
            row.state, row.finalized_at = JobState.cancelled, self.now
            return
        row.state = outcome.state
        row.attempt -= outcome.give_back
        row.scheduled_at = outcome.scheduled_at or row.scheduled_at
        row.finalized_at = self.now if outcome.state.is_final else None


@pytest.mark.timeout(300)
def test_every_history_is_as_modelled(engine: Engine, schema: str) -> None:
    """Whatever clients and operators do, in whatever order, rows change as they should."""
    Histories.engine, Histories.schema = engine, schema
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
