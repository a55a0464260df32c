"""`/`: what is wrong now, what waits, how much gets done, and what fails."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from riverrun.jobs.states import JobState
from riverrun.verbs.failures import FailureGroup
from riverrun.verbs.status import FinishedCount, finished_by_time
from riverrun.web.charts import Series, spark, stacked
from riverrun.web.context import Context
from riverrun.web.page import Page
from riverrun.web.pages.clients import ClientData, read_clients
from riverrun.web.pages.failures import FailuresData, read_failures
from riverrun.web.pages.queues import QueueData, read_queues
from riverrun.web.request import Request
from riverrun.web.users import Right

WINDOW_S = 900.0

STEP_S = 15.0

LONG_WAIT_S = 60.0
"""Seconds that a due job may wait before the page says so."""

GROUPS = 5

SHOWN = (JobState.completed, JobState.cancelled, JobState.discarded)


@attrs.frozen(kw_only=True)
class Problem:
    """Something that is wrong now.

    Attributes:
        name: What: `no_leader`, `silent_client`, `gone_client`, `unworked_queue`, `long_wait` or
            `unhealthy_client`.
        subject: The client or the queue; None if it is about all.
        detail: What the client itself has recorded.
        since: Since when; None if that is not known.
    """

    name: str
    subject: str | None = None
    detail: str | None = None
    since: datetime | None = None


@attrs.frozen(kw_only=True)
class OverviewData:
    """The data of the page.

    Attributes:
        problems: What is wrong now.
        queues: The queues by name.
        finished: How many jobs reached each final state, by steps of 15 s in the last 15 min.
        per_minute: How many jobs were completed in the last minute that is counted.
        failures: The groups of failed jobs with most jobs.
        failures_window: How many discarded and how many retryable jobs these are of, at most.
        live_clients: How many clients of riverrun are live.
        leader: The client that leads; None if none does.
    """

    problems: Sequence[Problem]
    queues: Sequence[QueueData]
    finished: Sequence[FinishedCount]
    per_minute: int
    failures: Sequence[FailureGroup]
    failures_window: int
    live_clients: int
    leader: str | None


def overview(request: Request, context: Context) -> Page:
    """Make the page."""
    queues = read_queues(context)
    clients, leader = read_clients(context)
    finished = context.read.shared(finished_by_time, window_s=WINDOW_S, step_s=STEP_S)
    failures = read_failures(context)
    now = context.now()
    minute = now - timedelta(seconds=60 + STEP_S)
    data = OverviewData(
        problems=list(_problems(queues, clients, leader, now)),
        queues=queues,
        finished=finished,
        per_minute=sum(
            each.count
            for each in finished
            if each.state is JobState.completed and minute <= each.at < now - _step(1)
        ),
        failures=failures.groups[:GROUPS],
        failures_window=failures.window,
        live_clients=sum(each.state == "live" for each in clients),
        leader=leader,
    )
    return Page(
        name="overview",
        title=context.words["overview"],
        data=data,
        refresh_s=5.0,
        view=_view(request, data, failures, now, context),
    )


def _step(count: int) -> timedelta:
    return timedelta(seconds=count * STEP_S)


def _problems(
    queues: Sequence[QueueData],
    clients: Sequence[ClientData],
    leader: str | None,
    now: datetime,
) -> Iterable[Problem]:
    if leader is None and (clients or queues):
        yield Problem(name="no_leader")
    for client in clients:
        if client.state != "live":
            name = f"{client.state}_client"
            yield Problem(name=name, subject=client.id, since=client.heartbeat_at)
        for problem in client.problems:
            yield Problem(name="unhealthy_client", subject=client.id, detail=problem)
    for queue in queues:
        # Only jobs that are due are available.
        since = queue.oldest_at
        if queue.unworked:
            yield Problem(name="unworked_queue", subject=queue.name, since=since)
        elif since is not None and queue.paused_at is None and _is_long(now - since):
            yield Problem(name="long_wait", subject=queue.name, since=since)


def _is_long(wait: timedelta) -> bool:
    return wait.total_seconds() > LONG_WAIT_S


def _view(
    request: Request,
    data: OverviewData,
    failures: FailuresData,
    now: datetime,
    context: Context,
) -> dict[str, Any]:
    sums: dict[str, int] = {}
    for queue in data.queues:
        for state in ("available", "running", "retryable", "scheduled"):
            sums[state] = sums.get(state, 0) + getattr(queue, state)
    capped = {state for queue in data.queues for state in queue.capped}
    return {
        "sums": sums,
        "capped": capped,
        "spark": spark,
        "trends": failures,
        "chart": _chart(data.finished, now, context.words),
        "switches": request.user.may(Right.pause),
    }


def _chart(finished: Sequence[FinishedCount], now: datetime, words: Mapping[str, str]) -> Any:
    """Return the chart of what was finished, and the rows of its table."""
    steps = int(WINDOW_S / STEP_S)
    last_s = int(now.timestamp() // STEP_S)
    places: dict[str, list[int]] = {state.value: [0] * steps for state in SHOWN}
    for each in finished:
        place = int(each.at.timestamp() // STEP_S) - last_s + steps - 1
        if 0 <= place < steps and each.state.value in places:
            places[each.state.value][place] += each.count
    series = [
        Series(name=words[state.value], css=f"c-{state.value}", values=places[state.value])
        for state in SHOWN
    ]
    first = now - timedelta(seconds=WINDOW_S)
    return stacked(series, label=words["throughput_label"], first=first, last=now)
