"""How a job is inserted and how a queue is worked: frozen options, checked when they are made."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from json import encoder
from typing import Any, Protocol, TypedDict

import attrs

from riverrun.clock import Duration, seconds
from riverrun.errors import InvalidOption
from riverrun.states import REQUIRED_STATES, JobState

MAX_ATTEMPTS_DEFAULT = 25
PRIORITY_DEFAULT = 1
QUEUE_DEFAULT = "default"

# Source of the patterns and limits: River 0.51, client.go and job.go. Go's \w is ASCII.
_QUEUE = re.compile(r"[a-z0-9]+(?:[_|\-]?[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]+[A-Za-z0-9_]")
_KIND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-\[\]<>/.·:+]+")


def check_queue(name: object) -> str:
    """Return `name` if it can name a queue.

    Raises:
        InvalidOption: If it cannot.
    """
    if not isinstance(name, str) or len(name) > 64 or not _QUEUE.fullmatch(name):
        expected = "at most 64 of a-z and 0-9, parted by single '_', '-' or '|'"
        raise InvalidOption("queue", name, expected)
    return name


SCHEMA_MAX = 63
"""Bytes of a schema's name that PostgreSQL keeps. River refuses more than 46."""


def check_schema(schema: str | None) -> str | None:
    """Return `schema` if it can name the schema of River's tables.

    Raises:
        InvalidOption: If it cannot.
    """
    if schema is None:
        return None
    if not isinstance(schema, str) or not 0 < _bytes(schema) <= SCHEMA_MAX or "\0" in schema:
        raise InvalidOption("schema", schema, f"a name of 1 to {SCHEMA_MAX} bytes, without a NUL")
    return schema


