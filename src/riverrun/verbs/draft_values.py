"""What drafts become on their way to the database: batches, columns and texts."""

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
    """Return jobs that can be sent where text is not UTF-8 all the way, their JSON in ASCII.

    Checked here: the database's own refusal would end the host's transaction.

    Raises:
        InvalidArgs, InvalidOption: If the database's encoding, or for tags the connection's, has no
            such character.
    """
    if encodings == UTF8:
        return ready
    for job in ready:
        if problem := _lacking(job.args_text, encodings[-1]):
            raise InvalidArgs(job.kind, f"the database, in {encodings[-1]}, has no {problem}")
        # JSON can be sent in ASCII, and the database makes characters of it.
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
    """Yield drafts in batches bounded in number and in characters of args."""
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


# How a column is written, and the table's default for it: what all jobs leave at that is not sent.
_COLUMNS: dict[str, tuple[Callable[[JobDraft], Any], Any]] = {
    "args": (attrgetter("args_text"), None),
    "kind": (attrgetter("kind"), None),
    "max_attempts": (attrgetter("max_attempts"), MAX_ATTEMPTS_DEFAULT),
    "metadata": (attrgetter("metadata_text"), "{}"),
    "priority": (attrgetter("priority"), PRIORITY_DEFAULT),
    "queue": (attrgetter("queue"), QUEUE_DEFAULT),
    "scheduled_at": (lambda job: job.scheduled_at and job.scheduled_at.isoformat(), None),
    "state": (attrgetter("state._value_"), JobState.available.value),
    "tags": (lambda job: array_text(job.tags), "{}"),
    "unique_key": (lambda job: job.mark and job.mark.key.hex(), None),
    "unique_states": (lambda job: job.mark and f"{mask_of(job.mark.states):08b}", None),
}


def values_of(job: JobDraft, now: datetime | None) -> dict[str, Any]:
    """Return by column what a job's row is given."""
    values = {
        name: value for name, (read, default) in _COLUMNS.items() if (value := read(job)) != default
    }
    if now:
        values = {"scheduled_at": str(now), **values, "created_at": str(now)}
    return values


def columns_of(batch: Sequence[JobDraft], now: datetime | None) -> dict[str, list[Any]]:
    """Return by column what the jobs' rows are given."""
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
    """Return the text of an array as PostgreSQL reads it."""
    return "{" + ",".join(map(_element, items)) + "}"


def _element(item: object) -> str:
    if isinstance(item, str):
        return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if item is None else str(item)


def checked_now(now: datetime | None) -> datetime | None:
    """Return `now`, which only tests pass, checked."""
    return None if now is None else check_aware("now", now)
