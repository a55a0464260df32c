"""`/jobs`: a list of jobs with filters, page by page."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from riverrun.jobs.listing import JobBrief
from riverrun.jobs.states import JobState
from riverrun.verbs.act import newest_job_id
from riverrun.verbs.read import count_listed, list_briefs
from riverrun.verbs.waiting import count_waiting
from riverrun.web.actions import of_states
from riverrun.web.context import Context
from riverrun.web.filters import JobFilter, job_filter
from riverrun.web.page import Page, Table
from riverrun.web.request import Request
from riverrun.web.users import Right

COUNT_MAX = 10_000
"""Maximum number of jobs that are counted for a page."""

STATES = (
    JobState.available,
    JobState.running,
    JobState.retryable,
    JobState.scheduled,
    JobState.pending,
    JobState.completed,
    JobState.cancelled,
    JobState.discarded,
)
"""The states in the order in which a job passes through them."""

COLUMNS = tuple(field.name for field in attrs.fields(JobBrief))


@attrs.frozen(kw_only=True)
class JobsData:
    """The data of the page.

    Attributes:
        jobs: The jobs, in short form.
        count: How many jobs match.
        count_capped: Whether there are more than `count`.
        newest_id: The newest job of all when the page was made; 0 if there is none.
        cursor: Pass this as `after` for the next page; None on the last one.
        window: How many jobs were looked at for matching ones, at most; None for all.
        waiting: How many jobs there are in each state that is not final, counted to 1,000 in each
            queue.
        waiting_capped: The states of which there are more.
    """

    jobs: Sequence[JobBrief]
    count: int
    count_capped: bool
    newest_id: int
    cursor: str | None
    window: int | None
    waiting: Mapping[JobState, int]
    waiting_capped: Sequence[JobState]


def jobs(request: Request, context: Context) -> Page:
    """Make the page of the jobs that the query selects."""
    chosen = job_filter(request.query, now=context.now())
    context.check_filter(request.user, chosen)
    data = _read(chosen, request, context)
    return Page(
        name="jobs",
        title=context.words["jobs"],
        data=data,
        table=Table(columns=COLUMNS, rows=data.jobs),
        refresh_s=None if chosen.params.after else 5.0,
        view=_view(request, chosen, data),
    )


def _read(chosen: JobFilter, request: Request, context: Context) -> JobsData:
    # First, so that no job on the page is newer.
    newest = context.read.shared(newest_job_id)
    # As it stands in the address: a span such as "2h" is another time each time.
    key = (chosen.fields, *(request.one(name) for name in ("order", "after", "limit")))
    found = context.read.shared(list_briefs, chosen.params, key=key, errors=True)
    # One job more than is counted would tell that there are more.
    count = context.read.shared(count_listed, chosen.params, key=key, most=COUNT_MAX + 1)
    waiting = dict.fromkeys((state for state in STATES if not state.is_final), 0)
    capped = set()
    for group in context.read.shared(count_waiting):
        waiting[group.state] = waiting.get(group.state, 0) + group.count
        if group.capped:
            capped.add(group.state)
    return JobsData(
        jobs=[context.brief(request.user, job) for job in found.jobs],
        count=min(count, COUNT_MAX),
        count_capped=count > COUNT_MAX,
        newest_id=newest,
        cursor=found.cursor if found.more else None,
        window=found.window,
        waiting=waiting,
        waiting_capped=sorted(capped),
    )


def _view(request: Request, chosen: JobFilter, data: JobsData) -> dict[str, Any]:
    actions = [
        action for action in of_states(chosen.params.states) if request.user.may(Right(action))
    ]
    rest = chosen.without("state")
    every = [("newest", data.newest_id), ("back", request.here), *chosen.fields]
    return {
        "filter": chosen,
        "tabs": [(None, request.url("/jobs", rest))]
        + [(state, request.url("/jobs", [*rest, ("state", state)])) for state in STATES],
        "chips": [
            (key, value, request.url("/jobs", chosen.but(key, value)))
            for key, value in chosen.fields
            if key != "state"
        ],
        "clear": request.url("/jobs", [pair for pair in chosen.fields if pair[0] == "state"]),
        "first": request.again(after=None) if chosen.params.after else None,
        "next": request.again(after=data.cursor) if data.cursor else None,
        "actions": actions,
        "every": {
            action: request.url("/confirm", [("action", action), *every])
            for action in actions
            if chosen.acts_on_all
        },
        "more_fields": [
            name
            for name in ("arg", "meta", "client", "q")
            if name in {"client"} or request.user.may(Right.view_args)
        ],
        "more_open": any(
            key not in {"state", "kind", "queue", "since"} for key, _ in chosen.fields
        ),
        "is_filtered": bool(chosen.fields),
        "order": request.one("order"),
    }
