"""Lists, deletes and updates of jobs."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from factories import insert_job
from riverrun import JobList, JobListParams
from riverrun.errors import InvalidOption, JobNotFound, JobRunning, UniqueKeyTaken
from riverrun.jobs.states import JobState
from riverrun.queries import read as read_queries
from riverrun.verbs import act_on_listed, delete, delete_many, get, list_jobs, retry, update

T = datetime(2026, 5, 1, 12, tzinfo=UTC)
FINAL = (JobState.completed, JobState.cancelled, JobState.discarded)


def list_page(engine: Engine, schema: str, **params: Any) -> JobList:
    """Return a list of jobs."""
    return list_jobs(engine, JobListParams(**params), schema=schema)


def ids(engine: Engine, schema: str, **params: Any) -> list[int]:
    """Return the ids that a list has, in its order."""
    return [job.id for job in list_page(engine, schema, **params).jobs]


def later(seconds: float) -> datetime:
    """Return a time so many seconds after T."""
    return T + timedelta(seconds=seconds)


def test_each_filter_chooses(engine: Engine, schema: str) -> None:
    """Ids, kinds, queues, states, priorities, tags, metadata and time each narrow the list."""
    a = insert_job(engine, schema, kind="a_kind", queue="q1", priority=1, tags=["red", "big"])
    b = insert_job(engine, schema, kind="b_kind", queue="q2", priority=2, tags=["red"])
    c = insert_job(
        engine, schema, metadata_={"who": {"id": 7}, "n": 1}, scheduled_at=T, created_at=T
    )
    assert ids(engine, schema) == [a, b, c]
    assert ids(engine, schema, ids=[c, a]) == [a, c]
    assert ids(engine, schema, kinds=["a_kind", "b_kind"]) == [a, b]
    assert ids(engine, schema, queues=["q2"]) == [b]
    assert ids(engine, schema, priorities=[2]) == [b]
    assert ids(engine, schema, tags_all=["red", "big"]) == [a]
    assert ids(engine, schema, tags_any=["big", "red"]) == [a, b]
    assert ids(engine, schema, metadata={"who": {"id": 7}}) == [c]
    assert ids(engine, schema, since=T, until=T + timedelta(seconds=1)) == [c]
    assert ids(engine, schema, states=[JobState.running]) == []
    assert ids(engine, schema, kinds=[]) == []
    assert ids(engine, schema, kinds=["' OR 1=1 --"]) == []


def test_a_cursor_goes_on_where_the_list_ended(engine: Engine, schema: str) -> None:
    """Pages in either direction have each job once, also where times are equal."""
    for number in range(7):
        insert_job(engine, schema, scheduled_at=T + timedelta(seconds=number // 3))
    for order in ("id", "scheduled_at", "time"):
        for descending in (False, True):
            seen: list[int] = []
            after = None
            while True:
                params = JobListParams(order_by=order, descending=descending, limit=3, after=after)
                page = list_jobs(engine, params, schema=schema)
                if not page.jobs:
                    break
                seen += [job.id for job in page.jobs]
                after = page.cursor
            assert seen == sorted(range(1, 8), reverse=descending)


def test_time_is_that_of_the_first_state(engine: Engine, schema: str) -> None:
    """By time, jobs stand in the order of the first state's; those that have none come last."""
    made = [
        insert_job(engine, schema, state=JobState.completed, finalized_at=T, scheduled_at=later(3)),
        insert_job(engine, schema, scheduled_at=later(2)),
        insert_job(engine, schema, state=JobState.running, attempted_at=T, scheduled_at=later(1)),
        insert_job(engine, schema, state=JobState.running, attempted_at=later(-1), scheduled_at=T),
    ]
    done, waiting, running, earlier = made
    assert ids(engine, schema, order_by="time") == [earlier, running, waiting, done]
    assert ids(engine, schema, order_by="finalized_at", states=FINAL) == [done]
    for states, expected in (
        (["completed", "running"], [done, running, earlier]),
        (["running", "available"], [earlier, running, waiting]),
        (["running", "completed", "available"], [earlier, running, done, waiting]),
    ):
        for descending in (False, True):
            wanted = expected[::-1] if descending else expected
            params = {"order_by": "time", "states": states, "descending": descending}
            assert ids(engine, schema, **params) == wanted
            paged: list[int] = []
            after = None
            while (page := list_page(engine, schema, limit=1, after=after, **params)).jobs:
                paged += [job.id for job in page.jobs]
                after = page.cursor
            assert paged == wanted


