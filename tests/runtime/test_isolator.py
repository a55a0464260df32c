"""An outcome that cannot be written delays no other, whatever the obstacle."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text

from databases import refuse_connections
from factories import insert_job, job_row
from riverrun.clock import Clock
from riverrun.events import Hub, JobCompleted
from riverrun.execution.result import AttemptResult
from riverrun.jobs.row import AttemptError
from riverrun.jobs.states import JobState
from riverrun.outcome import Outcome
from riverrun.runtime.completer import Completer
from riverrun.verbs import get
from waiting import DEADLINE_S, until


@contextmanager
def completing(engine: Engine, schema: str, hub: Hub | None = None) -> Iterator[Completer]:
    """Run a completer whose stop, like a client's, gives up after a while."""
    part = Completer(
        engine,
        on_due=lambda queue, due: None,
        schema=schema,
        hub=hub or Hub(),
        clock=Clock(),
        rng=random.Random(1),
    )
    part.start()
    try:
        yield part
    finally:
        if not part.stop(5.0):
            part.gave_up.set()
            assert part.stop(DEADLINE_S), "the completer did not end"


def ended(job_id: int, **changes: Any) -> AttemptResult:
    """Return a completed attempt at job `job_id`, with `changes` to its outcome."""
    outcome = Outcome(job_id=job_id, attempt=1, **{"state": JobState.completed, **changes})
    job = job_row(id=job_id)
    return AttemptResult(
        job=job,
        queue=job.queue,
        outcome=outcome,
        error=None,
        run_s=0.0,
        ended_monotonic=time.monotonic(),
    )


def failed(job_id: int, **changes: Any) -> AttemptResult:
    """Return an attempt that failed for the last time, with an error."""
    at = job_row(id=job_id).created_at
    error = AttemptError(attempt=1, at=at, error="no", trace="Traceback")
    return ended(job_id, **{"state": JobState.discarded, "error": error, **changes})


def running(engine: Engine, schema: str, count: int, **values: Any) -> list[int]:
    """Insert running jobs and return their ids."""
    return [insert_job(engine, schema, state="running", attempt=1, **values) for _ in range(count)]


def done(engine: Engine, schema: str, ids: list[int]) -> bool:
    """Return whether all jobs of `ids` are final."""
    with engine.connect() as connection:
        statement = text(
            f"SELECT count(*) FROM {schema}.river_job"
            " WHERE id = ANY(:ids) AND finalized_at IS NOT NULL"
        )
        return connection.scalar(statement, {"ids": ids}) == len(ids)


