"""`/queues` and `/queues/NAME`: what waits in each queue, and who works it."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.errors import QueueNotFound
from riverrun.jobs.listing import JobBrief, JobListParams, JobOrder
from riverrun.jobs.states import JobState
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.verbs.queues import list_queues
from riverrun.verbs.read import list_briefs
from riverrun.verbs.samples import SampleKey, Samples, SampleSpan
from riverrun.verbs.status import list_clients, unworked_queues
from riverrun.verbs.waiting import WaitingCount, count_waiting
from riverrun.web.context import Context
from riverrun.web.history import Choice, charts, choice_of, links, per_minute, read_history
from riverrun.web.page import Page, Table
from riverrun.web.request import Request
from riverrun.web.users import Right

QUEUES_MAX = 1_000

STATES = (JobState.available, JobState.running, JobState.retryable, JobState.scheduled)


@attrs.frozen(kw_only=True)
class QueueData:
    """A queue.

    Attributes:
        name: Its name.
        paused_at: Since when it is paused; None if it is not.
        available, running, retryable, scheduled, pending: How many jobs it has, counted to 1,000.
        capped: The states of which it has more.
        oldest_at: Since when its oldest due job waits; None if none waits.
        by_priority: How many available jobs it has of each priority; None if there are too many.
        clients: The ids of live clients of riverrun that work it.
        slots: How many jobs these run at once.
        worked_at: When a client last recorded that it works the queue; None if that is not known.
        per_minute: How many of its jobs were recently finalized per minute; None without samples.
        empty_s: Seconds until no due job waits at this rate, if no more come; None if that is not
            known.
        unworked: Whether it has due jobs, is not paused, and no live client works it.
    """

    name: str
    paused_at: datetime | None
    available: int
    running: int
    retryable: int
    scheduled: int
    pending: int
    capped: Sequence[JobState]
    oldest_at: datetime | None
    by_priority: Mapping[int, int] | None
    clients: Sequence[str]
    slots: int
    worked_at: datetime | None
    per_minute: float | None
    empty_s: float | None
    unworked: bool


@attrs.frozen(kw_only=True)
class QueuesData:
    """The data of the page of all queues.

    Attributes:
        queues: The queues by name.
    """

    queues: Sequence[QueueData]


@attrs.frozen(kw_only=True)
class OneQueueData:
    """The data of the page of one queue.

    Attributes:
        queue: The queue.
        next: The jobs that are due, those that are claimed first at the beginning.
        running: Jobs that run.
        samples: What was finalized over the time that was chosen, with waits and run times.
    """

    queue: QueueData
    samples: Samples
    next: Sequence[JobBrief]
    running: Sequence[JobBrief]


def queues(request: Request, context: Context) -> Page:
    """Make the page of all queues."""
    data = QueuesData(queues=read_queues(context))
    return Page(
        name="queues",
        title=context.words["queues"],
        data=data,
        table=Table(
            columns=[field.name for field in attrs.fields(QueueData)],
            rows=data.queues,
        ),
        refresh_s=5.0,
        view={"switches": request.user.may(Right.pause)},
    )


def queue(request: Request, context: Context, name: str) -> Page:
    """Make the page of the queue `name`."""
    found = next((row for row in read_queues(context) if row.name == name), None)
    if found is None:
        # It may have only final jobs, and no client that works it.
        if not context.read(list_briefs, JobListParams(queues=[name], limit=1)).jobs:
            raise QueueNotFound(name)
        found = _queue(name, None, {}, [], 0, None, unworked=False)
    due = JobListParams(
        queues=[name], states=[JobState.available], order_by=JobOrder.time, limit=20
    )
    running = JobListParams(queues=[name], states=[JobState.running], limit=20)
    choice = attrs.evolve(choice_of(request), by=SampleKey.kind)
    samples = read_history(choice, context, queue=name)
    data = OneQueueData(
        queue=found,
        samples=samples,
        next=_briefs(due, request, context),
        running=_briefs(running, request, context),
    )
    return Page(
        name="queue",
        title=name,
        data=data,
        section="queues",
        refresh_s=5.0,
        view={
            "switches": request.user.may(Right.pause),
            "charts": charts(samples, context.words) if samples.series else {},
            "choices": links(request, choice, by=False),
        },
    )


def _briefs(params: JobListParams, request: Request, context: Context) -> list[JobBrief]:
    found = context.read(list_briefs, params, errors=True).jobs
    return [context.brief(request.user, job) for job in found]


def read_queues(context: Context, *, unworked: Collection[str] | None = None) -> list[QueueData]:
    """Return all queues: those that are or were worked, those with jobs, and those of clients.

    Args:
        context: What a page works with.
        unworked: The queues that no live client works, if they are known already. Then rates are
            left out, too.
    """
    rows = {row.name: row for row in context.read.shared(list_queues, limit=QUEUES_MAX)}
    counts: dict[str, dict[JobState, WaitingCount]] = defaultdict(dict)
    for group in context.read.shared(count_waiting):
        counts[group.queue][group.state] = group
    clients: dict[str, list[str]] = defaultdict(list)
    slots: dict[str, int] = defaultdict(int)
    for client in context.read.shared(list_clients):
        if client.silent_s <= DEAD_S:
            for name in client.queues:
                clients[name].append(client.id)
                slots[name] += _whole(client.slots.get(name))
    rates: dict[str | None, float] = {}
    if unworked is None:
        unworked = context.read.shared(unworked_queues, dead_s=DEAD_S)
        samples = read_history(_LATELY, context)
        rates = {series.name: per_minute(series, samples) for series in samples.series}
    names = sorted({*rows, *counts, *clients})
    return [
        _queue(
            name,
            rows.get(name),
            counts[name],
            clients[name],
            slots[name],
            rates.get(name, 0.0) if rates else None,
            unworked=name in unworked,
        )
        for name in names
    ]


_LATELY = Choice(span=SampleSpan.quarter, by=SampleKey.queue)


def _queue(
    name: str,
    row: Any,
    counts: Mapping[JobState, WaitingCount],
    clients: Sequence[str],
    slots: int,
    rate: float | None,
    *,
    unworked: bool,
) -> QueueData:
    available = counts.get(JobState.available)
    paused_at = None if row is None else row.paused_at
    return QueueData(
        name=name,
        paused_at=paused_at,
        **{state.value: counts[state].count if state in counts else 0 for state in STATES},
        pending=counts[JobState.pending].count if JobState.pending in counts else 0,
        capped=sorted(state for state, group in counts.items() if group.capped),
        oldest_at=None if available is None else available.oldest_at,
        by_priority={} if available is None else available.by_priority,
        clients=clients,
        slots=slots,
        worked_at=None if row is None else row.updated_at,
        per_minute=rate,
        empty_s=None
        if not rate or available is None or available.capped
        else 60.0 * available.count / rate,
        unworked=unworked,
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
