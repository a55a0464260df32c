"""`/`: what is wrong now, what waits, how many jobs are finalized, and what fails."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from riverrun.jobs.states import JobState
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.verbs.failures import FailureGroup, FailureList
from riverrun.verbs.overview import Problem, ProblemKind
from riverrun.verbs.overview import overview as problems_now
from riverrun.verbs.samples import SampleKey, Samples, SampleSpan
from riverrun.verbs.status import FinishedCount, finished_by_time, list_clients
from riverrun.web.charts import Chart, Series, spark, stacked
from riverrun.web.context import Context
from riverrun.web.history import Choice, charts, choice_of, links, read_history
from riverrun.web.page import Page
from riverrun.web.pages.failures import read_failures
from riverrun.web.pages.queues import QueueData, read_queues
from riverrun.web.request import Request
from riverrun.web.users import Right

WINDOW_S = 900.0

STEP_S = 15.0

GROUPS = 5

SHOWN = (JobState.completed, JobState.cancelled, JobState.discarded)


@attrs.frozen(kw_only=True)
class ClientProblem:
    """A client that has recorded that it is not healthy.

    Attributes:
        id: The client's id.
        problem: Why, as it has recorded it.
    """

    id: str
    problem: str


@attrs.frozen(kw_only=True)
class OverviewData:
    """The data of the page.

    Attributes:
        problems: What is wrong now, the worst first.
        unhealthy: Why clients are not healthy.
        queues: The queues by name.
        finished: How many jobs reached each final state, by steps of 15 s in the last 15 min.
        per_minute: How many jobs were completed in the last minute that is counted.
        samples: What was finalized over the time that was chosen, with waits and run times.
        failures: The groups of failed jobs with most jobs.
        failures_window: How many discarded and how many retryable jobs these are of, at most.
        live_clients: How many clients of riverrun are live.
    """

    problems: Sequence[Problem]
    unhealthy: Sequence[ClientProblem]
    queues: Sequence[QueueData]
    finished: Sequence[FinishedCount]
    per_minute: int
    samples: Samples
    failures: Sequence[FailureGroup]
    failures_window: int
    live_clients: int


def overview(request: Request, context: Context) -> Page:
    """Make the page."""
    problems = context.read.shared(problems_now, dead_s=DEAD_S)
    unworked = {
        problem.subject for problem in problems if problem.kind is ProblemKind.unworked_queue
    }
    queues = read_queues(context, unworked=[name for name in unworked if name is not None])
    clients = context.read.shared(list_clients)
    finished = context.read.shared(finished_by_time, window_s=WINDOW_S, step_s=STEP_S)
    failures = read_failures(context)
    choice = choice_of(request)
    samples = read_history(choice, context)
    now = context.now()
    minute = now - timedelta(seconds=60 + STEP_S)
    data = OverviewData(
        problems=problems,
        unhealthy=[
            ClientProblem(id=client.id, problem=problem)
            for client in clients
            for problem in client.problems
        ],
        queues=queues,
        finished=finished,
        per_minute=sum(
            row.count
            for row in finished
            if row.state is JobState.completed and minute <= row.at < now - _step(1)
        ),
        samples=samples,
        failures=failures.groups[:GROUPS],
        failures_window=failures.window,
        live_clients=sum(client.silent_s <= DEAD_S for client in clients),
    )
    return Page(
        name="overview",
        title=context.words["overview"],
        data=data,
        refresh_s=5.0,
        view=_view(request, choice, data, failures, now, context),
    )


def _step(count: int) -> timedelta:
    return timedelta(seconds=count * STEP_S)


def _view(
    request: Request,
    choice: Choice,
    data: OverviewData,
    failures: FailureList,
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
        "charts": _charts(choice, data, now, context),
        "choice": choice,
        "choices": links(request, choice),
        "switches": request.user.may(Right.pause),
    }


def _charts(
    choice: Choice, data: OverviewData, now: datetime, context: Context
) -> dict[str, Chart]:
    found = charts(data.samples, context.words) if data.samples.series else {}
    if choice == Choice(span=SampleSpan.quarter, by=SampleKey.state) and not found:
        # It needs no samples, so it is there from the beginning, and without a leader of ours.
        return {"finished": _chart(data.finished, now, context.words)}
    return found


def _chart(finished: Sequence[FinishedCount], now: datetime, words: Mapping[str, str]) -> Chart:
    """Return the chart of what was finished, and the rows of its table."""
    steps = int(WINDOW_S / STEP_S)
    last_s = int(now.timestamp() // STEP_S)
    places: dict[str, list[int]] = {state.value: [0] * steps for state in SHOWN}
    for row in finished:
        place = int(row.at.timestamp() // STEP_S) - last_s + steps - 1
        if 0 <= place < steps and row.state.value in places:
            places[row.state.value][place] += row.count
    series = [
        Series(name=words[state.value], css=f"c-{state.value}", values=places[state.value])
        for state in SHOWN
    ]
    first = now - timedelta(seconds=WINDOW_S)
    return stacked(series, label=words["throughput_label"], first=first, last=now)
