"""Properties of every outcome."""

import json
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from factories import T0, job_row
from riverrun.errors import ClientStopping, JobCancel, JobCancelledRemotely, JobSnooze, JobTimedOut
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.outcome import MAX_ERROR_CHARS, SCHEDULER_INTERVAL_S, decide, error_json
from riverrun.policies.backoff import RiverBackoff

jobs = st.builds(
    job_row,
    attempt=st.integers(1, 40),
    max_attempts=st.integers(1, 40),
    errors=st.lists(st.just({}), max_size=40).map(tuple),
    metadata=st.dictionaries(st.sampled_from(["snoozes", "a"]), st.none() | st.integers()),
)
any_text = st.text(st.characters(categories=None), max_size=50) | st.just("x\ud800\x00" * 20_000)
endings = st.one_of(
    st.none(),
    st.builds(ValueError, any_text),
    st.builds(KeyError, any_text),
    st.builds(JobCancel, any_text),
    st.builds(JobSnooze, st.floats(0, 1e12)),
    st.just(JobCancelledRemotely()),
    st.builds(JobTimedOut, st.floats(0, 1e6)),
    st.just(ClientStopping()),
    st.builds(SystemExit, st.integers()),
)
staged = st.none() | st.dictionaries(st.text(), st.integers())


@given(jobs, endings, staged, st.booleans())
def test_an_outcome_is_whole(
    job: JobRow, error: BaseException | None, metadata: dict[str, Any] | None, stopping: bool
) -> None:
    """A final outcome has no time for another attempt; nothing is lost or counted twice."""
    outcome = decide(
        job, error, now=T0, backoff=RiverBackoff(), metadata=metadata, stopping=stopping
    )
    assert (outcome.job_id, outcome.attempt) == (job.id, job.attempt)
    assert outcome.state not in (JobState.running, JobState.pending)
    assert outcome.state.is_final is (outcome.scheduled_at is None)
    assert (outcome.state is JobState.completed) is (error is None)
    # An attempt is given back, recorded as an error, or the last: never two of these.
    counted = [outcome.give_back, outcome.error is not None, error is None]
    assert counted.count(True) == 1
    if outcome.give_back:
        assert isinstance(error, JobSnooze | ClientStopping)
    if outcome.state is JobState.discarded:
        assert job.attempt >= job.max_attempts
    if outcome.error is not None and not outcome.state.is_final:
        assert job.attempt < job.max_attempts
    if outcome.scheduled_at is not None:
        assert outcome.scheduled_at >= T0
        soon = outcome.scheduled_at - T0 <= timedelta(seconds=SCHEDULER_INTERVAL_S)
        assert soon is (outcome.state is JobState.available)
    for key, value in (metadata or {}).items():
        assert (outcome.metadata or {})[key] == value or key == "snoozes"


@given(jobs, any_text)
def test_an_error_can_be_stored(job: JobRow, text: str) -> None:
    """Any error's entry is JSON that jsonb takes, and of bounded size."""
    outcome = decide(job, ValueError(text), now=T0, backoff=RiverBackoff())
    assert outcome.error is not None
    entry = error_json(outcome.error)
    encoded = json.dumps(entry, ensure_ascii=False)
    encoded.encode()
    assert "\x00" not in entry["error"] + entry["trace"]
    assert len(entry["error"]) <= MAX_ERROR_CHARS + 100
    assert entry["attempt"] == job.attempt
