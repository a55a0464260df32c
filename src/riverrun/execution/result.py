"""AttemptResult: the result of a finished attempt, on its way to the database."""

import attrs

from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.outcome import Outcome
from riverrun.verbs.claim import ClaimedJob


@attrs.define
class AttemptResult:
    """The result of a finished attempt. Like an Outcome, it is never changed, and made quickly.

    Attributes:
        job: The job as claimed, for its event; None if events had no subscribers at the end.
        queue: The job's queue.
        outcome: The outcome to write; None if the worker's own transaction has written it.
        written: The outcome that the worker's transaction has written, if not a completion.
        conflict: Whether the job begins again because its transaction could not commit.
        error: The error that the worker raised, if any.
        run_s: Seconds that its worker took.
        ended_monotonic: When the attempt finished, by the process's monotonic clock.
        due_monotonic: When the job may be claimed again, by that clock, if it becomes available
            again. There will be no notification of that.
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
    """Return the result of an attempt that never began: its job is given back."""
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
    """Return the state of a job after its outcome was written, as far as is known."""
    if result.outcome is not None:
        return states.get(job.id, result.outcome.state)
    return JobState.completed if result.written is None else result.written.state