def _bytes(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return 0


def check_kind(kind: object) -> str:
    """Return `kind` if it can name a kind of job.

    Raises:
        InvalidOption: If it cannot.
    """
    if not isinstance(kind, str) or len(kind) >= 128 or not _KIND.fullmatch(kind):
        expected = "2 to 127 of letters, digits and _-[]<>/.·:+, a letter, digit or _ first"
        raise InvalidOption("kind", kind, expected)
    return kind


def check_kinds(kinds: object) -> tuple[str, ...]:
    """Return `kinds` as a tuple if each can name a kind of job.

    Raises:
        InvalidOption: If one cannot.
    """
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise InvalidOption("kind_aliases", kinds, "a sequence of kinds")
    return tuple(check_kind(kind) for kind in kinds)


def check_tags(tags: object) -> tuple[str, ...]:
    """Return `tags` as a tuple if each can be a tag.

    Raises:
        InvalidOption: If one cannot.
    """
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidOption("tags", tags, "a sequence of strings")
    for tag in tags:
        if not isinstance(tag, str) or len(tag) > 255 or not _TAG.fullmatch(tag):
            expected = "3 to 255 of letters, digits, '_' and '-', neither end a '-'"
            raise InvalidOption("tag", tag, expected)
    return tuple(tags)


def check_aware(name: str, value: object) -> datetime:
    """Return `value` if it is a datetime that knows its time zone.

    Raises:
        InvalidOption: If it is not.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        ago = "; for a time from now, pass delay=" if name == "scheduled_at" else ""
        raise InvalidOption(name, value, f"an aware datetime, such as datetime.now(UTC){ago}")
    return value


def check_int(name: str, value: object, low: int, high: int) -> int:
    """Return `value` if it is an int from `low` to `high`.

    Raises:
        InvalidOption: If it is not.
    """
    if type(value) is not int or not low <= value <= high:
        raise InvalidOption(name, value, f"an int from {low} to {high}")
    return value


def check_duration(name: str, value: object, low_s: float) -> float:
    """Return `value`, seconds or a timedelta, in seconds if it is finite and at least `low_s`.

    Raises:
        InvalidOption: If it is not.
    """
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        duration_s = seconds(value)
        if math.isfinite(duration_s) and duration_s >= low_s:
            return duration_s
    raise InvalidOption(name, value, f"seconds or a timedelta, at least {low_s:g} s")


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


def _max_workers(value: object) -> int:
    return check_int("max_workers", value, 1, 10_000)


def _poll_interval_or_none(value: object) -> Duration | None:
    return None if value is None else check_duration("poll_interval", value, 0.01)


def _claim_ahead(value: object) -> int:
    return check_int("claim_ahead", value, 0, 10_000)


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


@attrs.frozen(kw_only=True)
class QueueConfig:
    """How a client works one queue.

    Attributes:
        max_workers: Slots: jobs of this queue that run at once in this client, 1 to 10,000.
        poll_interval: Seconds or a timedelta between looks when no notification comes; the
            client's unless said.
        claim_ahead: Most jobs claimed beyond the free slots while jobs are shorter than the round
            trip that claims them. They wait in this process, and go back to the queue after 0.2 s,
            on a pause and on stop. 0 turns it off. Default: 200.

    Raises:
        InvalidOption: If a value is out of range.
    """

    max_workers: int = attrs.field(default=100, converter=_max_workers)
    poll_interval: Duration | None = attrs.field(
        default=None,
        converter=_poll_interval_or_none,
    )
    claim_ahead: int = attrs.field(default=200, converter=_claim_ahead)


NESTING_MAX = 500
"""Levels of lists and objects that JSON may have whatever calls it; Python stops at some 1,000."""

MAX_METADATA_BYTES = 32 * 1024 * 1024
"""Largest metadata of a job, as JSON, that one insert, update or attempt may set; beside it an
attempt may record an output as large, and its log."""


def metadata_text(metadata: object, most: int = MAX_METADATA_BYTES) -> str:
    """Return `metadata` as JSON text if a job can keep it.

    Args:
        metadata: A mapping.
        most: The most bytes that it may have.

    Raises:
        InvalidOption: If it is no mapping, JSON cannot hold it, or it is larger.
    """
    problem = json_problem(metadata) if isinstance(metadata, Mapping) else "it is no mapping"
    if problem:
        raise InvalidOption("metadata", metadata, f"a JSON object; {problem}")
    text = json_text(metadata)
    if (size := json_size(text)) > most:
        limit = f"at most {most:,} bytes of JSON; keep a reference to it"
        raise InvalidOption("metadata", f"{size:,} bytes", limit)
    return text


def json_size(text: str) -> int:
    """Return how many bytes JSON text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def json_problem(value: object, path: str = "$") -> str | None:
    """Return what in `value` PostgreSQL's jsonb cannot hold, and where; None if nothing."""
    try:
        return None if _is_plain(value) else _json_problem(value, path)
    except RecursionError:
        return f"{path} holds itself or nests too deeply; keep it below {NESTING_MAX} levels"


def _is_plain(value: object) -> bool:
    """Return whether jsonb can hold `value`; False where that takes a closer look."""
    # By exact type, and without the path: this is done for every job that is inserted.
    kind = type(value)
    if kind is str:
        return _is_plain_text(value)  # type: ignore[arg-type]
    if kind is int or kind is bool or value is None:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not _is_plain_text(key):
                return False
            # Most are text: no call in between.
            if not (_is_plain_text(item) if type(item) is str else _is_plain(item)):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    return False


def _is_plain_text(value: str) -> bool:
    if "\x00" in value:
        return False
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def _json_problem(value: object, path: str) -> str | None:
    match value:
        case str():
            if "\x00" in value:
                return f"{path} holds a NUL character, which jsonb cannot store; remove it"
            if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
                return f"{path} holds half of a surrogate pair; decode the text properly first"
        case None | bool() | int():
            return None
        case float():
            if not math.isfinite(value):
                return f"{path} is {value}, which JSON does not know; use None or a string"
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"{path} has the key {key!r}; keys of JSON objects are strings"
                problem = _json_problem(key, f"key {key!r} of {path}") or _json_problem(
                    item, f"{path}.{key}"
                )
                if problem:
                    return problem
        case list() | tuple():
            for index, item in enumerate(value):
                if problem := _json_problem(item, f"{path}[{index}]"):
                    return problem
        case _:
            return f"{path} is of type {type(value).__name__}, which JSON does not know"
    return None


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
# What its encode() makes anew for each call, which takes longer than to use it. CPython's alone.
_make = getattr(encoder, "c_make_encoder", None)
_encode = _make and _make(
    None, _ENCODER.default, encoder.encode_basestring, None, ":", ",", False, False, True
)


def json_text(value: object) -> str:
    """Return `value`, already free of problems, as compact JSON text."""
    return _ENCODER.encode(value) if _encode is None else "".join(_encode(value, 0))