def test_a_cursor_is_rivers(engine: Engine, schema: str) -> None:
    """A cursor has the bytes that River's has: its escapes, its times, none by ids."""
    at = datetime(2099, 1, 1, 0, 0, 1, 120_000, tzinfo=UTC)
    insert_job(engine, schema, kind="a<>&~~~", scheduled_at=at)
    for order, time in (("id", "0001-01-01T00:00:00Z"), ("time", "2099-01-01T00:00:01.12Z")):
        cursor = list_page(engine, schema, order_by=order).cursor
        assert cursor is not None
        assert base64.urlsafe_b64decode(cursor).decode() == (
            '{"id":1,"kind":"a\\u003c\\u003e\\u0026~~~","queue":"default",'
            f'"sort_field":"{order}","time":"{time}"}}'
        )


@pytest.mark.parametrize(
    "params",
    [
        {"kinds": ["\ud800"]},
        {"tags_any": ["a\x00"]},
        {"descending": "no"},
        {"limit": 0},
        {"limit": 10_001},
        {"ids": ["1"]},
        {"ids": 5},
        {"kinds": "a_kind"},
        {"kinds": ["\x00"]},
        {"states": ["asleep"]},
        {"priorities": [5]},
        {"metadata": [1]},
        {"metadata": {"x": float("nan")}},
        {"since": datetime(2026, 1, 1)},
        {"order_by": "kind"},
        {"order_by": "finalized_at"},
        {"order_by": "finalized_at", "states": [JobState.running]},
        {"after": "nonsense"},
        {"after": "e30="},
        {"after": "W10="},
        {"after": "\ud800"},
    ],
)
def test_refuses_what_cannot_be_asked(params: dict[str, Any]) -> None:
    """A value out of range, or a cursor from elsewhere, is refused before anything is read."""
    with pytest.raises(InvalidOption):
        JobListParams(**params)


def test_a_cursor_of_another_order_is_refused(engine: Engine, schema: str) -> None:
    """A cursor continues only a list in its own order."""
    insert_job(engine, schema)
    cursor = list_jobs(engine, schema=schema).cursor
    with pytest.raises(InvalidOption, match="by scheduled_at"):
        JobListParams(order_by="scheduled_at", after=cursor)


def test_lists_are_served_by_indexes(engine: Engine, schema: str) -> None:
    """By id the list walks the primary key; ten thousand rows are not sorted for a page."""
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {schema}.river_job (kind, args, max_attempts)"
                " SELECT 'k', '{}', 25 FROM generate_series(1, 10000)"
            )
        )
        connection.execute(text(f"ANALYZE {schema}.river_job"))
        statement = read_queries.list_jobs(JobListParams(descending=True)).compile(
            engine,
            schema_translate_map={None: schema},
            render_schema_translate=True,
            compile_kwargs={"literal_binds": True},
        )
        plan = "\n".join(connection.execute(text(f"EXPLAIN {statement}")).scalars())
    assert "river_job_pkey" in plan
    assert "Sort" not in plan


def test_delete_leaves_what_runs(engine: Engine, schema: str) -> None:
    """A job in any other state is deleted and returned; a running one is refused."""
    for state in JobState:
        final = T if state in FINAL else None
        job_id = insert_job(engine, schema, state=state, finalized_at=final, attempt=1)
        if state is JobState.running:
            with pytest.raises(JobRunning, match=str(job_id)):
                delete(engine, job_id, schema=schema)
            assert get(engine, job_id, schema=schema).state is JobState.running
        else:
            assert delete(engine, job_id, schema=schema).state is state
            with pytest.raises(JobNotFound):
                delete(engine, job_id, schema=schema)


