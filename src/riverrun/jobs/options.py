"""How a job is inserted: frozen options, checked when they are made."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypedDict

import attrs

from riverrun.clock import Duration
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_aware, check_duration, check_int, check_queue, check_tags
from riverrun.jobs.states import REQUIRED_STATES, JobState

MAX_ATTEMPTS_DEFAULT = 25


PRIORITY_DEFAULT = 1


QUEUE_DEFAULT = "default"


class OnConflict(Enum):
    """What a duplicate does to the job that stands in its way, if that waits.

    `skip`: nothing, as River. `replace`: that job gets the duplicate's args, tags and priority, and
    its metadata merged in. `reschedule`: that job runs when the duplicate would have. `debounce`:
    both, so that of many inserts one job runs, with the last one's args, when they have ended.
    """

    skip = "skip"
    replace = "replace"
    reschedule = "reschedule"
    debounce = "debounce"


@attrs.frozen(kw_only=True)
class UniqueMark:
    """What makes a job a duplicate of another: its key, and the states in which the key counts.

    From its insert to its end a job must hold its key: could another take it meanwhile, the job
    could not be moved on. So the states hold River's required ones.

    Attributes:
        key: 32 bytes.
        states: In which states a job with the key stands in another's way.
        on_conflict: What happens then.
    """

    key: bytes
    states: frozenset[JobState]
    on_conflict: OnConflict = OnConflict.skip

    def __attrs_post_init__(self) -> None:
        if missing := REQUIRED_STATES - self.states:
            listed = ", ".join(sorted(missing))
            expected = f"at least the required states; add {listed}"
            raise InvalidOption("states", self.states, expected)


class Draft(Protocol):
    """A job about to be inserted, as a uniqueness policy sees it."""

    @property
    def kind(self) -> str:
        """The job's kind."""

    @property
    def args(self) -> object:
        """The args as they were given."""

    @property
    def encoded(self) -> Mapping[str, Any]:
        """The args as the JSON object that will be stored."""

    @property
    def queue(self) -> str:
        """The queue it goes to."""

    @property
    def scheduled_at(self) -> datetime | None:
        """When it shall run, if that was said."""


class Uniqueness(Protocol):
    """Says what counts as the same job; see `riverrun.policies.uniqueness` for those shipped."""

    def __call__(self, draft: Draft, now: datetime) -> UniqueMark | None:
        """Return the mark under which `draft` is unique, or None where it need not be.

        Args:
            draft: The job about to be inserted.
            now: The inserting process's time, aware.
        """


def _queue_or_none(value: object) -> str | None:
    return None if value is None else check_queue(value)


def _priority_or_none(value: object) -> int | None:
    return None if value is None else check_int("priority", value, 1, 4)


def _max_attempts_or_none(value: object) -> int | None:
    return None if value is None else check_int("max_attempts", value, 1, 32_767)


def _scheduled_at_or_none(value: object) -> datetime | None:
    return None if value is None else check_aware("scheduled_at", value)


def _delay_or_none(value: object) -> Duration | None:
    return None if value is None else check_duration("delay", value, 0.0)


def _tags_or_none(value: object) -> tuple[str, ...] | None:
    return None if value is None else check_tags(value)


def _metadata_or_none(value: object) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidOption("metadata", value, "a mapping that JSON can hold")
    return dict(value)


@attrs.frozen(kw_only=True)
class InsertOpts:
    """How one job is inserted. None means "not said": the args' own options or a default decide.

    Attributes:
        queue: Where the job waits; `default` unless said.
        priority: 1 (first) to 4; 1 unless said.
        max_attempts: Tries before the job is discarded, 1 to 32,767; 25 unless said.
        scheduled_at: Not before this time, aware; the job then starts as `scheduled`.
        delay: Seconds or a timedelta from the insert, in place of `scheduled_at`.
        tags: Words to find the job by, 3 to 255 characters each.
        unique: What counts as the same job, such as `UniqueOpts(by_args=True)`.
        metadata: A JSON object kept with the job.
        pending: Insert the job as `pending`: it waits until somebody makes it available.

    Raises:
        InvalidOption: If a value is none that River's tables and clients accept.
    """

    queue: str | None = attrs.field(default=None, converter=_queue_or_none)
    priority: int | None = attrs.field(default=None, converter=_priority_or_none)
    max_attempts: int | None = attrs.field(default=None, converter=_max_attempts_or_none)
    scheduled_at: datetime | None = attrs.field(default=None, converter=_scheduled_at_or_none)
    delay: Duration | None = attrs.field(default=None, converter=_delay_or_none)
    tags: Sequence[str] | None = attrs.field(default=None, converter=_tags_or_none)
    unique: Uniqueness | None = attrs.field(default=None)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, converter=_metadata_or_none)
    pending: bool = False

    @unique.validator
    def _check_unique(self, _: object, value: object) -> None:
        if value is not None and not callable(value):
            raise InvalidOption("unique", value, "a uniqueness policy, such as UniqueOpts(...)")

    def __attrs_post_init__(self) -> None:
        if self.delay is not None and self.scheduled_at is not None:
            raise InvalidOption("delay", self.delay, "none beside scheduled_at, or only a delay")

    def over(self, other: "InsertOpts") -> "InsertOpts":
        """Return these options, and `other`'s where these say nothing.

        Metadata and pending are this insert's alone, as in River.
        """
        timed = self.scheduled_at is not None or self.delay is not None
        fields = ("queue", "priority", "max_attempts", "tags", "unique")
        said: dict[str, Any] = {
            field: value
            for field in (fields if timed else (*fields, "scheduled_at", "delay"))
            if (value := getattr(self, field)) is None
            and (value := getattr(other, field)) is not None
        }
        return attrs.evolve(self, **said) if said else self


class InsertOptions(TypedDict, total=False):
    """The options of `InsertOpts` as keywords of an insert."""

    queue: str | None
    priority: int | None
    max_attempts: int | None
    scheduled_at: datetime | None
    delay: Duration | None
    tags: Sequence[str] | None
    unique: Uniqueness | None
    metadata: Mapping[str, Any] | None
    pending: bool


def with_options(opts: InsertOpts | None, options: Mapping[str, Any]) -> InsertOpts | None:
    """Return `opts` with the keywords of an insert, which win; None is an option not given.

    Raises:
        InvalidOption: If there is no such option, or its value is out of range.
    """
    if not options:
        return opts
    if opts is not None and not isinstance(opts, InsertOpts):
        raise InvalidOption("opts", opts, "an InsertOpts")
    known = [field.name for field in attrs.fields(InsertOpts)]
    for name in options:
        if name not in known:
            raise InvalidOption("option", name, f"one of {', '.join(known)}")
    given = {name: value for name, value in options.items() if value is not None}
    if opts is None:
        return InsertOpts(**given)
    other = {"delay": "scheduled_at", "scheduled_at": "delay"}
    instead = {other[name]: None for name in other if name in given}
    return attrs.evolve(opts, **{**instead, **given})
