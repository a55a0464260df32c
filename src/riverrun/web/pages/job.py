"""`/jobs/ID`: one job with its attempts, args, output and what it waits for."""

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.execution.steps import CURSOR_KEY, STEP_KEY
from riverrun.jobs.listing import JobBrief, JobListParams, JobOrder, cursor_text
from riverrun.jobs.parts import JobParts, json_lines, parts_of, time_in
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.verbs.act import JobAction
from riverrun.verbs.live_log import LiveLog, get_live_log
from riverrun.verbs.read import get, key_holder, list_briefs
from riverrun.verbs.waiting import Place, place_in_line
from riverrun.web.actions import may_be_done
from riverrun.web.attempts import AttemptData, Value, attempts_of, texts_of, value_of
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest, NotAllowed, NotFound
from riverrun.web.page import Page
from riverrun.web.render import BLOCK_MAX
from riverrun.web.request import Request
from riverrun.web.responses import Response, download
from riverrun.web.users import Right
from riverrun.web.words import plural

ID_MAX = 2**63 - 1

WAITING = (JobState.available, JobState.pending, JobState.retryable, JobState.scheduled)


@attrs.frozen(kw_only=True)
class JobData:
    """The data of the page.

    Attributes:
        id, kind, state, queue, priority, attempt, max_attempts: The same as in JobRow.
        created_at, scheduled_at, attempted_at, finalized_at: The same as in JobRow.
        attempted_by, tags, unique_key, unique_states: The same as in JobRow.
        args, output, metadata: Values; None without the right `view_args`, or if there is none.
        attempts: The attempts of which something is known.
        live_log: The end of what the running attempt has logged so far; None without the right
            `view_args`, or where the client has no `JobLog(live=True)`.
        snoozes: How often the job was put off.
        rescues: How often it was lost with its client.
        cancelling_since: Since when a running job has been asked to end.
        periodic_id: The periodic job that inserted it.
        resume_step: The last step that an earlier attempt completed. The next attempt skips it
            and those before it.
        resume_cursors: The steps that continue from a cursor.
        older_id, newer_id: The jobs inserted before and after it.
        place: Its place in line, if it is due; counted to 10,000.
        holder_id: Another job that holds its unique key now. Until that one no longer does, this
            one cannot be retried.
    """

    id: int
    kind: str
    state: JobState
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    created_at: datetime
    scheduled_at: datetime
    attempted_at: datetime | None
    finalized_at: datetime | None
    attempted_by: Sequence[str]
    tags: Sequence[str]
    unique_key: str | None
    unique_states: Sequence[JobState]
    args: Value | None
    output: Value | None
    metadata: Value | None
    attempts: Sequence[AttemptData]
    live_log: str | None
    snoozes: int
    rescues: int
    cancelling_since: datetime | None
    periodic_id: str | None
    resume_step: str | None
    resume_cursors: Sequence[str]
    older_id: int | None
    newer_id: int | None
    place: Place | None
    holder_id: int | None


def job(request: Request, context: Context, job_id: str) -> Page:
    """Make the page of the job `job_id`."""
    row = context.read(get, id_of(job_id))
    parts = parts_of(row)
    data = _data(row, parts, request, context)
    return Page(
        name="job",
        title=f"{context.words['job']} {row.id}",
        data=data,
        refresh_s=None if row.state.is_final else 2.0,
        section="jobs",
        view=_view(row, data, request, context),
    )


def id_of(text: str) -> int:
    """Return the id in an address.

    Raises:
        NotFound: If no job can have it.
    """
    job_id = int(text)
    if job_id > ID_MAX:
        raise NotFound(text)
    return job_id


