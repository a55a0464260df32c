"""`/health`: the state of the tables: versions, sizes, indexes, and what keeps rows from vacuum."""

from riverrun.verbs.health import schema_health
from riverrun.web.context import Context
from riverrun.web.page import Page
from riverrun.web.request import Request

TTL_S = 10.0


def health(_: Request, context: Context) -> Page:
    """Make the page."""
    found = context.read.shared(schema_health, ttl_s=TTL_S)
    return Page(
        name="health",
        title=context.words["health"],
        data=found,
        view={"rows": max((table.live_rows for table in found.tables), default=0)},
    )
