"""`/switch`: pause, resume and run queues and periodic jobs, after a confirmation."""

from typing import Any

import attrs

from riverrun.errors import InvalidOption
from riverrun.verbs.act_switch import act_on_periodic, act_on_queue
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest, NotAllowed
from riverrun.web.page import Page
from riverrun.web.request import Request, last
from riverrun.web.responses import Response, see_other
from riverrun.web.users import Right

SWITCHES: dict[str, tuple[Any, str, Right]] = {
    "pause_queue": (act_on_queue, "pause", Right.pause),
    "resume_queue": (act_on_queue, "resume", Right.pause),
    "pause_periodic": (act_on_periodic, "pause", Right.pause),
    "resume_periodic": (act_on_periodic, "resume", Right.pause),
    "run_periodic": (act_on_periodic, "run", Right.insert),
}
"""What can be switched: the verb, its action, and the right that it needs."""


@attrs.frozen(kw_only=True)
class SwitchData:
    """The data of the page.

    Attributes:
        switch: What is to be done.
        name: The queue or the periodic job.
    """

    switch: str
    name: str


def confirm_switch(request: Request, context: Context) -> Page:
    """Make the page that asks for a confirmation."""
    switch, name = _wish(request.query, request)
    back = request.one("back") or "/"
    return Page(
        name="switch",
        title=context.words[f"ask_{switch}"].format(name=name),
        data=SwitchData(switch=switch, name=name),
        section="queues" if switch.endswith("queue") else "periodic",
        view={"back": back, "back_url": request.local(back)},
    )


def do_switch(request: Request, context: Context) -> Response:
    """Do what was confirmed."""
    switch, name = _wish(request.form, request)
    verb, action, _ = SWITCHES[switch]
    try:
        verb(
            context.engine,
            action,
            name,
            user=request.user.name,
            schema=context.schema,
            on_done=context.on_done,
        )
    except InvalidOption as error:
        raise BadRequest("filter", str(error)) from None
    return see_other(request.back(done=switch, count=1))


def _wish(fields: tuple[tuple[str, str], ...], request: Request) -> tuple[str, str]:
    switch, name = last(fields, "switch") or "", last(fields, "name")
    if switch not in SWITCHES:
        raise BadRequest("action")
    right = SWITCHES[switch][2]
    if not request.user.may(right):
        raise NotAllowed(right)
    if name is None or name == "*":
        raise BadRequest("none")
    return switch, name
