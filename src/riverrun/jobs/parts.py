"""The parts of a job as people see them: its attempts, logs and output beside its metadata."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from riverrun.jobs.row import JobRow

LOG_KEY = "river:log"

OUTPUT_KEY = "output"


@attrs.frozen(kw_only=True)
class Failure:
    """A failed attempt.

    Attributes:
        attempt: Its number; None if the row has no number.
        at: When it began; None if the row has no time that Python can hold.
        error: What went wrong.
        trace: The traceback; empty if there is none.
    """

    attempt: int | None
    at: datetime | None
    error: str
    trace: str


@attrs.frozen(kw_only=True)
class AttemptLog:
    """What an attempt has logged.

    Attributes:
        attempt: Its number; None if the row has no number.
        text: The lines.
    """

    attempt: int | None
    text: str


@attrs.frozen(kw_only=True)
class JobParts:
    """The parts of a job.

    Attributes:
        output: The recorded output.
        has_output: Whether an output was recorded. It may be null.
        failures: The failed attempts, in order.
        logs: The logs of attempts, in order.
        metadata: The rest of the metadata.
    """

    output: Any
    has_output: bool
    failures: tuple[Failure, ...]
    logs: tuple[AttemptLog, ...]
    metadata: Mapping[str, Any]


def parts_of(job: JobRow) -> JobParts:
    """Return the parts of a job, whatever clients of other languages have written to its row."""
    metadata = dict(job.metadata)
    has_output = OUTPUT_KEY in metadata
    output, logs = metadata.pop(OUTPUT_KEY, None), metadata.pop(LOG_KEY, None)
    return JobParts(
        output=output,
        has_output=has_output,
        failures=tuple(map(_failure, job.errors)),
        logs=tuple(
            AttemptLog(attempt=_number(entry.get("attempt")), text=str(entry.get("log") or ""))
            for entry in (logs if isinstance(logs, list) else ())
            if isinstance(entry, Mapping)
        ),
        metadata=metadata,
    )


def json_lines(value: object) -> str:
    """Return a value as JSON text with an indent, however deep it nests."""
    for indent in (2, None):
        try:
            return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
        except RecursionError:
            continue
    return "... nests too deeply to be shown ..."


def _failure(entry: Mapping[str, Any]) -> Failure:
    return Failure(
        attempt=_number(entry.get("attempt")),
        at=time_in(entry.get("at")),
        error=str(entry.get("error") or ""),
        trace=str(entry.get("trace") or ""),
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**63 else None


def time_in(value: object) -> datetime | None:
    """Return the time that a value of a row's JSON has; None if it has none."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
