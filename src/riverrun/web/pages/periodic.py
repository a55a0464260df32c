"""`/periodic` and `/periodic/ID`: what recurs, when it runs next, and what it inserted."""

from collections.abc import Sequence

import attrs

from riverrun.errors import PeriodicJobNotFound
from riverrun.jobs.listing import JobBrief, JobListParams
from riverrun.verbs.periodic import PeriodicRow, list_periodic
from riverrun.verbs.read import list_briefs
from riverrun.web.context import Context
from riverrun.web.page import Page, Table
from riverrun.web.request import Request
from riverrun.web.users import Right

PERIODIC_MAX = 1_000


@attrs.frozen(kw_only=True)
class PeriodicData:
    """The data of the page of all periodic jobs.

    Attributes:
        periodic: The periodic jobs with an id.
        without_id: How many periodic jobs of this application's client have no id. Their next run
            is only known to the leader.
    """

    periodic: Sequence[PeriodicRow]
    without_id: int


@attrs.frozen(kw_only=True)
class OnePeriodicData:
    """The data of the page of one periodic job.

    Attributes:
        periodic: The periodic job.
        jobs: The last jobs that it inserted.
    """

    periodic: PeriodicRow
    jobs: Sequence[JobBrief]


def periodic(request: Request, context: Context) -> Page:
    """Make the page of all periodic jobs."""
    rows = context.read(list_periodic, limit=PERIODIC_MAX)
    known = context.client.periodic_jobs if context.client is not None else ()
    data = PeriodicData(periodic=rows, without_id=sum(job.id is None for job in known))
    return Page(
        name="periodic",
        title=context.words["periodic"],
        data=data,
        table=Table(columns=[field.name for field in attrs.fields(PeriodicRow)], rows=rows),
        refresh_s=15.0,
        view=_rights(request),
    )


def one_periodic(request: Request, context: Context, name: str) -> Page:
    """Make the page of the periodic job with the id `name`."""
    rows = context.read(list_periodic, limit=PERIODIC_MAX)
    row = next((listed for listed in rows if listed.id == name), None)
    if row is None:
        raise PeriodicJobNotFound(name)
    inserted = JobListParams(metadata={"river:periodic_job_id": name}, descending=True, limit=50)
    jobs = context.read(list_briefs, inserted, errors=True).jobs
    return Page(
        name="one_periodic",
        title=name,
        data=OnePeriodicData(periodic=row, jobs=[context.brief(request.user, job) for job in jobs]),
        section="periodic",
        refresh_s=15.0,
        view=_rights(request),
    )


def _rights(request: Request) -> dict[str, bool]:
    return {
        "switches": request.user.may(Right.pause),
        "runs": request.user.may(Right.insert),
    }
