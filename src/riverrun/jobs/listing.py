"""Lists of jobs: which, in which order, and where the next one goes on."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware, check_int
from riverrun.jobs.json_values import json_problem
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.wire import go_json


class JobOrder(StrEnum):
    """What a list of jobs is ordered by.

    `time` is the one that goes with the first of `states`: `finalized_at` if that is final,
    `attempted_at` if it is running, else, or if none is said, `scheduled_at`. Jobs that have none
    come last, or, descending, first.
    """

    id = "id"
    scheduled_at = "scheduled_at"
    finalized_at = "finalized_at"
    time = "time"


@attrs.frozen
class JobCursor:
    """Where a list of jobs ended; without a time by ids, or where its last job has none."""

    id: int
    time: datetime | None


def _each(name: str, value: object, check: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    if value is None:
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidOption(name, value, "a sequence of values")
    return tuple(check(each) for each in value)


def _text(name: str) -> Callable[[object], str]:
    def check(each: object) -> str:
        if not isinstance(each, str) or "\x00" in each:
            raise InvalidOption(name, each, "a text")
        return each

    return check


def _ids(value: object) -> tuple[int, ...] | None:
    return _each("ids", value, lambda each: check_int("ids", each, 0, 2**63 - 1))


def _kinds(value: object) -> tuple[str, ...] | None:
    return _each("kinds", value, _text("kinds"))


def _queues(value: object) -> tuple[str, ...] | None:
    return _each("queues", value, _text("queues"))


def _states(value: object) -> tuple[JobState, ...] | None:
    return _each("states", value, _state)


def _priorities(value: object) -> tuple[int, ...] | None:
    return _each("priorities", value, lambda each: check_int("priorities", each, 1, 4))


def _tags_all(value: object) -> tuple[str, ...] | None:
    return _each("tags_all", value, _text("tags_all"))


def _tags_any(value: object) -> tuple[str, ...] | None:
    return _each("tags_any", value, _text("tags_any"))


def _state(value: object) -> JobState:
    try:
        return JobState(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidOption("states", value, f"of {', '.join(JobState)}") from None


def _metadata(value: object) -> Mapping[str, Any] | None:
    problem = None if value is None else json_problem(value)
    if problem or not isinstance(value, Mapping | None):
        raise InvalidOption("metadata", value, f"a JSON object; {problem or 'it is none'}")
    return value


def _order_by(value: object) -> JobOrder:
    try:
        return JobOrder(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidOption("order_by", value, f"one of {', '.join(JobOrder)}") from None


@attrs.frozen(kw_only=True)
class JobListParams:
    """Which jobs, and in which order; what is not said does not matter.

    Attributes:
        ids: With one of these ids.
        kinds: Of one of these kinds.
        queues: In one of these queues.
        states: In one of these states.
        priorities: With one of these priorities, 1 to 4.
        tags_all: With all of these tags.
        tags_any: With at least one of these tags.
        metadata: Whose metadata contains this object, as jsonb's `@>` has it.
        since: Not before this time, aware: the one that orders, or `created_at` by ids.
        until: Before this time, aware.
        order_by: What orders them; `finalized_at` needs `states` that are all final.
        descending: Whether the last comes first.
        limit: Most jobs, 1 to 10,000.
        after: Where another list ended: its `cursor`.

    Raises:
        InvalidOption: If a value is out of range, or `after` is no cursor of such a list.
    """

    ids: Sequence[int] | None = attrs.field(default=None, converter=_ids)
    kinds: Sequence[str] | None = attrs.field(default=None, converter=_kinds)
    queues: Sequence[str] | None = attrs.field(default=None, converter=_queues)
    states: Sequence[JobState] | None = attrs.field(default=None, converter=_states)
    priorities: Sequence[int] | None = attrs.field(default=None, converter=_priorities)
    tags_all: Sequence[str] | None = attrs.field(default=None, converter=_tags_all)
    tags_any: Sequence[str] | None = attrs.field(default=None, converter=_tags_any)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, converter=_metadata)
    since: datetime | None = attrs.field(default=None)
    until: datetime | None = attrs.field(default=None)
    order_by: JobOrder = attrs.field(default=JobOrder.id, converter=_order_by)
    descending: bool = False
    limit: int = 100
    after: str | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("since", "until"):
            if getattr(self, name) is not None:
                check_aware(name, getattr(self, name))
        final = self.states is not None and set(self.states) <= FINAL_STATES
        if self.order_by is JobOrder.finalized_at and not final:
            expected = "with states of cancelled, completed and discarded alone"
            raise InvalidOption("order_by", self.order_by.value, expected)
        check_int("limit", self.limit, 1, 10_000)
        self.cursor()

    @property
    def filters(self) -> bool:
        """Whether anything is said of which jobs."""
        chosen = (self.ids, self.kinds, self.queues, self.states, self.priorities, self.tags_all)
        others = (self.tags_any, self.metadata, self.since, self.until)
        return any(each is not None for each in (*chosen, *others))

    def cursor(self) -> JobCursor | None:
        """Return what `after` says.

        Source of the form: River 0.51, job_list_params.go.
        """
        if self.after is None:
            return None
        try:
            said = json.loads(base64.urlsafe_b64decode(self.after))
            time = datetime.fromisoformat(said["time"])
            ours = said["sort_field"] == self.order_by and time.utcoffset() is not None
            none = time.replace(tzinfo=None) == datetime.min  # noqa: DTZ901  Go's zero time
            cursor = JobCursor(check_int("id", said["id"], 0, 2**63 - 1), None if none else time)
        except (ValueError, KeyError, TypeError, RecursionError):
            ours = False
        if not ours:
            raise InvalidOption("after", self.after, f"the cursor of a list by {self.order_by}")
        return cursor


def cursor_text(
    job_id: int, kind: str, queue: str, order_by: JobOrder, time: datetime | None
) -> str:
    """Return the cursor that continues after a job, to the byte as River's clients write it."""
    said = {"id": job_id, "kind": kind, "queue": queue, "sort_field": order_by.value}
    said["time"] = "0001-01-01T00:00:00Z" if time is None else go_json.time(time)
    return base64.urlsafe_b64encode(go_json.encode(said).encode()).decode()


@attrs.frozen(kw_only=True)
class JobList:
    """Jobs that were asked for.

    Attributes:
        jobs: They, in their order.
        cursor: What to pass as `after` for those that follow; None if there was none.
    """

    jobs: Sequence[JobRow]
    cursor: str | None


@attrs.frozen(kw_only=True)
class JobBrief:
    """What a table shows of a job; long args are not read.

    Attributes:
        id, kind, queue, state, priority, attempt, max_attempts: As a JobRow's.
        scheduled_at, attempted_at, finalized_at: As a JobRow's.
        args: The beginning of the args as JSON text; None where they are long.
        args_bytes: Bytes in which the args are stored.
        last_error: The beginning of the last error's text, if it was asked for and there is one.
    """

    id: int
    kind: str
    queue: str
    state: JobState
    priority: int
    attempt: int
    max_attempts: int
    scheduled_at: datetime
    attempted_at: datetime | None
    finalized_at: datetime | None
    args: str | None
    args_bytes: int
    last_error: str | None


@attrs.frozen(kw_only=True)
class JobBriefList:
    """Jobs that were asked for, in brief.

    Attributes:
        jobs: The jobs, in their order.
        cursor: What to pass as `after` for those that follow; None if there was none.
    """

    jobs: Sequence[JobBrief]
    cursor: str | None
