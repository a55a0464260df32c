"""Jobs and queues in the form that the contract defines."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from riverrun import InsertOpts, JobArgs, JobRow, JobState, QueueRow, UniqueOpts
from riverrun.clock import seconds
from riverrun.wire import go_json

KIND = "conformance_echo"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
_NO_TIME = "0001-01-01T00:00:00Z"


@attrs.frozen
class Echo(JobArgs, kind=KIND, kind_aliases=(f"{KIND}_before",)):
    """Args of the kind that every adapter works, with fields in Go's order."""

    behavior: str = ""
    duration_ms: int = 0
    message: str = ""


@attrs.frozen(kw_only=True)
class Unique:
    """Unique options in a request."""

    by_args: bool = False
    by_period_ms: int = 0
    by_queue: bool = False
    by_state: list[JobState] | None = None
    exclude_kind: bool = False

    def opts(self) -> UniqueOpts:
        """Return the unique options of riverrun."""
        return UniqueOpts(
            by_args=self.by_args,
            by_period=self.by_period_ms / 1000 or None,
            by_queue=self.by_queue,
            by_state=self.by_state,
            exclude_kind=self.exclude_kind,
        )


@attrs.frozen(kw_only=True)
class Opts:
    """Insert options in a request."""

    max_attempts: int | None = None
    metadata: dict[str, Any] | None = None
    pending: bool = False
    priority: int | None = None
    queue: str | None = None
    scheduled_at: datetime | None = None
    tags: list[str] | None = None
    unique: Unique | None = None

    def opts(self) -> InsertOpts:
        """Return the insert options of riverrun."""
        return InsertOpts(
            max_attempts=self.max_attempts,
            metadata=self.metadata,
            pending=self.pending,
            priority=self.priority,
            queue=self.queue,
            scheduled_at=self.scheduled_at,
            tags=self.tags,
            unique=self.unique and self.unique.opts(),
        )


@attrs.frozen(kw_only=True)
class Job:
    """A job to insert, in a request."""

    behavior: str = ""
    duration_ms: int = 0
    message: str = ""
    opts: Opts = Opts()

    def pair(self) -> tuple[Echo, InsertOpts]:
        """Return the job's args and insert options."""
        return Echo(self.behavior, self.duration_ms, self.message), self.opts.opts()


def shown_time(moment: datetime | None) -> str | None:
    """Return a time as the contract formats it."""
    return None if moment is None else go_json.time(moment)


def shown_job(job: JobRow) -> dict[str, Any]:
    """Return a job as the contract formats it."""
    states = None if job.unique_key is None else sorted(job.unique_states or ())
    return {
        "args": job.args,
        "attempt": job.attempt,
        "attempted_at": shown_time(job.attempted_at),
        "attempted_by": list(job.attempted_by),
        "created_at": shown_time(job.created_at),
        "errors": [_shown_error(error) for error in job.errors],
        "finalized_at": shown_time(job.finalized_at),
        "id": job.id,
        "kind": job.kind,
        "max_attempts": job.max_attempts,
        "metadata": job.metadata
        if isinstance(job.metadata, dict) and _plain(job.metadata)
        else None,
        "priority": job.priority,
        "queue": job.queue,
        "scheduled_at": shown_time(job.scheduled_at),
        "state": job.state.value,
        "tags": list(job.tags),
        "unique_key": None if job.unique_key is None else job.unique_key.hex(),
        "unique_states": states,
    }


def shown_queue(queue: QueueRow) -> dict[str, Any]:
    """Return a queue as the contract formats it."""
    return {
        "created_at": shown_time(queue.created_at),
        "metadata": queue.metadata,
        "name": queue.name,
        "paused_at": shown_time(queue.paused_at),
        "updated_at": shown_time(queue.updated_at),
    }


def _shown_error(error: Any) -> dict[str, Any]:
    """Return an entry of a job's errors as Go reads it, whatever its shape."""
    if not isinstance(error, Mapping):
        return {"at": _NO_TIME, "attempt": 0, "error": _text(error), "trace": ""}
    attempt = error.get("attempt")
    return {
        "at": _shown_moment(error.get("at")),
        "attempt": int(attempt) if re.fullmatch(r"-?\d+", str(attempt)) else 0,
        "error": _text(error.get("error", "")),
        "trace": _text(error.get("trace", "")),
    }


def _shown_moment(text: Any) -> str:
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return _NO_TIME
    # Nanoseconds are more than a datetime holds, so the fraction is kept as text.
    whole = datetime.fromisoformat(match[1] + match[3]).astimezone(UTC)
    fraction = (match[2] or "").rstrip("0").rstrip(".")
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _plain(value: Any) -> bool:
    """Return whether an ordinary JSON decoder can hold every number of a value."""
    match value:
        case dict():
            return all(map(_plain, value.values()))
        case list():
            return all(map(_plain, value))
        case bool():
            return True
        case int():
            return abs(value) < 2**1024
        case float():
            return math.isfinite(value)
    return True


def milliseconds(value: float) -> float:
    """Return a number of milliseconds as seconds."""
    return seconds(value / 1000)
