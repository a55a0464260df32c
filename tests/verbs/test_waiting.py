"""Counts of waiting jobs, a job's place in line, and the job that holds its unique key."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from factories import T0, insert_job
from riverrun.errors import InvalidOption, JobNotFound
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.verbs import Place, count_waiting, key_holder, place_in_line
from verbs.joins import KINDS, opened

WAITING = [state for state in JobState if not state.is_final]


def test_counts_by_queue_and_state(engine: Engine, schema: str) -> None:
    """Each queue has a count for each of its states that is not final, by priority."""
    for state in JobState:
        insert_job(engine, schema, state=state, scheduled_at=T0)
    for priority in (1, 3, 3):
        at = T0 - timedelta(seconds=priority)
        insert_job(engine, schema, queue="mail", priority=priority, scheduled_at=at)
    counts = {(each.queue, each.state): each for each in count_waiting(engine, schema=schema)}
    assert list(counts) == [
        *(("default", state) for state in sorted(WAITING)),
        ("mail", JobState.available),
    ]
    for state in WAITING:
        of = counts["default", state]
        assert (of.count, of.capped, of.oldest_at, of.by_priority) == (1, False, T0, {1: 1})
    mail = counts["mail", JobState.available]
    assert (mail.count, mail.oldest_at) == (3, T0 - timedelta(seconds=3))
    assert mail.by_priority == {1: 1, 3: 2}
    assert mail.age_s == pytest.approx((datetime.now(UTC) - mail.oldest_at).total_seconds(), abs=60)


@pytest.mark.parametrize(("most", "count", "capped"), [(2, 2, True), (3, 3, False), (4, 3, False)])
def test_stops_counting(engine: Engine, schema: str, most: int, count: int, capped: bool) -> None:
    """A count stops at its limit and shows that; the oldest job is that of all jobs even so."""
    for priority in (1, 2, 4):
        insert_job(engine, schema, priority=priority, scheduled_at=T0 - timedelta(days=priority))
    [found] = count_waiting(engine, most=most, schema=schema)
    assert (found.count, found.capped) == (count, capped)
    assert found.oldest_at == T0 - timedelta(days=4)
    assert found.by_priority == (None if capped else {1: 1, 2: 1, 4: 1})


@pytest.mark.parametrize("kind", KINDS)
def test_counts_nothing(engine: Engine, schema: str, kind: str) -> None:
    """Without jobs, or with final ones alone, there are no counts, on any kind of transaction."""
    with opened(kind, engine) as where:
        assert count_waiting(where, schema=schema) == []
        insert_job(engine, schema, state=JobState.completed)
        assert count_waiting(where, schema=schema) == []


@pytest.mark.parametrize("odd_time", ["infinity", "-infinity", "20000-01-01", "4000-01-01 BC"])
def test_odd_times_and_names(engine: Engine, schema: str, odd_time: str) -> None:
    """A job that is due at no time of a calendar, in a queue of any name, is counted."""
    job_id = insert_job(engine, schema, queue="'; --\n\N{SNOWMAN}%s {}")
    with engine.begin() as connection:
        statement = f"UPDATE {schema}.river_job SET scheduled_at = '{odd_time}' WHERE id = {job_id}"
        connection.execute(text(statement))
    [found] = count_waiting(engine, schema=schema)
    assert (found.queue, found.count) == ("'; --\n\N{SNOWMAN}%s {}", 1)
    assert (found.age_s > 0) == ("-inf" in odd_time or "BC" in odd_time)


def test_states_of_a_later_river(empty_database: Engine) -> None:
    """A state that only a later River knows is not counted, and the others are."""
    migrate(empty_database)
    frozen = insert_job(empty_database)
    insert_job(empty_database)
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {frozen}"))
    assert [each.count for each in count_waiting(empty_database)] == [1]


@pytest.mark.parametrize("most", [0, -1, 1_000_001, True, "5", None])
def test_refuses_odd_limits(engine: Engine, schema: str, most: object) -> None:
    """A limit out of range is refused."""
    with pytest.raises(InvalidOption, match="most"):
        count_waiting(engine, most=most, schema=schema)  # type: ignore[arg-type]


def test_place_in_line(engine: Engine, schema: str) -> None:
    """Ahead of a job are those that a client would claim first, and no others."""
    order = {
        "urgent": {"priority": 1, "scheduled_at": T0 + timedelta(seconds=9)},
        "older": {"priority": 2, "scheduled_at": T0 - timedelta(seconds=9)},
        "equal": {"priority": 2, "scheduled_at": T0},
        "mine": {"priority": 2, "scheduled_at": T0},
        "later": {"priority": 2, "scheduled_at": T0 + timedelta(seconds=1)},
        "low": {"priority": 3, "scheduled_at": T0 - timedelta(days=1)},
    }
    jobs = {name: insert_job(engine, schema, **row) for name, row in order.items()}
    insert_job(engine, schema, queue="other", scheduled_at=T0 - timedelta(days=1))
    for state in set(JobState) - {JobState.available}:
        insert_job(engine, schema, state=state, scheduled_at=T0 - timedelta(days=1))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    insert_job(engine, schema, priority=1, scheduled_at=tomorrow)
    for number, name in enumerate(order):
        place = place_in_line(engine, jobs[name], schema=schema)
        assert place == Place(ahead=number, capped=False), name
    for most, expected in ((2, (2, True)), (3, (3, False)), (4, (3, False))):
        place = place_in_line(engine, jobs["mine"], most=most, schema=schema)
        assert place is not None
        assert (place.ahead, place.capped) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.available}))
def test_no_place(engine: Engine, schema: str, state: JobState, kind: str) -> None:
    """A job that is not available has no place in line, and one that is not there is an error."""
    insert_job(engine, schema)
    job_id = insert_job(engine, schema, state=state)
    with opened(kind, engine) as where:
        assert place_in_line(where, job_id, schema=schema) is None
        with pytest.raises(JobNotFound, match="4711"):
            place_in_line(where, 4711, schema=schema)


@pytest.mark.parametrize("odd_time", ["infinity", "-infinity", "20000-01-01", "4000-01-01 BC"])
def test_places_at_odd_times(engine: Engine, schema: str, odd_time: str) -> None:
    """A job that is due at no time of a calendar has a place, and is ahead of others or not."""
    odd, other = insert_job(engine, schema), insert_job(engine, schema)
    with engine.begin() as connection:
        statement = f"UPDATE {schema}.river_job SET scheduled_at = '{odd_time}' WHERE id = {odd}"
        connection.execute(text(statement))
    places = [place_in_line(engine, job_id, schema=schema) for job_id in (odd, other)]
    early = odd_time in ("-infinity", "4000-01-01 BC")
    assert [place and place.ahead for place in places] == ([0, 1] if early else [1, 0])


def holder(engine: Engine, schema: str, job_id: int) -> int | None:
    """Return the id of the job that holds another's key."""
    found = key_holder(engine, job_id, schema=schema)
    return None if found is None else found.id


