"""Step 5 in its thread: batches, databases that fail, outcomes that a database refuses."""

import random
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, event, select, text

from databases import refuse_connections
from factories import insert_job, job_row
from riverrun.clock import Clock
from riverrun.errors import AttemptLost
from riverrun.events import Hub, JobCompleted
from riverrun.execution.result import AttemptResult
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.outcome import Outcome, attempt_error
from riverrun.runtime import completer as module
from riverrun.runtime.completer import Completer
from waiting import DEADLINE_S, until

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def completer(engine: Engine, schema: str, hub: Hub | None = None) -> Completer:
    """Return a completer on `engine`. It is not started."""
    return Completer(
        engine,
        on_due=lambda queue, due: None,
        schema=schema,
        hub=hub or Hub(),
        clock=Clock(),
        rng=random.Random(1),
    )


def ended(job_id: int, **changes: Any) -> AttemptResult:
    """Return a completed attempt at job `job_id`, with `changes` to its outcome."""
    outcome = Outcome(job_id=job_id, attempt=1, **{"state": JobState.completed, **changes})
    job = job_row(id=job_id)
    return AttemptResult(
        job=job, queue=job.queue, outcome=outcome, error=None, run_s=0.0, ended_monotonic=0.0
    )


def states(engine: Engine, schema: str) -> list[JobState]:
    """Return the state of every job, by id."""
    options = {"schema_translate_map": {None: schema}}
    with engine.connect() as connection:
        found = connection.execute(select(Job.state).order_by(Job.id), execution_options=options)
        return [JobState(state) for state in found.scalars()]


def test_writes_many_in_few_statements(engine: Engine, schema: str) -> None:
    """A thousand attempts that finish together are completed with one statement."""
    ids = [insert_job(engine, schema, state="running") for _ in range(20)]
    statements: list[str] = []
    own = create_engine(engine.url)
    event.listen(own, "before_cursor_execute", lambda *args: statements.append(args[2]))
    part = completer(own, schema)
    for job_id in ids:
        part.put(ended(job_id))
    part.start()
    assert part.stop(DEADLINE_S), "the completer did not end"
    own.dispose()
    assert states(engine, schema) == [JobState.completed] * 20
    assert sum("UPDATE" in statement for statement in statements) == 1


def test_many_do_not_wait_for_more(engine: Engine, schema: str, monkeypatch: Any) -> None:
    """A hundred finished attempts are written at once: the wait for others is for few."""
    monkeypatch.setattr(module, "GATHER_S", 2 * DEADLINE_S)
    ids = [insert_job(engine, schema, state="running") for _ in range(module.ENOUGH)]
    part = completer(engine, schema)
    for job_id in ids:
        part.put(ended(job_id))
    part.start()
    until(lambda: set(states(engine, schema)) == {JobState.completed}, "all are written")
    assert part.stop(DEADLINE_S), "the completer did not end"


def test_holds_what_a_failing_database_does_not_take(engine: Engine, schema: str) -> None:
    """While the database fails, no outcome is lost; once it answers, all outcomes are written."""
    ids = [insert_job(engine, schema, state="running") for _ in range(3)]
    own = create_engine(engine.url)
    refused = refuse_connections(own, 3)
    hub = Hub()
    with hub.subscribe(JobCompleted) as events:
        part = completer(own, schema, hub)
        part.start()
        for job_id in ids:
            part.put(ended(job_id))
        came = {events.get(DEADLINE_S).job.id for _ in ids}  # type: ignore[attr-defined]
    assert came == set(ids)
    assert len(refused) == 3
    assert part.stop(DEADLINE_S), "the completer did not end"
    own.dispose()
    assert states(engine, schema) == [JobState.completed] * 3


def test_holds_what_it_may_not_write(engine: Engine, schema: str, caplog: Any) -> None:
    """If a privilege is revoked, no outcome is lost: all are written once it is granted again."""
    ids = [insert_job(engine, schema, state="running") for _ in range(3)]
    role = f"writer_{schema!s}".replace(" ", "_").lower()
    own = create_engine(engine.url)
    event.listen(own, "connect", lambda driver, _: become(driver, role))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
    part = completer(own, schema)
    part.start()
    for job_id in ids:
        part.put(ended(job_id))
    until(lambda: "could not write the outcomes of 3 jobs" in caplog.text, "it holds them")
    with engine.begin() as connection:
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"))
    assert part.stop(DEADLINE_S), "the completer did not end"
    own.dispose()
    assert states(engine, schema) == [JobState.completed] * 3
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def become(driver: Any, role: str) -> None:
    """Run a new connection with the privileges of `role`."""
    driver.execute(f"SET ROLE {role}")
    driver.commit()