def test_delete_many_is_bounded_and_asks_before_it_deletes_all(engine: Engine, schema: str) -> None:
    """delete_many deletes up to its limit, in order, no running job, none without a filter."""
    made = [insert_job(engine, schema, queue="q") for _ in range(4)]
    running = insert_job(engine, schema, state=JobState.running, attempt=1, attempted_at=T)
    with pytest.raises(InvalidOption, match="unsafe_all"):
        delete_many(engine, JobListParams(), schema=schema)
    deleted = delete_many(engine, JobListParams(queues=["q"], limit=2), schema=schema)
    assert [job.id for job in deleted] == made[:2]
    delete_many(engine, JobListParams(), unsafe_all=True, schema=schema)
    assert ids(engine, schema) == [running]


@pytest.mark.parametrize("params", [{"tags_all": []}, {"metadata": {}}, {"args": {}}], ids=str)
def test_a_filter_that_every_job_matches_is_none(
    engine: Engine, schema: str, params: dict[str, Any]
) -> None:
    """Empty tags, metadata or args select all jobs, so nothing is deleted by them alone."""
    job_id = insert_job(engine, schema)
    with pytest.raises(InvalidOption, match="unsafe_all"):
        delete_many(engine, JobListParams(**params), schema=schema)
    with pytest.raises(InvalidOption, match="expected at least one filter"):
        act_on_listed(
            engine, "delete", JobListParams(**params), newest_id=job_id, user="ada", schema=schema
        )
    assert ids(engine, schema, **params) == [job_id]


@pytest.mark.parametrize(
    "wrong", ["completed", [1, 2], [], {"queues": ["q"]}, JobListParams], ids=str
)
def test_filters_of_a_wrong_type(engine: Engine, schema: str, wrong: Any) -> None:
    """What is no JobListParams is refused by name, and neither lists nor deletes all jobs."""
    for act in (
        lambda: list_jobs(engine, wrong, schema=schema),
        lambda: delete_many(engine, wrong, unsafe_all=True, schema=schema),
        lambda: act_on_listed(engine, "delete", wrong, newest_id=1, user="ada", schema=schema),
    ):
        with pytest.raises(InvalidOption, match=r"^params is .*; expected a JobListParams"):
            act()


def test_delete_many_skips_what_others_hold(engine: Engine, schema: str) -> None:
    """A job that another transaction has locked is neither waited for nor deleted."""
    held, free = insert_job(engine, schema), insert_job(engine, schema)
    with engine.begin() as other:
        other.execute(text(f"SELECT id FROM {schema}.river_job WHERE id = {held} FOR UPDATE"))
        deleted = delete_many(engine, JobListParams(ids=[held, free]), schema=schema)
    assert [job.id for job in deleted] == [free]


def test_deletes_are_the_callers_own(engine: Engine, schema: str) -> None:
    """A rolled back delete or update has no effect."""
    job_id = insert_job(engine, schema)
    with Session(engine) as session:
        update(session, job_id, metadata={"a": 1}, schema=schema)
        delete(session, job_id, schema=schema)
        session.rollback()
    assert "a" not in get(engine, job_id, schema=schema).metadata


def test_update_merges_metadata_and_output(engine: Engine, schema: str) -> None:
    """An update keeps keys that it does not name; None is a valid output."""
    job_id = insert_job(engine, schema, metadata_={"a": 1, "b": 1})
    job = update(engine, job_id, metadata={"b": 2}, output=None, schema=schema)
    assert job.metadata == {"a": 1, "b": 2, "output": None}
    with pytest.raises(InvalidOption):
        update(engine, job_id, metadata={"x": "\x00"}, schema=schema)
    with pytest.raises(InvalidOption):
        update(engine, job_id, metadata={}, output=object(), schema=schema)
    with pytest.raises(JobNotFound):
        update(engine, job_id + 1, metadata={}, schema=schema)


def test_retry_of_a_job_whose_key_is_taken_says_so(engine: Engine, schema: str) -> None:
    """A final job cannot come back while another holds its unique key."""
    held = {"unique_key": b"k", "unique_states": set(JobState) - {JobState.discarded}}
    gone = insert_job(engine, schema, state=JobState.discarded, finalized_at=T, **held)
    insert_job(engine, schema, **held)
    with pytest.raises(UniqueKeyTaken, match=str(gone)):
        retry(engine, gone, schema=schema)
    assert get(engine, gone, schema=schema).state is JobState.discarded