def refuse(engine: Engine, schema: str, body: str, when: str = "UPDATE") -> None:
    """Create a trigger that runs `body` for each job of kind `poison`."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
            f" BEGIN IF NEW.kind = 'poison' THEN {body} END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE {when} ON {schema}.river_job"
            f" FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
        )


STATES = (
    *("P0001", "54000", "54001", "XX000", "XX001", "0A000", "MY001", "57014", "55P03", "53200"),
    *("40001", "40P01", "42501", "42P01", "23505", "23514", "22P05", "25006", "08006", "57P01"),
    *("53300", "53400", "58030", "38000", "44000", "2F003", "P0004", "28000", "3D000", "F0000"),
)


@pytest.mark.parametrize("state", STATES)
def test_others_are_written(engine: Engine, schema: str, state: str) -> None:
    """Whatever SQLSTATE refuses one row, all others are written and only that one is held."""
    refuse(engine, schema, f"RAISE EXCEPTION 'no' USING ERRCODE = '{state}';")
    good = running(engine, schema, 30)
    [bad] = running(engine, schema, 1, kind="poison")
    mixed = [failed(job_id) if job_id % 2 else ended(job_id) for job_id in good]
    with completing(engine, schema) as part:
        for each in [*mixed[:15], failed(bad), *mixed[15:]]:
            part.put(each)
        until(lambda: done(engine, schema, good), "the others are written")
        until(lambda: part.held == 1 or part.refused, "the one is held")
        assert bad in part.held_ids
        assert get(engine, bad, schema=schema).state is JobState.running


def test_an_update_that_a_trigger_ignores(engine: Engine, schema: str, caplog: Any) -> None:
    """A row that a trigger leaves unchanged does not count as written, and is given up."""
    refuse(engine, schema, "RETURN NULL;")
    good = running(engine, schema, 5)
    [bad] = running(engine, schema, 1, kind="poison")
    with completing(engine, schema) as part:
        for job_id in [*good[:3], bad, *good[3:]]:
            part.put(ended(job_id))
        until(lambda: done(engine, schema, good), "the others are written")
        until(lambda: part.refused == {bad}, "it is given up")
        assert (part.held, part.held_s) == (0, 0.0)
        assert part.held_ids == {bad}
    assert f"refused every form of the outcome of job {bad}" in caplog.text
    assert f"whose rows stay running until they are rescued: [{bad}]" in caplog.text


def test_a_trigger_that_refuses_metadata(engine: Engine, schema: str, caplog: Any) -> None:
    """An outcome refused for its metadata is recorded without it, but with its error.

    No value is logged.
    """
    refuse(
        engine,
        schema,
        "IF NEW.metadata ? 'secret' THEN"
        " RAISE EXCEPTION 'no' USING ERRCODE = 'MY001', DETAIL = NEW.metadata; END IF;",
    )
    [bad] = running(engine, schema, 1, kind="poison", metadata_={"kept": 1})
    with completing(engine, schema) as part:
        part.put(failed(bad, metadata={"secret": "hush" * 1_000}))
        until(lambda: done(engine, schema, [bad]), "it is written")
    job = get(engine, bad, schema=schema)
    assert (job.state, job.metadata) == (JobState.discarded, {"kept": 1})
    assert [error["trace"] for error in job.errors] == ["Traceback"]
    assert f"recorded the outcome of job {bad} without the larger part of its metadata" in (
        caplog.text
    )
    assert "MY001" in caplog.text
    assert "hush" not in caplog.text


def test_an_error_that_is_refused(engine: Engine, schema: str) -> None:
    """If an error is refused, its trace and then its text are given up, but never the state."""
    refuse(
        engine,
        schema,
        "IF position('evil' in NEW.errors::text) > 0 THEN"
        " RAISE EXCEPTION 'no' USING ERRCODE = '54000'; END IF;",
    )
    first, second = running(engine, schema, 2, kind="poison")
    at = job_row(id=first).created_at
    with completing(engine, schema) as part:
        part.put(failed(first, error=AttemptError(attempt=1, at=at, error="no", trace="evil")))
        part.put(failed(second, error=AttemptError(attempt=1, at=at, error="evil", trace="evil")))
        until(lambda: done(engine, schema, [first, second]), "both are written")
    assert [error["error"] for error in get(engine, first, schema=schema).errors] == ["no"]
    [entry] = get(engine, second, schema=schema).errors
    assert "54000 ProgramLimitExceeded" in entry["error"]
    assert entry["trace"] == ""


def test_a_row_that_is_locked(engine: Engine, schema: str) -> None:
    """A row that the application has locked is skipped, counted, and written once it is free."""
    good = running(engine, schema, 20)
    plain, rich = running(engine, schema, 2)
    with completing(engine, schema) as part:
        with engine.begin() as host:
            host.exec_driver_sql(
                f"SELECT FROM {schema}.river_job WHERE id IN ({plain}, {rich}) FOR UPDATE"
            )
            for each in [ended(plain), failed(rich), *map(ended, good)]:
                part.put(each)
            until(lambda: done(engine, schema, good), "the others are written")
            until(lambda: part.held == 2, "both are held")
            until(lambda: part.held_s > 0.2, "they age")
            assert part.held_ids == {plain, rich}
            assert part.wait_for_room(0)
            assert part.unwritten(DEADLINE_S) == {plain, rich}
        until(lambda: done(engine, schema, [plain, rich]), "both are written")
        until(lambda: not part.held, "none is held")
        assert (part.held_s, part.refused) == (0.0, frozenset())


def test_a_thousand_rows_that_are_locked(engine: Engine, schema: str) -> None:
    """Outcomes whose rows are locked do not count as backlog, so others are still written."""
    good, bad = running(engine, schema, 50), running(engine, schema, 1_500)
    with completing(engine, schema) as part:
        with engine.begin() as host:
            host.exec_driver_sql(
                f"UPDATE {schema}.river_job SET tags = '{{a}}' WHERE id > {good[-1]}"
            )
            for job_id in bad:
                part.put(ended(job_id))
            for job_id in good:
                part.put(ended(job_id))
            until(lambda: done(engine, schema, good), "the others are written")
            until(lambda: part.held == len(bad), "they are held")
            assert part.wait_for_room(DEADLINE_S)
        until(lambda: done(engine, schema, bad), "all are written")


def test_a_reference_is_no_lock(engine: Engine, schema: str) -> None:
    """A row in an open transaction that refers to a job does not delay the job's completion."""
    [job_id] = running(engine, schema, 1)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {schema}.receipt (job_id bigint REFERENCES {schema}.river_job)"
        )
    with completing(engine, schema) as part, engine.begin() as host:
        host.exec_driver_sql(f"INSERT INTO {schema}.receipt VALUES ({job_id})")
        part.put(ended(job_id))
        until(lambda: done(engine, schema, [job_id]), "it is written")


