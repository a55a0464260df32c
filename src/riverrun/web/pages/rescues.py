"""`/rescues`: jobs that lost the client that ran them."""

from collections import Counter
from collections.abc import Sequence

import attrs

from riverrun.verbs.rescues import RescuedJob, list_rescued
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest
from riverrun.web.page import Page, Table
from riverrun.web.request import Request

LIMIT = 100


@attrs.frozen(kw_only=True)
class RescuesData:
    """The data of the page.

    Attributes:
        jobs: The jobs, those with the highest ids first.
        cursor: Pass this as `after` for the next page; None on the last one.
    """

    jobs: Sequence[RescuedJob]
    cursor: int | None


def rescues(request: Request, context: Context) -> Page:
    """Make the page."""
    after = request.one("after")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise BadRequest("filter", f"after={after[:40]}: expected a number")
    found = context.read(list_rescued, limit=LIMIT, after=None if after is None else int(after))
    cursor = found[-1].id if len(found) == LIMIT else None
    return Page(
        name="rescues",
        title=context.words["rescues"],
        data=RescuesData(jobs=found, cursor=cursor),
        table=Table(columns=[field.name for field in attrs.fields(RescuedJob)], rows=found),
        refresh_s=15.0,
        view={
            "kinds": Counter(job.kind for job in found).most_common(),
            "next": request.again(after=cursor) if cursor else None,
            "first": request.again(after=None) if after else None,
        },
    )
