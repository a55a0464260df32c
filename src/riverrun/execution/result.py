"""How an attempt ended, on its way to the database."""

import attrs

from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.outcome import Outcome
from riverrun.verbs.claim import ClaimedJob


@attrs.define(kw_only=True)
class AttemptResult:
    """An attempt that ended, on its way to the database; as an Outcome, never changed.

    Attributes:
        job: The job as claimed, for its event; None where nobody heard of events as it ended.
        queue: The job's queue.
        outcome: What shall be written; None if the worker's own transaction has written it.
        written: What that has written, if it is no completion.
        conflict: Whether the job begins again as its transaction could not commit.
        error: What the worker raised, if it did.
        run_s: Seconds its worker took.
        ended_monotonic: When it ended, by the process's monotonic clock.
        due_monotonic: When the job may be claimed again, by that clock, if it is available again
            once this is written: nobody will tell of it.
    """

    job: JobRow | None
    queue: str
    outcome: Outcome | None
    error: BaseException | None
    run_s: float
    ended_monotonic: float
    due_monotonic: float | None = None
    written: Outcome | None = None
    conflict: bool = False


def not_begun(job: JobRow | ClaimedJob, at_monotonic: float) -> AttemptResult:
    """Return the end of an attempt that never began: its job is given back."""
    outcome = Outcome(job_id=job.id, attempt=job.attempt, state=JobState.available, give_back=True)
    return AttemptResult(
        job=None,
        queue=job.queue,
        outcome=outcome,
        error=None,
        run_s=0.0,
        ended_monotonic=at_monotonic,
    )


def event_state(result: AttemptResult, states: dict[int, JobState], job: JobRow) -> JobState:
    """Return the state a job has after its outcome was written, as far as is known."""
    if result.outcome is not None:
        return states.get(job.id, result.outcome.state)
    return JobState.completed if result.written is None else result.written.state
