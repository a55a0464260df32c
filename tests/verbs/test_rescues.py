"""The list of rescued jobs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from factories import insert_job
from riverrun.errors import InvalidOption
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.policies.backoff import Constant
from riverrun.verbs import claim, get, list_rescued
from riverrun.verbs.rescue import rescue
from verbs.joins import KINDS, opened
from verbs.test_odd_rows import ODD, change

LATE: dict[str, Any] = {"dead_s": 1, "stuck_s": 1, "backoff": lambda _: Constant(delay=0)}


def test_jobs_that_lost_their_client(engine: Engine, schema: str) -> None:
    """A rescued job is listed with the number of its rescues, the last time and its clients."""
    job_id = insert_job(engine, schema, queue="mail", max_attempts=9)
    insert_job(engine, schema)
    times = []
    for client_id in ("one", "two"):
        claim(engine, "mail", client_id=client_id, schema=schema)
        change(engine, schema, "attempted_at = '2020-01-01'", [job_id])
        times.append(rescue(engine, schema=schema, **LATE))
    job = get(engine, job_id, schema=schema)
    [found] = list_rescued(engine, schema=schema)
    assert (found.id, found.kind, found.queue, found.state) == (job_id, "greet", "mail", job.state)
    assert (found.count, found.client_ids) == (2, ("one", "two"))
    assert found.rescued_at == datetime.fromisoformat(job.errors[-1]["at"])
    assert datetime.now(UTC) - found.rescued_at < timedelta(days=1)


def test_gos_rescues(engine: Engine, schema: str) -> None:
    """A rescue that River wrote is read; a failure after it does not hide its time."""
    rescued = {"attempt": 1, "error": "Stuck job rescued by JobRescuer", "trace": ""}
    errors = [
        {**rescued, "at": "2026-05-01T12:00:00.123456789Z"},
        {**rescued, "at": "2026-05-02T14:00:00.5+02:00"},
        {"attempt": 3, "error": "other", "at": "2026-05-03T12:00:00Z"},
    ]
    insert_job(engine, schema, metadata_={"river:rescue_count": 2}, errors=errors)
    [found] = list_rescued(engine, schema=schema)
    assert found.rescued_at == datetime(2026, 5, 2, 12, 0, 0, 500_000, tzinfo=UTC)


def test_pages(engine: Engine, schema: str) -> None:
    """The newest come first, and the next page begins after the last id of the one before."""
    made = [insert_job(engine, schema, metadata_={"river:rescue_count": 1}) for _ in range(5)]
    pages = []
    after = None
    while page := list_rescued(engine, limit=2, after=after, schema=schema):
        pages.append([job.id for job in page])
        after = page[-1].id
    assert pages == [made[:2:-1], made[2:0:-1], made[:1]]


COUNTS = {
    "7": 7,
    "0": 0,
    '"3"': 3,
    '"x"': None,
    '"\N{SUPERSCRIPT TWO}"': None,
    "-1": None,
    "1.5": None,
    "null": None,
    "[]": None,
    "9" * 500: 10**20 - 1,
}
"""JSON counts, and what is read. Of a number only the first 20 digits are read."""


@pytest.mark.parametrize("count", COUNTS, ids=lambda text: ascii(text)[:9])
def test_odd_counts(engine: Engine, schema: str, count: str) -> None:
    """A count that is not a number is None, and the job is listed nevertheless."""
    job_id = insert_job(engine, schema)
    change(engine, schema, f"""metadata = '{{"river:rescue_count": {count}}}'""", [job_id])
    assert [job.count for job in list_rescued(engine, schema=schema)] == [COUNTS[count]]


@pytest.mark.parametrize("at", [None, 5, "", "yesterday", "2026-05-01", "99999-01-01T00:00:00Z"])
def test_odd_times(engine: Engine, schema: str, at: object) -> None:
    """A rescue at no time is listed without one."""
    errors = [{"error": "Stuck job rescued by JobRescuer", "at": at}]
    insert_job(engine, schema, metadata_={"river:rescue_count": 1}, errors=errors)
    assert [job.rescued_at for job in list_rescued(engine, schema=schema)] == [None]


def test_odd_rows_are_listed(engine: Engine, schema: str) -> None:
    """Rows that no client writes are listed if their metadata has the key."""
    rescued = {"metadata_": {"river:rescue_count": 1}}
    jobs = {name: insert_job(engine, schema, **rescued) for name in ("nothing", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    change(engine, schema, """metadata = '["river:rescue_count"]'""", [jobs["nothing"]])
    found = {job.id: job for job in list_rescued(engine, schema=schema)}
    lost = {job_id for name, job_id in jobs.items() if name.startswith(("metadata", "steps"))}
    assert set(found) == set(jobs.values()) - lost
    assert all(isinstance(each, str) for job in found.values() for each in job.client_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_was_rescued(engine: Engine, schema: str, kind: str) -> None:
    """Without rescued jobs the list is empty, on any kind of transaction."""
    insert_job(engine, schema)
    with opened(kind, engine) as where:
        assert list_rescued(where, schema=schema) == []


def test_states_of_a_later_river(empty_database: Engine) -> None:
    """A rescued job in a state that only a later River knows is listed."""
    migrate(empty_database)
    frozen = insert_job(empty_database, metadata_={"river:rescue_count": 1})
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        connection.execute(text(f"UPDATE river_job SET state = 'frozen' WHERE id = {frozen}"))
    [found] = list_rescued(empty_database)
    assert found.state == "frozen"
    assert found.state not in set(JobState)


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 10_001}, {"after": -1}, {"after": "5"}, {"after": 2**63}]
)
def test_refuses_odd_pages(engine: Engine, schema: str, params: dict[str, Any]) -> None:
    """A limit or an id out of range is refused."""
    with pytest.raises(InvalidOption, match=next(iter(params))):
        list_rescued(engine, **params, schema=schema)
