"""The options of an insert: frozen, and checked when they are made."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypedDict

import attrs

from riverrun.clock import Duration
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import (
    check_aware,
    check_callable,
    check_duration,
    check_flag,
    check_int,
    check_queue,
    check_tags,
)
from riverrun.jobs.references import Reference
from riverrun.jobs.states import REQUIRED_STATES, JobState
from riverrun.orm.object_keys import is_mapped

MAX_ATTEMPTS_DEFAULT = 25


PRIORITY_DEFAULT = 1


QUEUE_DEFAULT = "default"


class OnConflict(Enum):
    """What inserting a duplicate does to the existing job, if that job is still waiting.

    `skip`: nothing, as in River. `replace`: the existing job gets the duplicate's args, tags and
    priority, and the duplicate's metadata is merged into its own. `reschedule`: the existing job
    runs when the duplicate would have run. `debounce`: both, so that after many inserts one job
    runs, with the args of the last insert.
    """

    skip = "skip"
    replace = "replace"
    reschedule = "reschedule"
    debounce = "debounce"


def _states(value: Any) -> frozenset[JobState]:
    if type(value) is frozenset:
        return value
    try:
        return frozenset(map(JobState, value))
    except (TypeError, ValueError):
        raise InvalidOption("states", value, "job states") from None


@attrs.frozen(kw_only=True)
class UniqueMark:
    """A unique key, and the states in which a job holds it.

    A job must hold its key from its insert to its end. If another job could take the key in
    between, the first one could not change its state any more. So the states must include those
    that River requires.

    Attributes:
        key: The key, 32 bytes.
        states: In these states a job holds the key, and a second job with it is a duplicate.
        on_conflict: What inserting a duplicate does. Default: skip.
    """

    key: bytes
    states: frozenset[JobState] = attrs.field(converter=_states)
    on_conflict: OnConflict = OnConflict.skip

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.key, bytes):
            raise InvalidOption("key", self.key, "bytes, such as hashlib.sha256(...).digest()")
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
        """The args, as passed to the insert."""

    @property
    def encoded(self) -> Mapping[str, Any]:
        """The args, as the JSON object that will be stored."""

    @property
    def queue(self) -> str:
        """The name of the job's queue."""

    @property
    def scheduled_at(self) -> datetime | None:
        """When the job is due; None if the insert does not set a time."""


class Uniqueness(Protocol):
    """A policy that decides which jobs are duplicates. `riverrun.policies.uniqueness` has some."""

    def __call__(self, draft: Draft, now: datetime) -> UniqueMark | None:
        """Return the unique key of `draft` and its states; None if the job need not be unique.

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


def _pending(value: object) -> bool:
    return False if value is None else check_flag("pending", value)


def _coalesce_or_none(value: object) -> bool | None:
    return None if value is None else check_flag("coalesce", value)


def _owner_or_none(value: object) -> object | None:
    if value is None or isinstance(value, Reference) or is_mapped(value):
        return value
    raise InvalidOption("owner", value, "a mapped object, or a Ref to one")


@attrs.frozen(kw_only=True)
class InsertOpts:
    """The options of one insert. None leaves an option to the args' own options or its default.

    Attributes:
        queue: The name of the job's queue. Default: `default`.
        priority: 1 (first) to 4. Default: 1.
        max_attempts: Attempts before the job is discarded, 1 to 32,767. Default: 25.
        scheduled_at: The job runs at this time or later, aware; it is inserted as `scheduled`.
        delay: Seconds or a timedelta from the insert, in place of `scheduled_at`.
        tags: Words to find the job by, 3 to 255 characters each.
        unique: A policy that decides which jobs are duplicates, such as
            `UniqueOpts(by_args=True)`.
        metadata: A JSON object that is kept with the job.
        pending: Whether the job is inserted as `pending`: it waits until it is made available.
        unless_changed: A mapped object with a `version_id_col`, flushed. An attempt begins only
            while the object has that version; else the job is cancelled as superseded.
        owner: A mapped object, or a Ref to one. The flush that deletes it, in a process where the
            client has inserted jobs of such owners, cancels the job if that is waiting. No attempt
            begins once the object is gone: the job is cancelled as superseded.
        coalesce: Whether jobs that `client.add` adds in one transaction become one job if their
            args and options are the same. Default: False. Other inserts ignore it.

    Raises:
        InvalidOption: If River's tables or clients would not accept a value.
    """

    queue: str | None = attrs.field(default=None, converter=_queue_or_none)
    priority: int | None = attrs.field(default=None, converter=_priority_or_none)
    max_attempts: int | None = attrs.field(default=None, converter=_max_attempts_or_none)
    scheduled_at: datetime | None = attrs.field(default=None, converter=_scheduled_at_or_none)
    delay: Duration | None = attrs.field(default=None, converter=_delay_or_none)
    tags: Sequence[str] | None = attrs.field(default=None, converter=_tags_or_none)
    unique: Uniqueness | None = attrs.field(default=None)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, converter=_metadata_or_none)
    pending: bool = attrs.field(default=False, converter=_pending)
    unless_changed: object | None = attrs.field(default=None, eq=False)
    owner: object | None = attrs.field(default=None, eq=False, converter=_owner_or_none)
    coalesce: bool | None = attrs.field(default=None, converter=_coalesce_or_none)

    @unique.validator
    def _check_unique(self, _: object, value: object) -> None:
        if value is not None:
            check_callable("unique", value, "a uniqueness policy, such as UniqueOpts(...)")

    def __attrs_post_init__(self) -> None:
        if self.delay is not None and self.scheduled_at is not None:
            raise InvalidOption("delay", self.delay, "none beside scheduled_at; pass one of them")

    def over(self, other: "InsertOpts") -> "InsertOpts":
        """Return these options, with those that are None taken from `other`.

        Metadata and pending are never taken from `other`, as in River.
        """
        timed = self.scheduled_at is not None or self.delay is not None
        fields = ("queue", "priority", "max_attempts", "tags", "unique", "coalesce", "owner")
        missing: dict[str, Any] = {
            field: value
            for field in (fields if timed else (*fields, "scheduled_at", "delay"))
            if (value := getattr(self, field)) is None
            and (value := getattr(other, field)) is not None
        }
        return attrs.evolve(self, **missing) if missing else self


def check_insert_opts(value: object) -> InsertOpts:
    """Return the options of a class of args if they are an InsertOpts.

    Raises:
        InvalidOption: If they are not.
    """
    if not isinstance(value, InsertOpts):
        raise InvalidOption("insert_opts", value, 'an InsertOpts, such as InsertOpts(queue="mail")')
    return value


class InsertOptions(TypedDict, total=False):
    """The fields of `InsertOpts` as keyword arguments of an insert."""

    queue: str | None
    priority: int | None
    max_attempts: int | None
    scheduled_at: datetime | None
    delay: Duration | None
    tags: Sequence[str] | None
    unique: Uniqueness | None
    metadata: Mapping[str, Any] | None
    pending: bool
    unless_changed: object | None
    owner: object | None
    coalesce: bool | None


def with_options(opts: InsertOpts | None, options: Mapping[str, Any]) -> InsertOpts | None:
    """Return `opts`, overridden by the keyword arguments of an insert that are not None.

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
    # A new time replaces the old one, whichever way each is given.
    other = {"delay": "scheduled_at", "scheduled_at": "delay"}
    replaced = {other[name]: None for name in other if name in given}
    return attrs.evolve(opts, **{**replaced, **given})
