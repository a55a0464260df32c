"""What a job's page shows of its attempts and of its values, cut to what a browser can show."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.jobs.parts import JobParts, json_lines
from riverrun.jobs.row import JobRow
from riverrun.logs.traces import folded
from riverrun.web.context import Context
from riverrun.web.render import BLOCK_MAX

VALUE_MAX = 1_000_000
"""Longest value in the page's JSON, in characters of JSON. A longer one is to be downloaded."""

RESCUED = "Stuck job rescued by JobRescuer"


@attrs.frozen(kw_only=True)
class Value:
    """A JSON value of a job.

    Attributes:
        value: The value; None if it is cut.
        chars: Its length as JSON text.
        cut: Whether it is too long for this page.
        text: The beginning of its text.
    """

    value: Any
    chars: int
    cut: bool
    text: str


@attrs.frozen(kw_only=True)
class AttemptData:
    """An attempt at a job.

    Attributes:
        attempt: Its number; None if it is not known.
        at: When it began, if that is known.
        client: The client that claimed it, if that is known.
        error: Why it failed; None if it did not, or is running.
        rescued: Whether it was lost with its client.
        trace: The beginning of its traceback, with runs of library frames folded.
        full_trace: The beginning of its whole traceback.
        log: The beginning of what it logged; None without the right `view_args`.
        log_chars: The length of its log.
    """

    attempt: int | None
    at: datetime | None = None
    client: str | None = None
    error: str | None = None
    rescued: bool = False
    trace: str = ""
    full_trace: str = ""
    log: str | None = None
    log_chars: int = 0


def value_of(value: Any) -> Value:
    """Return a JSON value as the page shows it."""
    text = json_lines(value)
    cut = len(text) > VALUE_MAX
    return Value(value=None if cut else value, chars=len(text), cut=cut, text=text[: BLOCK_MAX + 1])


def attempts_of(
    row: JobRow, parts: JobParts, context: Context, *, shows: bool
) -> Sequence[AttemptData]:
    """Return the attempts that a job's row has data of, the first one first.

    Args:
        row: The job.
        parts: Its parts.
        context: What a page works with.
        shows: Whether the user may see logs.
    """
    logs: dict[int | None, str] = {}
    for log in parts.logs:
        logs[log.attempt] = logs.get(log.attempt, "") + log.text
    # A snoozed attempt keeps its place in attempted_by, but gives its number back.
    clients = texts_of(row.attempted_by)
    exact = len(clients) == row.attempt and not row.metadata.get("snoozes")
    found = []
    for failure in parts.failures:
        trace = context.redaction.text(row, "trace", failure.trace)
        error = context.redaction.text(row, "error", failure.error)
        found.append(
            AttemptData(
                attempt=failure.attempt,
                at=failure.at,
                error=error,
                rescued=failure.error == RESCUED,
                trace=folded(trace)[: BLOCK_MAX + 1],
                full_trace=trace[: BLOCK_MAX + 1],
            )
        )
    failed = {attempt.attempt for attempt in found}
    others = {log.attempt for log in parts.logs} - failed
    if row.attempt and row.attempt not in failed and row.attempted_at is not None:
        others.add(row.attempt)
    for number in others:
        at = row.attempted_at if number == row.attempt else None
        found.append(AttemptData(attempt=number, at=at))
    complete = []
    for attempt in sorted(found, key=lambda attempt: attempt.attempt or 0):
        number = attempt.attempt
        client = None
        if number is not None and exact and 0 < number <= len(clients):
            client = clients[number - 1]
        elif number is not None and number == row.attempt and clients:
            client = clients[-1]
        text = logs.pop(number, None)
        if text is not None:
            shown = context.redaction.text(row, "log", text) if shows else None
            begin = None if shown is None else shown[: BLOCK_MAX + 1]
            attempt = attrs.evolve(attempt, log=begin, log_chars=len(text))
        complete.append(attrs.evolve(attempt, client=client))
    return complete


def texts_of(values: Sequence[object]) -> Sequence[str]:
    """Return the texts of an array, in which other programs may have put nulls or arrays."""
    return [str(value) for value in values if value is not None]