@pytest.mark.parametrize("poison", [{"bad": object()}, {"bad": "\ud800"}, {"bad": "\x00"}])
def test_isolates_what_the_database_refuses(engine: Engine, schema: str, poison: Any) -> None:
    """One outcome that cannot be written delays no other, and its job does not stay running."""
    ids = [insert_job(engine, schema, state="running") for _ in range(7)]
    part = completer(engine, schema)
    for job_id in ids:
        part.put(ended(job_id, metadata=poison) if job_id == ids[3] else ended(job_id))
    part.start()
    assert part.stop(DEADLINE_S), "the completer did not end"
    assert states(engine, schema) == [JobState.completed] * 7


def test_sends_no_event_of_an_attempt_that_was_lost(engine: Engine, schema: str) -> None:
    """An attempt that lost its job causes no event."""
    job_id = insert_job(engine, schema, state="running")
    lost = AttemptResult(
        job=job_row(id=job_id + 1),
        queue="default",
        outcome=None,
        error=AttemptLost(job_id + 1, 1),
        run_s=0.0,
        ended_monotonic=0.0,
    )
    hub = Hub()
    with hub.subscribe() as events:
        part = completer(engine, schema, hub)
        part.put(lost)
        part.put(ended(job_id))
        part.start()
        assert events.get(DEADLINE_S).job.id == job_id  # type: ignore[attr-defined]
        assert part.stop(DEADLINE_S), "the completer did not end"


def test_a_job_is_finalized_when_its_worker_returned(engine: Engine, schema: str) -> None:
    """However long an outcome waits, `finalized_at` is the time at which its attempt finished."""
    now = "now() - interval '1 hour'"
    plain, failed, young = (insert_job(engine, schema, state="running") for _ in range(3))
    with engine.begin() as connection:
        for job_id, at in ((plain, now), (failed, now), (young, "now() - interval '1 minute'")):
            connection.execute(
                text(f"UPDATE {schema}.river_job SET attempted_at = {at} WHERE id = {job_id}")
            )
    own = create_engine(engine.url)
    part = completer(own, schema)
    error = attempt_error(1, START, ValueError("no"))
    returned = Clock.monotonic() - 600
    for job_id, changes in (
        (plain, {}),
        (failed, {"state": JobState.discarded, "error": error}),
        (young, {}),
    ):
        part.put(attrs.evolve(ended(job_id, **changes), ended_monotonic=returned))
    part.start()
    assert part.stop(DEADLINE_S), "the completer did not end"
    own.dispose()
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT extract(epoch FROM now() - finalized_at)::float,"
                f" finalized_at = attempted_at FROM {schema}.river_job ORDER BY id"
            )
        ).all()
    assert [seconds == pytest.approx(600, abs=60) for seconds, _ in rows] == [True, True, False]
    # Where the two clocks differ, a job still never finishes before its attempt began.
    assert [same for _, same in rows] == [False, False, True]


@pytest.mark.parametrize("state", ["completed", "cancelled"])
@pytest.mark.parametrize("attempted", ["now() + interval '1 hour'", "'infinity'", "NULL"])
def test_no_job_is_finalized_in_the_future(
    engine: Engine, schema: str, state: str, attempted: str
) -> None:
    """Whatever start time a row has, its job is not finalized later than now."""
    job_id = insert_job(engine, schema, state="running")
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema}.river_job SET attempted_at = {attempted}"))
    own = create_engine(engine.url)
    part = completer(own, schema)
    # A clock was set back: the attempt seems to finish in a minute.
    future = Clock.monotonic() + 60
    part.put(attrs.evolve(ended(job_id, state=JobState(state)), ended_monotonic=future))
    part.start()
    assert part.stop(DEADLINE_S), "the completer did not end"
    own.dispose()
    with engine.connect() as connection:
        found = connection.execute(
            text(f"SELECT state::text, finalized_at <= now() FROM {schema}.river_job")
        ).one()
    assert tuple(found) == (state, True)
