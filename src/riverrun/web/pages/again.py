"""`/jobs/ID/copy` and `/jobs/ID/run_at`: insert a copy of a job, and set when it is due."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from riverrun.errors import InvalidArgs, InvalidOption, UndecodableArgs, UnknownKind
from riverrun.execution.typed_args import typed_args
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.parts import json_lines
from riverrun.models import Job
from riverrun.verbs.actions import record_action
from riverrun.verbs.insert import insert
from riverrun.verbs.read import get
from riverrun.verbs.reschedule import reschedule_where
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest, NotAllowed
from riverrun.web.filters import time_of
from riverrun.web.page import Page
from riverrun.web.pages.job import WAITING, id_of
from riverrun.web.request import Request
from riverrun.web.responses import Response, see_other
from riverrun.web.users import Right

ARGS_MAX = 200_000
"""Longest args, in characters of JSON, that are edited in a browser."""


@attrs.frozen(kw_only=True)
class AgainData:
    """The data of both pages.

    Attributes:
        id: The job.
        kind: Its kind.
    """

    id: int
    kind: str


def copy(request: Request, context: Context, job_id: str) -> Page:
    """Make the page on which a copy of a job is edited."""
    _check(request, Right.insert, Right.view_args)
    row = context.read(get, id_of(job_id))
    text = json_lines(row.args)
    if len(text) > ARGS_MAX:
        raise BadRequest("long_args")
    if context.redaction.value(row, ("args",), row.args) != row.args:
        # A copy would get what is shown in place of the hidden values.
        raise BadRequest("hidden_args")
    return Page(
        name="copy",
        title=context.words["copy_of"].format(id=row.id),
        data=AgainData(id=row.id, kind=row.kind),
        section="jobs",
        view={
            "text": text,
            "row": row,
            "act": request.url(f"/jobs/{row.id}/copy"),
            "back": request.url(f"/jobs/{row.id}"),
        },
    )


def do_copy(request: Request, context: Context, job_id: str) -> Response:
    """Insert a job like another one, with the args and options of a form."""
    _check(request, Right.insert, Right.view_args)
    row = context.read(get, id_of(job_id))
    context.read.close()
    encoded = _object(request.posted("args") or "")
    try:
        with context.engine.begin() as connection:
            opts = InsertOpts(
                queue=request.posted("queue") or row.queue,
                priority=_number(request, "priority", row.priority),
                max_attempts=_number(request, "max_attempts", row.max_attempts),
                tags=list(row.tags),
            )
            client = context.client
            args = typed_args(client.workers if client else None, row.kind, encoded)
            if client is not None:
                result = client.insert(connection, args, opts)
            else:
                result = insert(connection, args, opts, schema=context.schema)
            record_action(
                connection,
                user=request.user.name,
                action="insert",
                count=0 if result.skipped_as_duplicate else 1,
                job_ids=[result.job.id],
                filter={"copy_of": row.id},
                schema=context.schema,
                on_done=context.on_done,
            )
    except (InvalidArgs, InvalidOption, UndecodableArgs, UnknownKind) as error:
        raise BadRequest("insert", str(error)) from None
    done = "duplicate" if result.skipped_as_duplicate else "insert"
    return see_other(request.url(f"/jobs/{result.job.id}", [("done", done), ("count", 1)]))


def run_at(request: Request, context: Context, job_id: str) -> Page:
    """Make the page on which the time is chosen at which a job is due."""
    _check(request, Right.retry)
    row = context.read(get, id_of(job_id))
    return Page(
        name="run_at",
        title=context.words["run_at_of"].format(id=row.id),
        data=AgainData(id=row.id, kind=row.kind),
        section="jobs",
        view={
            "row": row,
            "may_run": row.state in WAITING,
            "act": request.url(f"/jobs/{row.id}/run_at"),
            "back": request.url(f"/jobs/{row.id}"),
        },
    )


def do_run_at(request: Request, context: Context, job_id: str) -> Response:
    """Set when a waiting job is due."""
    _check(request, Right.retry)
    which = id_of(job_id)
    at = time_of("at", request.posted("at"), context.now(), ahead=True)
    if at is None:
        raise BadRequest("filter", "at")
    try:
        with context.engine.begin() as connection:
            count = reschedule_where(
                connection, Job.id == which, scheduled_at=at, schema=context.schema
            )
            record_action(
                connection,
                user=request.user.name,
                action="reschedule",
                count=count,
                job_ids=[which],
                filter={"scheduled_at": at.isoformat()},
                schema=context.schema,
                on_done=context.on_done,
            )
    except InvalidOption as error:
        raise BadRequest("insert", str(error)) from None
    return see_other(request.url(f"/jobs/{which}", [("done", "run_at"), ("count", count)]))


def _check(request: Request, *rights: Right) -> None:
    for right in rights:
        if not request.user.may(right):
            raise NotAllowed(right)


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest("args")
    return value


def _number(request: Request, name: str, otherwise: int) -> int:
    text = request.posted(name)
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise BadRequest("filter", f"{name}={text[:40]}: expected a number")
    return int(text)
