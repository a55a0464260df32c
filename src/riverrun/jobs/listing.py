"""Lists of jobs: the filters, the order, and the cursor from which a list continues."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import attrs

from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware, check_flag, check_int, check_text
from riverrun.jobs.json_values import json_problem
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.wire import go_json


class JobOrder(StrEnum):
    """The column by which a list of jobs is ordered.

    `time` depends on the first of the list's `states`: it is `finalized_at` if that state is final,
    `attempted_at` if it is running, and `scheduled_at` in all other cases. Jobs without that time
    come last, or first in descending order.
    """

    id = "id"
    scheduled_at = "scheduled_at"
    finalized_at = "finalized_at"
    time = "time"


CLIENT_WINDOW = 20_000
"""How many jobs a search by `client` looks at by default."""

TEXT_WINDOW = 10_000
"""How many jobs a search by `text` looks at by default. Comparing a text takes longer."""

TEXT_MAX = 1_000
"""Maximum number of characters of a text to search for."""


@attrs.frozen
class JobCursor:
    """The last job of a list: its id, and the time that orders it.

    The time is None if ids order the list, or if the job has no such time.
    """

    id: int
    time: datetime | None


def _all(name: str, value: object, check: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    if value is None:
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidOption(name, value, "a sequence of values")
    return tuple(check(item) for item in value)


def _ids(value: object) -> tuple[int, ...] | None:
    return _all("ids", value, lambda item: check_int("ids", item, 0, 2**63 - 1))


def _kinds(value: object) -> tuple[str, ...] | None:
    return _all("kinds", value, partial(check_text, "kinds"))


def _queues(value: object) -> tuple[str, ...] | None:
    return _all("queues", value, partial(check_text, "queues"))


def _states(value: object) -> tuple[JobState, ...] | None:
    return _all("states", value, _state)


def _priorities(value: object) -> tuple[int, ...] | None:
    return _all("priorities", value, lambda item: check_int("priorities", item, 1, 4))


def _tags_all(value: object) -> tuple[str, ...] | None:
    return _all("tags_all", value, partial(check_text, "tags_all"))


def _tags_any(value: object) -> tuple[str, ...] | None:
    return _all("tags_any", value, partial(check_text, "tags_any"))


def _state(value: object) -> JobState:
    try:
        return JobState(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidOption("states", value, f"of {', '.join(JobState)}") from None


def _metadata(value: object) -> Mapping[str, Any] | None:
    return _object("metadata", value)


def _args(value: object) -> Mapping[str, Any] | None:
    return _object("args", value)


def _object(name: str, value: object) -> Mapping[str, Any] | None:
    problem = None if value is None else json_problem(value)
    if problem or not isinstance(value, Mapping | None):
        raise InvalidOption(name, value, f"a JSON object; {problem or 'it is not one'}")
    return value


def _client(value: object) -> str | None:
    return _words("client", value)


def _searched_text(value: object) -> str | None:
    return _words("text", value)


def _words(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX or json_problem(value):
        raise InvalidOption(name, value, f"a text of 1 to {TEXT_MAX:,} characters")
    return value


def _order_by(value: object) -> JobOrder:
    try:
        return JobOrder(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidOption("order_by", value, f"one of {', '.join(JobOrder)}") from None


@attrs.frozen(kw_only=True)
class JobListParams:
    """The filters and the order of a list of jobs. A filter that is None selects all jobs.

    Attributes:
        ids: Jobs with one of these ids.
        kinds: Jobs of one of these kinds.
        queues: Jobs in one of these queues.
        states: Jobs in one of these states.
        priorities: Jobs with one of these priorities, 1 to 4.
        tags_all: Jobs with all of these tags.
        tags_any: Jobs with at least one of these tags.
        metadata: Jobs whose metadata contains this object, by jsonb's operator `@>`.
        args: Jobs whose args contain this object, by jsonb's operator `@>`.
        client: Jobs that were last claimed by the client of this id.
        text: Jobs with this text in the kind, the args or the last error, in upper or lower case.
            Args of more than 2,000 bytes as stored, and errors of more than 8,000, are not
            searched.
        since: Jobs at or after this time, aware. It is compared with the time that orders the
            list, or with `created_at` if ids do.
        until: Jobs before this time, aware; compared as `since`.
        order_by: What orders the list. `finalized_at` needs `states` that are all final.
            Default: `id`.
        descending: Whether the order is reversed.
        limit: Maximum number of jobs, 1 to 10,000. Default: 100.
        after: The `cursor` of another list, after which this one begins.
        window: How many jobs to look at, at most, for jobs that match the filters: the first ones
            in the order of the list, of its `states` if that is an order by time or none of them
            is final. No index serves `client`, `text` and tags, so without a window a search for
            something rare reads the whole table. Default: 10,000 with `text`, 20,000 with `client`,
            else None for all jobs. Verbs that change jobs do not use it.

    Raises:
        InvalidOption: If a value is out of range, or `after` is not the cursor of such a list.
    """

    ids: Sequence[int] | None = attrs.field(default=None, converter=_ids)
    kinds: Sequence[str] | None = attrs.field(default=None, converter=_kinds)
    queues: Sequence[str] | None = attrs.field(default=None, converter=_queues)
    states: Sequence[JobState] | None = attrs.field(default=None, converter=_states)
    priorities: Sequence[int] | None = attrs.field(default=None, converter=_priorities)
    tags_all: Sequence[str] | None = attrs.field(default=None, converter=_tags_all)
    tags_any: Sequence[str] | None = attrs.field(default=None, converter=_tags_any)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, converter=_metadata)
    args: Mapping[str, Any] | None = attrs.field(default=None, converter=_args)
    client: str | None = attrs.field(default=None, converter=_client)
    text: str | None = attrs.field(default=None, converter=_searched_text)
    since: datetime | None = attrs.field(default=None)
    until: datetime | None = attrs.field(default=None)
    order_by: JobOrder = attrs.field(default=JobOrder.id, converter=_order_by)
    descending: bool = False
    limit: int = 100
    after: str | None = None
    window: int | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("since", "until"):
            if getattr(self, name) is not None:
                check_aware(name, getattr(self, name))
        check_flag("descending", self.descending)
        final = self.states is not None and set(self.states) <= FINAL_STATES
        if self.order_by is JobOrder.finalized_at and not final:
            expected = "states of only cancelled, completed and discarded beside it"
            raise InvalidOption("order_by", self.order_by.value, expected)
        check_int("limit", self.limit, 1, 10_000)
        if self.window is not None:
            check_int("window", self.window, 1, 10_000_000)
        self.cursor()

    @property
    def filters(self) -> bool:
        """Whether there is any filter. One that every job matches, such as `args={}`, is none."""
        values = (self.ids, self.kinds, self.queues, self.states, self.priorities, self.tags_any)
        others = (self.client, self.text, self.since, self.until)
        contained = (self.tags_all, self.metadata, self.args)
        return any(value is not None for value in (*values, *others)) or any(contained)

    @property
    def searched(self) -> int | None:
        """How many jobs are looked at, at most: `window` or its default; None for all jobs."""
        if self.window is not None:
            return self.window
        if self.text is not None:
            return TEXT_WINDOW
        return None if self.client is None else CLIENT_WINDOW

    def cursor(self) -> JobCursor | None:
        """Return `after`, parsed; None if it is not set.

        Source of the format: River 0.51, job_list_params.go.
        """
        if self.after is None:
            return None
        try:
            fields = json.loads(base64.urlsafe_b64decode(self.after))
            time = datetime.fromisoformat(fields["time"])
            fits = fields["sort_field"] == self.order_by and time.utcoffset() is not None
            none = time.replace(tzinfo=None) == datetime.min  # noqa: DTZ901  Go's zero time
            cursor = JobCursor(check_int("id", fields["id"], 0, 2**63 - 1), None if none else time)
        except (ValueError, KeyError, TypeError, RecursionError):
            fits = False
        if not fits:
            raise InvalidOption("after", self.after, f"the cursor of a list by {self.order_by}")
        return cursor


def check_params(params: object) -> JobListParams:
    """Return `params` if they are JobListParams. Others have no filters, so all jobs would match.

    Raises:
        InvalidOption: If they are not.
    """
    if not isinstance(params, JobListParams):
        expected = "a JobListParams, such as JobListParams(states=['completed'])"
        raise InvalidOption("params", params, expected)
    return params


def cursor_text(
    job_id: int, kind: str, queue: str, order_by: JobOrder, time: datetime | None
) -> str:
    """Return the cursor from which a list continues after a job.

    It is equal to the byte to the one that River's clients write.
    """
    fields = {"id": job_id, "kind": kind, "queue": queue, "sort_field": order_by.value}
    fields["time"] = "0001-01-01T00:00:00Z" if time is None else go_json.time(time)
    return base64.urlsafe_b64encode(go_json.encode(fields).encode()).decode()


@attrs.frozen(kw_only=True)
class JobList:
    """A list of jobs.

    Attributes:
        jobs: The jobs, in order.
        cursor: Pass this as `after` to continue the list. None if the list is empty and complete.
        more: Whether there may be more jobs: the list is as long as its limit, or its window ended
            before the table did.
        window: How many jobs were looked at, at most; None for all jobs.
    """

    jobs: Sequence[JobRow]
    cursor: str | None
    more: bool = False
    window: int | None = None


@attrs.frozen(kw_only=True)
class JobBrief:
    """The short form of a job, to show in a table. Long args are not read.

    Attributes:
        id, kind, queue, state, priority, attempt, max_attempts: The same as in JobRow.
        scheduled_at, attempted_at, finalized_at: The same as in JobRow.
        args: The beginning of the args as JSON text; None if they are long.
        args_bytes: The size of the stored args in bytes.
        last_error: The beginning of the last error's text; None if there is no error, or the list
            was read without errors.
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
    """A list of jobs in short form.

    Attributes:
        jobs: The jobs, in order.
        cursor: Pass this as `after` to continue the list. None if the list is empty and complete.
        more: Whether there may be more jobs, as in JobList.
        window: How many jobs were looked at, at most; None for all jobs.
    """

    jobs: Sequence[JobBrief]
    cursor: str | None
    more: bool = False
    window: int | None = None
