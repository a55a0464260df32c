"""A job's row, frozen."""

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
        trace: The traceback, empty where there is none.
    """

    at: datetime
    attempt: int
    error: str
    trace: str = ""


@attrs.frozen(kw_only=True)
class JobRow:
    """A job as its row was when read. Times are aware.

    Attributes:
        id: Its number.
        kind: Which worker it is for.
        args: The worker's input, a JSON object.
        state: Where it stands.
        queue: Where it waits.
        attempt: The number of the current or last attempt; 0 before the first.
        max_attempts: After how many it is discarded.
        priority: 1 (first) to 4.
        created_at: When it was inserted.
        scheduled_at: Before when it is not worked; of a failed job, when it is tried again.
        attempted_at: When the current or last attempt was claimed.
        finalized_at: When it was completed, cancelled or discarded.
        attempted_by: The ids of the clients that claimed it, the last 100.
        errors: For each failed attempt an object with "at", "attempt", "error" and "trace".
        metadata: What is kept with it, a JSON object; empty where somebody wrote anything else.
        tags: Words to find it by.
        unique_key: What makes it unique, 32 bytes.
        unique_states: In which states the key counts.
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
