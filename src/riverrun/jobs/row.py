"""A job's row as a frozen object."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from riverrun.jobs.states import JobState


@attrs.frozen
class AttemptError:
    """One entry of a job's errors, in River's format.

    Attributes:
        at: When the attempt began.
        attempt: Which attempt failed.
        error: What went wrong.
        trace: The traceback; empty if there is none.
    """

    at: datetime
    attempt: int
    error: str
    trace: str = ""


@attrs.frozen(kw_only=True)
class JobRow:
    """A job, as its row was when it was read. All times are aware.

    Attributes:
        id: The job's id.
        kind: The name by which its worker is found.
        args: The worker's input, a JSON object.
        state: The job's state.
        queue: The name of its queue.
        attempt: The number of the current or last attempt; 0 before the first.
        max_attempts: Attempts before the job is discarded.
        priority: 1 (first) to 4.
        created_at: When the job was inserted.
        scheduled_at: When the job is due; for a failed job, when it is tried again.
        attempted_at: When the current or last attempt was claimed.
        finalized_at: When the job was completed, cancelled or discarded.
        attempted_by: The ids of the clients that claimed the job, the last 100.
        errors: For each failed attempt an object with "at", "attempt", "error" and "trace".
        metadata: The job's metadata; empty if the row has something other than a JSON object.
        tags: Words to find the job by.
        unique_key: The job's unique key, 32 bytes.
        unique_states: The states in which the job holds its unique key.
    """

    id: int
    kind: str
    args: Mapping[str, Any]
    state: JobState
    queue: str
    attempt: int
    max_attempts: int
    priority: int
    created_at: datetime
    scheduled_at: datetime
    attempted_at: datetime | None = None
    finalized_at: datetime | None = None
    attempted_by: tuple[str, ...] = ()
    errors: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    tags: tuple[str, ...] = ()
    unique_key: bytes | None = None
    unique_states: frozenset[JobState] | None = None
