"""`/failures` and `/failures/KEY`: failed jobs in groups of one kind and one error."""

import attrs

from riverrun.verbs.act import BATCH, JobAction
from riverrun.verbs.failures import FailureGroup, FailureList, list_failed, list_failures
from riverrun.web.charts import spark
from riverrun.web.context import Context
from riverrun.web.errors import NotFound
from riverrun.web.page import Page, Table
from riverrun.web.request import Request
from riverrun.web.users import Right

SHOWN = 50
"""Jobs of a group that its page shows."""


def failures(_: Request, context: Context) -> Page:
    """Make the page of all groups."""
    data = read_failures(context)
    names = [field.name for field in attrs.fields(FailureGroup) if field.name != "job_ids"]
    return Page(
        name="failures",
        title=context.words["failures"],
        data=data,
        table=Table(columns=names, rows=data.groups),
        refresh_s=15.0,
        view={"spark": spark},
    )


def failure(request: Request, context: Context, name: str) -> Page:
    """Make the page of the group with the key `name`."""
    found = context.read(list_failed, name, limit=SHOWN)
    if found.group is None:
        raise NotFound(name)
    group = _shown(found.group, context)
    here = request.here
    return Page(
        name="failure",
        title=context.words["failure"],
        data=attrs.evolve(
            found, group=group, jobs=[context.brief(request.user, job) for job in found.jobs]
        ),
        section="failures",
        view={
            "spark": spark,
            "label": context.words["of_group" if group.count <= BATCH else "first_of_group"].format(
                n=f"{min(group.count, BATCH):,}"
            ),
            "actions": [
                (action, _confirm(request, action, name, here))
                for action in (JobAction.retry, JobAction.delete)
                if request.user.may(Right(action))
            ],
        },
    )


def _confirm(request: Request, action: JobAction, key: str, back: str) -> str:
    return request.url("/confirm", [("action", action), ("failure", key), ("back", back)])


def read_failures(context: Context) -> FailureList:
    """Return the groups, with what may be shown of their errors."""
    found = context.read.shared(list_failures, ttl_s=10.0)
    return attrs.evolve(found, groups=[_shown(group, context) for group in found.groups])


def _shown(group: FailureGroup, context: Context) -> FailureGroup:
    return attrs.evolve(group, text=context.redaction.text(group, "error", group.text))
