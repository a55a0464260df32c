"""Failed jobs in groups of the same kind and error."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from factories import insert_job
from riverrun.errors import InvalidOption
from riverrun.jobs.states import JobState
from riverrun.migrations import migrate
from riverrun.verbs import list_failed, list_failures
from verbs.joins import KINDS, opened
from verbs.test_odd_rows import ODD, change

NOW = datetime.now(UTC)


def failed(engine: Engine, schema: str, error: str, **changes: Any) -> int:
    """Insert a job that failed twice, the second time with `error`."""
    at = changes.pop("at", None) or datetime.now(UTC)
    values: dict[str, Any] = {
        "state": JobState.discarded,
        "attempt": 2,
        "attempted_at": at,
        "errors": [{"attempt": 1, "error": "other"}, {"attempt": 2, "error": error}],
        **changes,
    }
    if values["state"] is JobState.discarded:
        values["finalized_at"] = at
    return insert_job(engine, schema, **values)


def test_groups_by_kind_and_error(engine: Engine, schema: str) -> None:
    """Jobs of one kind whose last errors differ only in numbers are one group."""
    now = datetime.now(UTC)  # the trend is up to the moment of the test
    minutes = [now - timedelta(minutes=number) for number in range(4)]
    a = failed(engine, schema, "ValueError: no order 17\nin ship", at=minutes[3])
    b = failed(engine, schema, "ValueError: no order 18\nelsewhere", at=minutes[1])
    c = failed(engine, schema, "ValueError: no order -1.5", at=minutes[2], state=JobState.retryable)
    other = failed(engine, schema, "ValueError: no order 17", kind="bill")
    third = failed(engine, schema, "KeyError: 'id'")
    for state in set(JobState) - {JobState.discarded, JobState.retryable}:
        failed(engine, schema, "not failed", state=state)
    found = list_failures(engine, schema=schema)
    assert (found.window, found.complete) == (1_000, True)
    assert [(group.kind, group.text, group.job_ids) for group in found.groups] == [
        ("greet", "ValueError: no order #", (b, c, a)),
        ("bill", "ValueError: no order #", (other,)),
        ("greet", "KeyError: 'id'", (third,)),
    ]
    group = found.groups[0]
    assert (group.count, group.first_at, group.last_at) == (3, minutes[3], minutes[1])
    assert group.states == {JobState.discarded: 2, JobState.retryable: 1}
    assert len({each.key for each in found.groups}) == 3
    assert list_failures(engine, schema=schema).groups[0].key == group.key
    assert found.since == minutes[3]
    assert group.trend[0] == 1
    assert sum(group.trend) == 3
    assert [sum(each.trend) for each in found.groups] == [3, 1, 1]


def test_the_jobs_of_a_group(engine: Engine, schema: str) -> None:
    """A group is found by its key, with its jobs and their errors; one that is gone is None."""
    for number in range(3):
        failed(engine, schema, f"no order {number}", at=NOW - timedelta(minutes=number))
    failed(engine, schema, "other")
    key = list_failures(engine, schema=schema).groups[0].key
    found = list_failed(engine, key, schema=schema)
    assert found.group is not None
    assert (found.group.key, found.group.count) == (key, 3)
    assert [job.last_error for job in found.jobs] == ["no order 0", "no order 1", "no order 2"]
    assert len(list_failed(engine, key, limit=2, schema=schema).jobs) == 2
    change(engine, schema, "state = 'available', finalized_at = NULL", found.group.job_ids)
    gone = list_failed(engine, key, schema=schema)
    assert (gone.group, list(gone.jobs)) == (None, [])
    assert list_failed(engine, "\x00'; --", schema=schema).group is None


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_has_failed(engine: Engine, schema: str, kind: str) -> None:
    """Without failed jobs there is no group, on any kind of transaction."""
    insert_job(engine, schema, state=JobState.completed)
    with opened(kind, engine) as where:
        found = list_failures(where, schema=schema)
        assert (list(found.groups), found.complete) == ([], True)
        assert list_failed(where, "none", schema=schema).group is None


def test_a_busy_queue_hides_no_other(engine: Engine, schema: str) -> None:
    """Each queue and priority has its share of the retryable jobs that are read."""
    retryable = {"state": JobState.retryable}
    for number in range(30):
        failed(engine, schema, "busy", queue="a_busy_queue", priority=1 + number // 25, **retryable)
    failed(engine, schema, "rare", queue="other", **retryable)
    counts = {
        (window, group.text): group.count
        for window in (10, 60, 90, 1_000)
        for group in list_failures(engine, window=window, schema=schema).groups
    }
    # There are three shares, of 10 jobs at least: 25 and 5 jobs are busy.
    assert counts == {
        (10, "busy"): 15,
        (10, "rare"): 1,
        (60, "busy"): 25,
        (60, "rare"): 1,
        (90, "busy"): 30,
        (90, "rare"): 1,
        (1_000, "busy"): 30,
        (1_000, "rare"): 1,
    }
    complete = {
        window: list_failures(engine, window=window, schema=schema).complete
        for window in (10, 60, 90)
    }
    assert complete == {10: False, 60: False, 90: True}


def test_the_last_ones_are_read(engine: Engine, schema: str) -> None:
    """Of the discarded jobs those are read that failed last."""
    jobs = [failed(engine, schema, "no", at=NOW - timedelta(hours=number)) for number in range(4)]
    found = list_failures(engine, window=2, schema=schema)
    assert [group.job_ids for group in found.groups] == [(jobs[0], jobs[1])]
    assert not found.complete
    assert list_failures(engine, window=5, schema=schema).complete


def test_trends_have_an_end(engine: Engine, schema: str) -> None:
    """A job that failed long ago makes the trend of a week at most; it is still in its group."""
    failed(engine, schema, "old", at=NOW - timedelta(days=300))
    failed(engine, schema, "new", at=NOW)
    failed(engine, schema, "to come", at=NOW + timedelta(days=300))
    found = list_failures(engine, schema=schema)
    trends = {group.text: sum(group.trend) for group in found.groups}
    assert trends == {"old": 0, "new": 1, "to come": 1}
    assert found.step_s * 24 == pytest.approx(7 * 24 * 3_600, abs=1)


ERRORS = {
    "errors = NULL": "",
    "errors = '{}'": "",
    "errors = ARRAY[NULL]::jsonb[]": "",
    "errors = ARRAY['null'::jsonb]": "",
    "errors = ARRAY['7'::jsonb]": "#",
    "errors = ARRAY['\"text\"'::jsonb]": "text",
    "errors = ARRAY['[1, \"a\"]'::jsonb]": '[#, "a"]',
    "errors = ARRAY['{\"attempt\": 1}'::jsonb]": "",
    "errors = ARRAY['{\"error\": null}'::jsonb]": "",
    'errors = ARRAY[\'{"error": {"code": 5}}\'::jsonb]': '{"code": #}',
    'errors = ARRAY[\'{"error": ""}\'::jsonb]': "",
    'errors = ARRAY[\'{"error": "\\n \\r\\n late\\nx"}\'::jsonb]': "late",
    "errors = ARRAY[ARRAY['{}'], ARRAY['{}']]::jsonb[]": "",
}
"""What to SET in a failed job, and the text of its group."""


def test_errors_of_any_form(engine: Engine, schema: str) -> None:
    """Errors that no client writes have a group, too; one that is no object is its own text."""
    jobs = {
        changes: failed(engine, schema, "no", kind=f"kind_{n}") for n, changes in enumerate(ERRORS)
    }
    for changes, job_id in jobs.items():
        change(engine, schema, changes, [job_id])
    texts = {group.job_ids[0]: group.text for group in list_failures(engine, schema=schema).groups}
    assert {changes: texts[job_id] for changes, job_id in jobs.items()} == ERRORS


def test_large_errors_are_not_read(engine: Engine, schema: str) -> None:
    """Errors too large to be read have a group without a text; long ones are cut."""
    # Of different digits, so that they do not become small by compression.
    large = "".join(f"{number * 7919:x}" for number in range(40_000))
    failed(engine, schema, f"at {large}")
    failed(engine, schema, "long " * 1_000)
    texts = {group.text for group in list_failures(engine, schema=schema).groups}
    assert texts == {"", ("long " * 40).rstrip() + " "}


@pytest.mark.parametrize("state", ["discarded", "retryable"])
def test_odd_rows_are_grouped(engine: Engine, schema: str, state: str) -> None:
    """Rows that no client writes are grouped with the others."""
    jobs = {name: failed(engine, schema, "no") for name in ("nothing", *ODD)}
    for name, changes in ODD.items():
        change(engine, schema, changes, [jobs[name]])
    if state == "retryable":
        change(engine, schema, "state = 'retryable', finalized_at = NULL", list(jobs.values()))
    for at in ("infinity", "-infinity", "4000-01-01 BC", "20000-01-01"):
        job_id = failed(engine, schema, "no")
        change(engine, schema, f"attempted_at = '{at}', finalized_at = '{at}'", [job_id])
        jobs[at] = job_id
    found = list_failures(engine, schema=schema)
    assert sorted(job_id for group in found.groups for job_id in group.job_ids) == sorted(
        jobs.values()
    )
    for group in found.groups:
        assert len(list_failed(engine, group.key, schema=schema).jobs) == group.count


def test_states_of_a_later_river(empty_database: Engine) -> None:
    """A job in a state that only a later River knows is in no group, and hides no other."""
    migrate(empty_database)
    frozen, job_id = failed(empty_database, None, "no"), failed(empty_database, None, "no")  # type: ignore[arg-type]
    with empty_database.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ALTER TYPE river_job_state ADD VALUE 'frozen'"))
        set_state = "UPDATE river_job SET state = 'frozen', finalized_at = NULL"
        connection.execute(text(f"{set_state} WHERE id = {frozen}"))
    assert [group.job_ids for group in list_failures(empty_database).groups] == [(job_id,)]


@pytest.mark.parametrize("window", [0, 10_001, True, "5"])
def test_refuses_odd_windows(engine: Engine, schema: str, window: Any) -> None:
    """A window out of range is refused."""
    with pytest.raises(InvalidOption, match="window"):
        list_failures(engine, window=window, schema=schema)
    with pytest.raises(InvalidOption, match="window"):
        list_failed(engine, "key", window=window, schema=schema)
