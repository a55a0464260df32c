"""What can be done to jobs, and to jobs of which states."""

from collections.abc import Sequence

from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.verbs.act import JobAction


def may_be_done(action: JobAction, state: JobState) -> bool:
    """Return whether an action can change a job in a state."""
    match action:
        case JobAction.retry:
            return state not in {JobState.running, JobState.available}
        case JobAction.cancel:
            return state not in FINAL_STATES
        case JobAction.delete:
            return state is not JobState.running


def of_states(states: Sequence[JobState] | None) -> list[JobAction]:
    """Return the actions that can change jobs in one of `states`; None for any state."""
    return [
        action
        for action in JobAction
        if any(may_be_done(action, state) for state in states or JobState)
    ]
