"""What the end of an attempt means, case by case."""

import traceback
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from factories import T0, job_row
from goldens import SNOOZES
from riverrun.errors import (
    ClientStopping,
    JobCancel,
    JobCancelledRemotely,
    JobError,
    JobRescued,
    JobSnooze,
    JobTimedOut,
    ObjectBusy,
    UnknownKind,
)
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.outcome import attempt_error, decide, error_json, retry_at
from riverrun.policies.backoff import RiverBackoff

NOW = T0 + timedelta(seconds=30)


def test_keeps_staged_metadata() -> None:
    """What an attempt staged goes with every outcome; nothing staged is None."""
    staged = {"output": 1}
    for raised in (None, ValueError(), JobCancel("x")):
        outcome = decide(job_row(), raised, now=NOW, backoff=RiverBackoff(), metadata=staged)
        assert outcome.metadata == staged
        assert decide(job_row(), raised, now=NOW, backoff=RiverBackoff()).metadata is None
    snoozed = decide(job_row(), JobSnooze(9), now=NOW, backoff=RiverBackoff(), metadata=staged)
    assert snoozed.metadata == {"output": 1, "snoozes": 1}
    assert staged == {"output": 1}


@pytest.mark.parametrize("name", [*SNOOZES, "infinite"])
def test_counts_snoozes_as_river_reads_them(name: str) -> None:
    """The counter of snoozes goes on from whatever the metadata holds as River's would."""
    metadata, counted = SNOOZES.get(name, ({"snoozes": float("inf")}, 1))
    job = job_row(metadata=metadata)
    outcome = decide(job, JobSnooze(1), now=NOW, backoff=RiverBackoff())
    assert outcome.metadata == {"snoozes": counted}


@pytest.mark.parametrize(("stopping", "state"), [(True, "available"), (False, "discarded")])
def test_stop_is_no_failure_only_while_stopping(stopping: bool, state: str) -> None:
    """An attempt that ends for the client's stop is given back; the same raised by hand fails."""
    job = job_row(attempt=25)
    outcome = decide(job, ClientStopping(), now=NOW, backoff=RiverBackoff(), stopping=stopping)
    assert (outcome.state, outcome.give_back) == (state, stopping)
    assert (outcome.error is None) is stopping
    assert outcome.scheduled_at == (NOW if stopping else None)


def test_timeout_is_a_failure() -> None:
    """An attempt that took too long is tried again, even while the client stops."""
    outcome = decide(job_row(), JobTimedOut(5), now=NOW, backoff=RiverBackoff(), stopping=True)
    assert outcome.error is not None
    assert outcome.error.error == "JobTimedOut: job timed out after 5 s"


def _raises(job: JobRow, now: datetime) -> datetime:
    raise RuntimeError("broken policy")


def _exits(job: JobRow, now: datetime) -> datetime:
    raise SystemExit(1)


@pytest.mark.parametrize(
    "backoff",
    [
        _raises,
        _exits,
        lambda job, now: now - timedelta(microseconds=1),
        lambda job, now: datetime(2100, 1, 1),
        lambda job, now: None,
        lambda job, now: 5,
    ],
)
def test_a_broken_policy_is_replaced(backoff: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A policy that raises, or returns no future time, is replaced by River's, with a warning."""
    delay_s = (retry_at(job_row(), NOW, backoff) - NOW).total_seconds()
    assert 0.9 <= delay_s <= 1.1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "River's backoff decides" in record.getMessage()


def test_at_is_the_attempts_start_in_utc() -> None:
    """An error's time is when the attempt began, RFC 3339 in UTC with Z."""
    start = T0.astimezone(timezone(timedelta(hours=5, minutes=30)))
    job = job_row(attempted_at=start)
    outcome = decide(job, ValueError("no"), now=NOW, backoff=RiverBackoff())
    assert outcome.error is not None
    assert error_json(outcome.error) == {
        "at": "2026-03-01T12:00:00Z",
        "attempt": 1,
        "error": "ValueError: no",
        "trace": "ValueError: no\n",
    }


def test_expected_errors_have_no_trace() -> None:
    """Expected errors are recorded as their text alone, in River's words where it has its own."""
    for error, text in (
        (JobCancel("x"), "JobCancelError: x"),
        (JobCancelledRemotely(), "JobCancelError: job cancelled remotely"),
        (JobError("the printer is out of paper"), "the printer is out of paper"),
        (JobRescued(), "Stuck job rescued by JobRescuer"),
        (UnknownKind("a", ["b"]), "job kind is not registered in the client's Workers bundle: a"),
    ):
        entry = attempt_error(1, T0, error)
        assert (entry.error, entry.trace) == (text, "")


def test_a_trace_shows_the_cause() -> None:
    """A traceback shows where an error was raised, and from what."""
    try:
        try:
            raise KeyError("cause")  # noqa: TRY301  a cause to raise from
        except KeyError as cause:
            raise ValueError("effect") from cause
    except ValueError as error:
        entry = attempt_error(1, T0, error)
        assert entry.trace == traceback.format_exc()


def test_the_end_of_time() -> None:
    """A delay beyond the calendar is its end."""
    outcome = decide(job_row(), JobSnooze(1e300), now=NOW, backoff=RiverBackoff())
    assert outcome.scheduled_at == datetime.max.replace(tzinfo=UTC)
    assert outcome.state is JobState.scheduled


@pytest.mark.parametrize(
    ("waits", "waiting", "least_s", "most_s"),
    [
        (0, 0, 0.07, 0.1),
        (0, 1, 0.07, 0.1),
        (30, 1, 3.7, 5.0),
        (0, 600, 22, 30),
        (30, 1_000, 37, 50),
    ],
)
def test_a_job_waits_for_its_object_as_long_as_the_line_is(
    waits: int, waiting: int, least_s: float, most_s: float
) -> None:
    """However many jobs wait for an object, some 20 of them are tried in a second."""
    job = job_row(metadata={"riverrun:waits": waits})
    outcome = decide(job, ObjectBusy("Order", "x:1", waiting), now=NOW, backoff=RiverBackoff())
    assert outcome.give_back
    assert outcome.state is JobState.available
    assert outcome.scheduled_at is not None
    assert least_s <= (outcome.scheduled_at - NOW).total_seconds() <= most_s
