"""`/failures` and `/failures/KEY`: failed jobs in groups of one kind and one error."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.jobs.listing import JobBrief
from riverrun.verbs.act import BATCH, JobAction
from riverrun.verbs.failures import FailureGroup, list_failed, list_failures
from riverrun.web.charts import spark
from riverrun.web.context import Context
from riverrun.web.errors import NotFound
from riverrun.web.page import Page, Table
from riverrun.web.request import Request
from riverrun.web.users import Right

SHOWN = 50
"""Jobs of a group that its page shows."""


@attrs.frozen(kw_only=True)
class FailuresData:
    """The data of the page of all groups.

    Attributes:
        groups: The groups, those with most jobs first.
        window: How many discarded and how many retryable jobs were read, at most.
        complete: Whether these were all failed jobs.
        since: When the first step of each trend begins.
        step_s: Seconds of a step.
    """

    groups: Sequence[FailureGroup]
    window: int
    complete: bool
    since: datetime
    step_s: float


@attrs.frozen(kw_only=True)
class FailureData:
    """The data of the page of one group.

    Attributes:
        group: The group.
        jobs: Some of its jobs, those that failed last first.
    """

    group: FailureGroup
    jobs: Sequence[JobBrief]


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
        data=FailureData(
            group=group, jobs=[context.brief(request.user, job) for job in found.jobs]
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


def read_failures(context: Context) -> FailuresData:
    """Return the groups, with what may be shown of their errors."""
    found = context.read.shared(list_failures, ttl_s=10.0)
    shown: dict[str, Any] = {
        name: getattr(found, name) for name in ("window", "complete", "since", "step_s")
    }
    return FailuresData(groups=[_shown(group, context) for group in found.groups], **shown)


def _shown(group: FailureGroup, context: Context) -> FailureGroup:
    return attrs.evolve(group, text=context.redaction.text(group, "error", group.text))
