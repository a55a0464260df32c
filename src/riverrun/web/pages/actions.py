"""`/actions`: who did what to jobs, queues and periodic jobs, and when."""

from collections.abc import Sequence

import attrs

from riverrun.verbs.actions import ActionRow, list_actions
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest
from riverrun.web.page import Page, Table
from riverrun.web.request import Request

LIMIT = 50


@attrs.frozen(kw_only=True)
class ActionsData:
    """The data of the page.

    Attributes:
        actions: The records, newest first.
        cursor: Pass this as `after` for the next page; None on the last one.
    """

    actions: Sequence[ActionRow]
    cursor: int | None


def actions(request: Request, context: Context) -> Page:
    """Make the page of the records."""
    after = request.one("after")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise BadRequest("filter", f"after={after[:40]}: expected a number")
    found = context.read(list_actions, limit=LIMIT, after=None if after is None else int(after))
    cursor = found[-1].id if len(found) == LIMIT else None
    return Page(
        name="actions",
        title=context.words["actions"],
        data=ActionsData(actions=found, cursor=cursor),
        table=Table(columns=[field.name for field in attrs.fields(ActionRow)], rows=found),
        view={
            "next": request.again(after=cursor) if cursor else None,
            "first": request.again(after=None) if after else None,
        },
    )