def _data(row: JobRow, parts: JobParts, request: Request, context: Context) -> JobData:
    shows = request.user.may(Right.view_args)
    metadata = row.metadata
    older, newer = (_neighbour(row, context, descending=down) for down in (True, False))

    def value(name: str, found: Any) -> Value | None:
        return value_of(context.redaction.value(row, (name,), found)) if shows else None

    cursors = metadata.get(CURSOR_KEY)
    return JobData(
        **{name: getattr(row, name) for name in _SAME},
        attempted_by=texts_of(row.attempted_by),
        tags=texts_of(row.tags),
        unique_key=None if row.unique_key is None else row.unique_key.hex(),
        unique_states=sorted(row.unique_states or ()),
        args=value("args", row.args),
        output=value("output", parts.output) if parts.has_output else None,
        metadata=value("metadata", parts.metadata) if parts.metadata else None,
        attempts=attempts_of(row, parts, context, shows=shows),
        live_log=_live_log(row, context) if shows else None,
        snoozes=_count(metadata.get("snoozes")),
        rescues=_count(metadata.get("river:rescue_count")),
        cancelling_since=time_in(metadata.get("cancel_attempted_at"))
        if row.state is JobState.running
        else None,
        periodic_id=_text(metadata.get("river:periodic_job_id")),
        resume_step=_text(metadata.get(STEP_KEY)),
        resume_cursors=[str(name) for name in cursors] if isinstance(cursors, Mapping) else [],
        older_id=older,
        newer_id=newer,
        place=context.read(place_in_line, row.id) if row.state is JobState.available else None,
        holder_id=_holder(row, context),
    )


_SAME = (
    "id",
    "kind",
    "state",
    "queue",
    "priority",
    "attempt",
    "max_attempts",
    "created_at",
    "scheduled_at",
    "attempted_at",
    "finalized_at",
)


def _live_log(row: JobRow, context: Context) -> str | None:
    if row.state is not JobState.running:
        return None
    live: LiveLog | None = context.read(get_live_log, row.id)
    return None if live is None else context.redaction.text(row, "log", live.text)


def _holder(row: JobRow, context: Context) -> int | None:
    """Return the job that keeps a job from being retried."""
    if row.unique_key is None or row.state in (row.unique_states or ()):
        return None
    holder = context.read(key_holder, row.id)
    return None if holder is None or holder.id == row.id else holder.id


def _place_text(place: Place | None, context: Context) -> str | None:
    if place is None:
        return None
    if place.capped:
        return context.words["place_more"].format(n=f"{place.ahead:,}")
    return plural("place_n", place.ahead) if place.ahead else context.words["place_first"]


def _neighbour(row: JobRow, context: Context, *, descending: bool) -> int | None:
    here = cursor_text(row.id, row.kind, row.queue, JobOrder.id, None)
    params = JobListParams(after=here, descending=descending, limit=1)
    found: Sequence[JobBrief] = context.read(list_briefs, params).jobs
    return found[0].id if found else None


def _view(row: JobRow, data: JobData, request: Request, context: Context) -> dict[str, Any]:
    here = f"/jobs/{row.id}"
    shows = request.user.may(Right.view_args)
    trace_id = _trace_id(row.metadata)
    values = {"job_id": str(row.id), "kind": row.kind, "queue": row.queue, "trace_id": trace_id}
    return {
        "actions": [
            (action, request.url("/confirm", [("action", action), ("id", row.id), ("back", here)]))
            for action in JobAction
            if request.user.may(Right(action)) and may_be_done(action, row.state)
        ],
        "more_actions": _more(row, request, context.words),
        "place_text": _place_text(data.place, context),
        "timeline": _timeline(data, context),
        "job_links": [
            (link.label, address)
            for link in context.links
            if link.is_of_jobs and (address := link.address(values)) is not None
        ],
        "shows": shows,
        "again": _again(row, request) if shows and not context.redaction.is_active else {},
        "here": here,
    }


