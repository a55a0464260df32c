"""The states of a job: which of them are final, and the bit of each in a unique mask."""

from collections.abc import Iterable
from enum import StrEnum


class JobState(StrEnum):
    """The state of a job: the values of River's enum `river_job_state`, in its order."""

    available = "available"
    cancelled = "cancelled"
    completed = "completed"
    discarded = "discarded"
    pending = "pending"
    retryable = "retryable"
    running = "running"
    scheduled = "scheduled"

    @property
    def is_final(self) -> bool:
        """Whether a job in this state does not run again unless an operator retries it."""
        return self in FINAL_STATES

    @property
    def bit(self) -> int:
        """The bit of this state in `unique_states`. River reads the mask from the left."""
        return 1 << list(JobState).index(self)


FINAL_STATES = frozenset({JobState.cancelled, JobState.completed, JobState.discarded})


REQUIRED_STATES = frozenset(
    {JobState.available, JobState.pending, JobState.running, JobState.scheduled}
)
"""States in which a unique job always holds its key. Source: River 0.51, insert_opts.go."""


def state_of(text: str) -> JobState:
    """Return the state of a row.

    A state that only a later River knows becomes a new member, which equals no other.
    """
    try:
        return JobState(text)
    except ValueError:
        state = str.__new__(JobState, text)
        state._name_ = state._value_ = text
        return state


def mask_of(states: Iterable[JobState]) -> int:
    """Return the unique mask, 0 to 255, in which the bit of each of `states` is set.

    Source: River 0.51, river_job_state_in_bitmask: available 1, cancelled 2, ... scheduled 128.
    """
    return sum(state.bit for state in set(states))


def states_in(mask: int) -> frozenset[JobState]:
    """Return the states whose bit is set in `mask`."""
    return frozenset(state for state in JobState if mask & state.bit)
