"""Convert drafts for the database: into batches, columns and texts of arrays."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import attrs

from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.jobs.checks import check_aware
from riverrun.jobs.options import MAX_ATTEMPTS_DEFAULT, PRIORITY_DEFAULT, QUEUE_DEFAULT
from riverrun.jobs.states import JobState, mask_of
from riverrun.verbs.draft import JobDraft
from riverrun.wire.characters import UTF8, escaped

_BATCH_JOBS = 5_000


_BATCH_CHARS = 8_000_000


def in_encoding(ready: Sequence[JobDraft], encodings: tuple[str, ...]) -> Sequence[JobDraft]:
    """Return jobs that can be sent in `encodings`; unless all is UTF-8, their JSON is in ASCII.

    This checks the characters here, because an error of the database would abort the application's
    transaction.

    Raises:
        InvalidArgs, InvalidOption: If the database's encoding lacks a character; for kinds and
            tags also if the connection's does.
    """
    if encodings == UTF8:
        return ready
    for job in ready:
        if problem := _lacking(job.args_text, encodings[-1]):
            raise InvalidArgs(job.kind, f"the database, in {encodings[-1]}, has no {problem}")
        # JSON is sent in ASCII, and the database decodes the escapes.
        texts = {"metadata": (job.metadata_text, encodings[-1:]), "kind": (job.kind, encodings)}
        for name, (text, needed) in {**texts, "tags": (" ".join(job.tags), encodings)}.items():
            for encoding in needed:
                if problem := _lacking(text, encoding):
                    expected = f"characters that {encoding} has, the encoding used; not {problem}"
                    raise InvalidOption(name, text, expected)
    return [
        attrs.evolve(
            job, args_text=escaped(job.args_text), metadata_text=escaped(job.metadata_text)
        )
        for job in ready
    ]


def _lacking(text: str, encoding: str) -> str | None:
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        return repr(text[error.start])
    return None


def batches(ready: Sequence[JobDraft]) -> Iterator[Sequence[JobDraft]]:
    """Yield drafts in batches, limited by their number and by the characters of their args."""
    if len(ready) == 1:
        yield ready
        return
    batch: list[JobDraft] = []
    chars = 0
    for job in ready:
        if batch and (len(batch) == _BATCH_JOBS or chars + len(job.args_text) > _BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(job)
        chars += len(job.args_text)
    if batch:
        yield batch


# How each column is written, and its default in the table. A column in which all jobs have the
# default is not sent.
_COLUMNS: dict[str, tuple[Callable[[JobDraft], Any], Any]] = {
    "args": (attrgetter("args_text"), None),
    "kind": (attrgetter("kind"), None),
    "max_attempts": (attrgetter("max_attempts"), MAX_ATTEMPTS_DEFAULT),
    "metadata": (attrgetter("metadata_text"), "{}"),
    "priority": (attrgetter("priority"), PRIORITY_DEFAULT),
    "queue": (attrgetter("queue"), QUEUE_DEFAULT),
    "scheduled_at": (lambda job: job.scheduled_at and job.scheduled_at.isoformat(), None),
    "state": (attrgetter("state._value_"), JobState.available.value),
    "tags": (lambda job: array_text(job.tags) if job.tags else "{}", "{}"),
    "unique_key": (lambda job: job.mark and job.mark.key.hex(), None),
    "unique_states": (lambda job: job.mark and f"{mask_of(job.mark.states):08b}", None),
}


def values_of(job: JobDraft, now: datetime | None) -> dict[str, Any]:
    """Return the values of a job's row, by column."""
    values = {
        name: value for name, (read, default) in _COLUMNS.items() if (value := read(job)) != default
    }
    if now:
        values = {"scheduled_at": str(now), **values, "created_at": str(now)}
    return values


def columns_of(batch: Sequence[JobDraft], now: datetime | None) -> dict[str, list[Any]]:
    """Return the values of the jobs' rows, by column."""
    columns = {}
    for name, (read, default) in _COLUMNS.items():
        values = list(map(read, batch))
        if values.count(default) < len(values):
            columns[name] = values
    if now:
        planned = columns.get("scheduled_at", [None] * len(batch))
        columns["scheduled_at"] = [value or str(now) for value in planned]
        columns["created_at"] = [str(now)] * len(batch)
    return columns


def array_text(items: Iterable[object]) -> str:
    """Return `items` as the text of a PostgreSQL array."""
    return "{" + ",".join(map(_element, items)) + "}"


def _element(item: object) -> str:
    if isinstance(item, str):
        return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if item is None else str(item)


def checked_now(now: datetime | None) -> datetime | None:
    """Return `now`, which only tests pass, if it is an aware datetime or None."""
    return None if now is None else check_aware("now", now)