def _more(row: JobRow, request: Request, words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what else a user may do: the text and the address of each page."""
    found = []
    if request.user.may(Right.retry) and row.state in WAITING:
        found.append((words["run_at"], request.url(f"/jobs/{row.id}/run_at")))
    if request.user.may(Right.insert) and request.user.may(Right.view_args):
        found.append((words["copy"], request.url(f"/jobs/{row.id}/copy")))
    return found


def _again(row: JobRow, request: Request) -> dict[str, str]:
    """Return what to type to insert a job like this one."""
    text = json.dumps(row.args, ensure_ascii=False, default=str)
    if len(text) > BLOCK_MAX:
        return {}
    options = {"queue": row.queue, "priority": row.priority, "max_attempts": row.max_attempts}
    shell = ["riverrun", "insert", row.kind, text]
    for name, value in options.items():
        shell += [f"--{name.replace('_', '-')}", str(value)]
    keywords = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return {
        "python": f"client.insert(session, RawArgs(kind={row.kind!r}, encoded={row.args!r}), "
        f"{keywords})",
        "shell": shlex.join(shell),
        "curl": shlex.join(["curl", request.origin + request.url(f"/jobs/{row.id}.json")]),
    }


@attrs.frozen(kw_only=True)
class Moment:
    """A moment in a job's life.

    Attributes:
        name: What happened: the name of a word.
        at: When.
        wait_s: Seconds since the moment before; None for the first.
        state: The state that it led to, for its mark.
        detail: More about it.
    """

    name: str
    at: datetime
    wait_s: float | None = None
    state: str = "other"
    detail: str = ""


def _timeline(data: JobData, context: Context) -> list[Moment]:
    moments = [Moment(name="at_created", at=data.created_at, state="pending")]
    if data.state in {JobState.scheduled, JobState.retryable, JobState.available}:
        moments.append(Moment(name="at_scheduled", at=data.scheduled_at, state="scheduled"))
    for attempt in data.attempts:
        if attempt.at is None:
            continue
        is_running = data.state is JobState.running and attempt.attempt == data.attempt
        failed = attempt.error is not None
        if attempt.rescued:
            name = "at_lost"
        elif is_running:
            name = "at_running"
        else:
            name = "at_failed" if failed else "at_attempted"
        number = "" if attempt.attempt is None else str(attempt.attempt)
        state = "retryable" if failed else "running"
        moments.append(Moment(name=name, at=attempt.at, state=state, detail=number))
    if data.finalized_at is not None:
        state = data.state.value if data.state in context.words else "other"
        moments.append(Moment(name="at_finalized", at=data.finalized_at, state=state))
    moments.sort(key=lambda moment: moment.at)
    return [
        moment
        if number == 0
        else attrs.evolve(moment, wait_s=(moment.at - moments[number - 1].at).total_seconds())
        for number, moment in enumerate(moments)
    ]


def part(request: Request, context: Context, job_id: str, part: str) -> Response:
    """Return a whole part of a job as a file: its args, output, metadata, or a log."""
    if not request.user.may(Right.view_args):
        raise NotAllowed(Right.view_args)
    row = context.read(get, id_of(job_id))
    parts = parts_of(row)
    if part == "log":
        number = request.one("attempt") or ""
        if number and not (number.isascii() and number.isdigit()):
            raise BadRequest("filter", f"attempt={number[:40]}")
        texts = [log.text for log in parts.logs if not number or str(log.attempt) == number]
        text = context.redaction.text(row, "log", "\n".join(texts))
        body = text.encode("utf-8", "backslashreplace")
        return download(body, f"job-{row.id}-log.txt", "text/plain; charset=utf-8")
    found = {"args": row.args, "output": parts.output, "metadata": parts.metadata}
    shown = context.redaction.value(row, (part,), found[part])
    body = json_lines(shown).encode("utf-8", "backslashreplace")
    return download(body, f"job-{row.id}-{part}.json", "application/json")


def _trace_id(metadata: Mapping[str, Any]) -> str | None:
    """Return the id of the trace in which a job was inserted, as W3C's trace context has it."""
    fields = str(metadata.get("traceparent") or "").split("-")
    return fields[1] if len(fields) >= 4 and len(fields[1]) == 32 else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
