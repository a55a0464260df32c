"""`/kinds` and `/kinds/NAME`: how long the jobs of each kind take, and how often they fail."""

from collections.abc import Mapping, Sequence

import attrs

from riverrun.jobs.listing import JobBrief, JobListParams, JobOrder
from riverrun.jobs.states import JobState
from riverrun.verbs.kinds import KindStats, kind_stats, list_kinds
from riverrun.verbs.read import list_briefs
from riverrun.verbs.samples import SampleKey, Samples
from riverrun.web.context import Context
from riverrun.web.errors import NotFound
from riverrun.web.history import charts, choice_of, links, read_history
from riverrun.web.page import Page, Table
from riverrun.web.request import Request

WINDOW = 5_000
"""How many of the last jobs the figures are of."""


@attrs.frozen(kw_only=True)
class KindData:
    """A kind.

    Attributes:
        kind: Its name.
        count, failed, run_p50_s, run_p95_s, wait_p50_s, wait_p95_s, attempts: The same as in
            KindStats. 0 or None if none of the last jobs is of this kind.
        failure_rate: The share of its last jobs that failed; None if there is none.
        registered: Whether this application's client has a worker for it; None without a client
            that has workers.
    """

    kind: str
    count: int = 0
    failed: int = 0
    run_p50_s: float | None = None
    run_p95_s: float | None = None
    wait_p50_s: float | None = None
    wait_p95_s: float | None = None
    attempts: Mapping[int, int] = attrs.field(factory=dict)
    failure_rate: float | None = None
    registered: bool | None = None


@attrs.frozen(kw_only=True)
class KindsData:
    """The data of the page of all kinds.

    Attributes:
        kinds: The kinds: those of the last jobs first, then others that the tables or the client's
            workers know.
        window: How many of the last jobs the figures are of, at most.
    """

    kinds: Sequence[KindData]
    window: int


@attrs.frozen(kw_only=True)
class OneKindData:
    """The data of the page of one kind.

    Attributes:
        kind: The kind.
        window: How many of the last jobs the figures are of, at most.
        last: Its jobs, those inserted last first.
        failed: Those of its jobs that are among the `window` jobs discarded last.
        samples: What was finalized over the time that was chosen, with waits and run times.
    """

    kind: KindData
    window: int
    last: Sequence[JobBrief]
    failed: Sequence[JobBrief]
    samples: Samples


def kinds(_: Request, context: Context) -> Page:
    """Make the page of all kinds."""
    rows = read_kinds(context)
    return Page(
        name="kinds",
        title=context.words["kinds"],
        data=KindsData(kinds=rows, window=WINDOW),
        table=Table(columns=[field.name for field in attrs.fields(KindData)], rows=rows),
        refresh_s=15.0,
    )


def kind(request: Request, context: Context, name: str) -> Page:
    """Make the page of the kind `name`."""
    last = JobListParams(kinds=[name], descending=True, limit=20)
    failed = JobListParams(
        kinds=[name],
        states=[JobState.discarded],
        order_by=JobOrder.finalized_at,
        descending=True,
        limit=10,
        window=WINDOW,
    )
    lists = [
        [
            context.brief(request.user, job)
            for job in context.read(list_briefs, params, errors=True).jobs
        ]
        for params in (last, failed)
    ]
    stats = {row.kind: row for row in context.read.shared(kind_stats, window=WINDOW)}
    found = _kind(name, stats.get(name), _registered(context))
    if not found.count and not lists[0] and not found.registered:
        raise NotFound(name)
    choice = attrs.evolve(choice_of(request), by=SampleKey.state)
    samples = read_history(choice, context, kind=name)
    return Page(
        name="kind",
        title=name,
        data=OneKindData(
            kind=found, window=WINDOW, last=lists[0], failed=lists[1], samples=samples
        ),
        section="kinds",
        refresh_s=15.0,
        view={
            "most": max(found.attempts.values(), default=1),
            "charts": charts(samples, context.words) if samples.series else {},
            "choices": links(request, choice, by=False),
        },
    )


def read_kinds(context: Context) -> list[KindData]:
    """Return all kinds, those of the last jobs first."""
    stats = context.read.shared(kind_stats, window=WINDOW)
    registered = _registered(context)
    known = {row.kind for row in stats}
    others = {*context.read.shared(list_kinds), *(registered or ())} - known
    return [
        *(_kind(row.kind, row, registered) for row in stats),
        *(_kind(name, None, registered) for name in sorted(others)),
    ]


def _registered(context: Context) -> frozenset[str] | None:
    """Return the kinds for which the application's client has workers."""
    workers = None if context.client is None else context.client.workers
    return None if workers is None else frozenset(workers.kinds)


def _kind(name: str, stats: KindStats | None, registered: frozenset[str] | None) -> KindData:
    is_registered = None if registered is None else name in registered
    if stats is None:
        return KindData(kind=name, registered=is_registered)
    return KindData(
        **attrs.asdict(stats),
        failure_rate=stats.failed / stats.count if stats.count else None,
        registered=is_registered,
    )