def test_who_holds_a_key(engine: Engine, schema: str) -> None:
    """The job that holds a key is found from each job of that key, also from itself."""
    held = {"unique_key": b"k", "unique_states": {JobState.available, JobState.running}}
    done = insert_job(engine, schema, state=JobState.completed, **held)
    skipped = insert_job(engine, schema, unique_key=b"k")
    assert holder(engine, schema, done) is None
    errors = [{"error": "no"}, {"error": "still no"}]
    holding = insert_job(engine, schema, state=JobState.running, errors=errors, **held)
    other = insert_job(engine, schema, **{**held, "unique_key": b"other"})
    for job_id in (done, skipped, holding):
        assert holder(engine, schema, job_id) == holding
    assert holder(engine, schema, other) == other
    assert holder(engine, schema, insert_job(engine, schema)) is None
    found = key_holder(engine, done, schema=schema)
    assert found is not None
    assert (found.state, found.last_error, found.args) == (
        JobState.running,
        "still no",
        '{"name": "Ada"}',
    )
    with pytest.raises(JobNotFound, match="4711"):
        key_holder(engine, 4711, schema=schema)


def test_who_holds_a_key_in_odd_states(empty_database: Engine) -> None:
    """A job in a state that only a later River knows holds no key."""
    migrate(empty_database)
    held = {"unique_key": b"k", "unique_states": set(JobState)}
    frozen = insert_job(empty_database, **held)
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {frozen}"))
    assert key_holder(empty_database, frozen) is None
    assert place_in_line(empty_database, frozen) is None
