"""Checks of the values of options. Each returns the value, or raises InvalidOption."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from operator import index

from riverrun.clock import seconds
from riverrun.errors import InvalidOption
from riverrun.jobs.json_values import json_problem

# Source of the patterns and limits: River 0.51, client.go and job.go. In Go \w matches ASCII only.
_QUEUE = re.compile(r"[a-z0-9]+(?:[_|\-]?[a-z0-9]+)*")


_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]+[A-Za-z0-9_]")


_KIND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-\[\]<>/.·:+]+")


def check_queue(name: object) -> str:
    """Return `name` if it can name a queue.

    Raises:
        InvalidOption: If it cannot.
    """
    if not isinstance(name, str) or len(name) > 64 or not _QUEUE.fullmatch(name):
        expected = "at most 64 of a-z and 0-9, separated by single '_', '-' or '|'"
        raise InvalidOption("queue", name, expected)
    return plain_text(name)


def plain_text(text: str) -> str:
    """Return `text` as a str and not as a subclass.

    The text of a member of `class Queue(str, Enum)` in an f-string is `Queue.mail`, which would be
    in unique keys.
    """
    return str.__str__(text)


SCHEMA_MAX = 63
"""Longest name of a schema in PostgreSQL, in bytes. River refuses more than 46."""


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
    return plain_text(kind)


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
    return tuple(map(plain_text, tags))


def check_callable(name: str, value: object, expected: str) -> object:
    """Return `value` if it can be called and is not a class, whose objects would be called.

    Raises:
        InvalidOption: If it cannot.
    """
    if isinstance(value, type):
        raise InvalidOption(name, value, f"an object, such as {value.__name__}(...), not the class")
    if not callable(value):
        raise InvalidOption(name, value, expected)
    return value


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False. A text such as "no" would count as True.

    Raises:
        InvalidOption: If it is neither.
    """
    if not isinstance(value, bool):
        raise InvalidOption(name, value, "True or False")
    return value


def check_text(name: str, value: object) -> str:
    """Return a text that the database can hold.

    Raises:
        InvalidOption: If it cannot hold it, or it is no text.
    """
    if not isinstance(value, str) or json_problem(value):
        raise InvalidOption(name, value, "a text of valid UTF-8 without a NUL")
    return value


def check_aware(name: str, value: object) -> datetime:
    """Return `value` if it is a datetime with a time zone.

    Raises:
        InvalidOption: If it is not.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        hint = "; for a time from now, pass delay=" if name == "scheduled_at" else ""
        raise InvalidOption(name, value, f"an aware datetime, such as datetime.now(UTC){hint}")
    return value


def check_int(name: str, value: object, low: int, high: int) -> int:
    """Return `value` if it is an int from `low` to `high`.

    Raises:
        InvalidOption: If it is not.
    """
    if type(value) is not int or not low <= value <= high:
        raise InvalidOption(name, value, f"an int from {low} to {high}")
    return value


def check_job_id(value: object) -> int:
    """Return `value` if it can be the id of a job.

    Raises:
        InvalidOption: If it cannot. The database's own refusal would end the transaction.
    """
    try:
        number = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise InvalidOption("job_id", value, "the id of a job, an int; of a row, its .id")
    return number


def check_duration(name: str, value: object, low_s: float) -> float:
    """Return `value` in seconds if it is a finite duration of at least `low_s`.

    Args:
        name: The option's name, for the error.
        value: Seconds or a timedelta.
        low_s: The shortest duration that is accepted, in seconds.

    Raises:
        InvalidOption: If it is not.
    """
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        try:
            duration_s = seconds(value)
        except OverflowError:  # an int beyond all floats
            duration_s = math.inf
        if math.isfinite(duration_s) and duration_s >= low_s:
            return duration_s
    raise InvalidOption(name, value, f"seconds or a timedelta, at least {low_s:g} s")


def check_timedelta(name: str, value: object, low_s: float) -> timedelta:
    """Return `value` as a timedelta if `check_duration` accepts it and a timedelta can hold it.

    Raises:
        InvalidOption: If not.
    """
    duration_s = check_duration(name, value, low_s)
    try:
        return timedelta(seconds=duration_s)
    except OverflowError:
        raise InvalidOption(name, value, "a shorter time, such as timedelta(days=1)") from None