def test_lost_attempts_are_not_held(engine: Engine, schema: str) -> None:
    """An attempt whose job was deleted or claimed by another client is neither held nor refused."""
    gone, other = running(engine, schema, 2)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {schema}.river_job WHERE id = {gone}")
        connection.exec_driver_sql(f"UPDATE {schema}.river_job SET attempt = 2")
    with completing(engine, schema) as part:
        for each in (ended(gone), failed(other, metadata={"staged": 1})):
            part.put(each)
        until(lambda: part.unwritten(DEADLINE_S) == frozenset(), "all is written")
        assert not part.held_ids
    assert get(engine, other, schema=schema).metadata == {"staged": 1}


def test_a_batch_is_bounded_in_bytes(engine: Engine, schema: str) -> None:
    """Outputs within their limit are written together only as far as one statement may be long."""
    ids = running(engine, schema, 5)
    sizes: list[int] = []
    own = create_engine(engine.url)
    event.listen(own, "before_cursor_execute", lambda *args: sizes.append(len(str(args[3]))))
    with completing(own, schema) as part:
        for job_id in ids:
            part.put(ended(job_id, metadata={"output": "x" * 6_000_000}))
        part.put(ended(ids[0], metadata={"output": "x" * 20_000_000}))
        until(lambda: done(engine, schema, ids), "all are written")
    own.dispose()
    assert max(sizes) < 21_000_000
    assert sum(size > 5_000_000 for size in sizes) >= 3


def test_events_of_what_was_held(engine: Engine, schema: str) -> None:
    """An outcome causes its event when it is written, and not before."""
    [job_id] = running(engine, schema, 1)
    hub = Hub()
    with hub.subscribe(JobCompleted) as events, completing(engine, schema, hub) as part:
        with engine.begin() as host:
            host.exec_driver_sql(f"SELECT FROM {schema}.river_job FOR UPDATE")
            part.put(ended(job_id))
            until(lambda: part.held == 1, "it is held")
            with pytest.raises(TimeoutError):
                events.get(0.0)
        happened = events.get(DEADLINE_S)
    assert isinstance(happened, JobCompleted)
    assert happened.job.id == job_id


def test_a_stop_leaves_what_is_locked(engine: Engine, schema: str, caplog: Any) -> None:
    """A stop waits for a locked row until its time is over, and logs the job it gives up."""
    [job_id] = running(engine, schema, 1)
    with engine.begin() as host:
        host.exec_driver_sql(f"SELECT FROM {schema}.river_job FOR UPDATE")
        with completing(engine, schema) as part:
            part.put(ended(job_id))
            until(lambda: part.held == 1, "it is held")
    assert "could not write the outcomes of 1 jobs before the client stopped" in caplog.text
    assert f"the jobs will be rescued: [{job_id}]" in caplog.text


def test_a_server_that_is_away_gives_up_nothing(engine: Engine, schema: str) -> None:
    """While the server is away, no part of an outcome is given up, however long that lasts."""
    [job_id] = running(engine, schema, 1)
    own = create_engine(engine.url)
    refuse_connections(own, 12)
    with completing(own, schema) as part:
        part._pause._longest_s = 0.1
        part.put(failed(job_id, metadata={"output": "kept"}))
        until(lambda: done(engine, schema, [job_id]), "it is written")
    own.dispose()
    job = get(engine, job_id, schema=schema)
    assert (job.metadata, job.errors[0]["trace"]) == ({"output": "kept"}, "Traceback")
