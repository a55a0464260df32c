"""`/confirm`: what an action on jobs would change, before it is done, and `/act`, which does it."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import attrs

from riverrun.errors import InvalidOption
from riverrun.verbs.act import BATCH, REMAINING_MAX, Acted, JobAction, act_on, act_on_listed
from riverrun.verbs.failures import list_failed
from riverrun.verbs.read import get
from riverrun.web.actions import may_be_done
from riverrun.web.context import Context
from riverrun.web.errors import BadRequest, NotAllowed
from riverrun.web.filters import FIELDS, JobFilter, job_filter
from riverrun.web.page import Page
from riverrun.web.request import Request, last
from riverrun.web.responses import Response, see_other
from riverrun.web.users import Right
from riverrun.web.words import plural

TYPED_MIN = 1_000
"""The largest number of jobs that is confirmed with a button alone."""

TURN_S = 1.0
"""Seconds after which a request begins no further batch, so that the browser can show progress."""


@attrs.frozen(kw_only=True)
class ConfirmData:
    """The data of the page.

    Attributes:
        action: What is to be done.
        count: To how many jobs.
        count_capped: Whether there may be more.
        newest_id: Jobs with a higher id are not changed; None if the jobs are named.
        job_ids: The jobs, if they are named.
    """

    action: JobAction
    count: int
    count_capped: bool
    newest_id: int | None
    job_ids: Sequence[int]


@attrs.frozen(kw_only=True)
class _Wish:
    """What a user wants done, from a query or a form."""

    action: JobAction
    chosen: JobFilter
    newest_id: int | None
    after: int | None
    back: str

    @property
    def ids(self) -> Sequence[int]:
        return self.chosen.params.ids or ()

    @property
    def is_named(self) -> bool:
        """Whether the jobs are named by their ids, and not by filters."""
        return self.newest_id is None

    def fields(self) -> list[tuple[str, Any]]:
        fields: list[tuple[str, Any]] = [("action", self.action), ("back", self.back)]
        if self.newest_id is not None:
            fields.append(("newest", self.newest_id))
        return [*fields, *self.chosen.fields]


def confirm(request: Request, context: Context) -> Page:
    """Make the page that asks for a confirmation.

    Ticked jobs come by POST: their ids may be longer than a server accepts in an address.
    """
    fields = request.form if request.method == "POST" else request.query
    wish = _wish(fields, request, context)
    data = _data(wish, request, context)
    count = f"{data.count:,}"
    if data.count_capped:
        count = context.words["confirm_more"].format(n=count)
    single = wish.is_named and len(wish.ids) == 1
    if single:
        title = context.words[f"confirm_one_{wish.action}"].format(id=wish.ids[0])
    elif data.count_capped:
        title = context.words[f"confirm_{wish.action}"].format(n=count)
    else:
        title = plural(f"confirm_{wish.action}", data.count)
    return Page(
        name="confirm",
        title=title,
        data=data,
        section="jobs",
        view={
            "fields": wish.fields(),
            "count_text": count,
            "typed": data.count > TYPED_MIN,
            "chosen": wish.chosen,
            "back": request.local(wish.back),
            "act": request.url("/act"),
        },
    )


def act(request: Request, context: Context) -> Response:
    """Do what was confirmed, or the next part of it."""
    wish = _wish(request.form, request, context)
    context.read.close()
    done = _number(request.posted("done"))
    if wish.is_named:
        acted = _done(act_on, context, request, wish.action, wish.ids)
        if wish.action is JobAction.delete and wish.back in {
            f"/jobs/{job_id}" for job_id in wish.ids
        }:
            return see_other(request.local("/jobs", done=wish.action, count=acted.count))
        return see_other(request.back(done=wish.action, count=acted.count))
    if wish.after is None:
        _check_typed(request)
    until = context.clock.monotonic() + TURN_S
    after = wish.after
    while True:
        acted = _done(
            act_on_listed,
            context,
            request,
            wish.action,
            wish.chosen.params,
            newest_id=wish.newest_id,
            after=after,
        )
        done += acted.count
        after = acted.cursor
        if after is None:
            return see_other(request.back(done=wish.action, count=done))
        if context.clock.monotonic() >= until:
            break
    more = [("reached", after), ("done", done), ("left", acted.remaining)]
    return see_other(request.url("/progress", [*wish.fields(), *more]))


@attrs.frozen(kw_only=True)
class ProgressData:
    """The data of the page that shows how far an action has come.

    Attributes:
        action: What is done.
        done: How many jobs were changed.
        remaining: How many are left, counted to 10,000.
    """

    action: JobAction
    done: int
    remaining: int


def progress(request: Request, context: Context) -> Page:
    """Make the page between two parts of a large action, on which it can be stopped."""
    wish = _wish(request.query, request, context)
    if wish.is_named or wish.after is None:
        raise BadRequest("action")
    done, left = _number(request.one("done")), _number(request.one("left"))
    data = ProgressData(action=wish.action, done=done, remaining=left)
    word = "progress_more" if left >= REMAINING_MAX else "progress_text"
    return Page(
        name="progress",
        title=context.words["progress"],
        data=data,
        section="jobs",
        view={
            "fields": [*wish.fields(), ("reached", wish.after), ("done", done)],
            "text": context.words[word].format(done=f"{done:,}", left=f"{left:,}"),
            "share": round(100 * done / (done + left)) if done + left else 0,
            "batch": BATCH,
            "act": request.url("/act"),
            "stop": request.local(wish.back, done=wish.action, count=done),
        },
    )


def _wish(fields: Sequence[tuple[str, str]], request: Request, context: Context) -> _Wish:
    try:
        action = JobAction(last(fields, "action") or "")
    except ValueError:
        raise BadRequest("action") from None
    if not request.user.may(Right(action)):
        raise NotAllowed(Right(action))
    newest = last(fields, "newest")
    # Times such as "2h" must not move between the list, the confirmation and the last batch.
    fixed = [
        (key, value) for key, value in fields if key in FIELDS and key not in {"since", "until"}
    ]
    given = job_filter(fields, now=context.now())
    fixed += [
        (name, moment.astimezone(UTC).isoformat())
        for name in ("since", "until")
        if (moment := getattr(given.params, name)) is not None
    ]
    order = [(key, value) for key, value in fields if key == "order"]
    chosen = job_filter([*fixed, *order], now=context.now())
    context.check_filter(request.user, chosen)
    if (key := last(fields, "failure")) is not None:
        # A group may have more jobs than an address can name.
        group = context.read(list_failed, key, limit=1).group
        ids = () if group is None else group.job_ids[:BATCH]
        chosen = job_filter([("id", str(job_id)) for job_id in ids], now=context.now())
    if newest is None and not chosen.params.ids:
        raise BadRequest("none")
    if newest is not None and not chosen.acts_on_all:
        raise BadRequest("all")
    after = last(fields, "reached")
    return _Wish(
        action=action,
        chosen=chosen,
        newest_id=None if newest is None else _number(newest),
        after=None if after is None else _number(after),
        back=last(fields, "back") or "/jobs",
    )


def _data(wish: _Wish, request: Request, context: Context) -> ConfirmData:
    if wish.newest_id is None:
        count, capped = len(set(wish.ids)), False
        if len(wish.ids) == 1:
            # Whether there is anything to confirm at all.
            count = int(may_be_done(wish.action, context.read(get, wish.ids[0]).state))
    else:
        found = context.read(
            act_on_listed,
            wish.action,
            wish.chosen.params,
            newest_id=wish.newest_id,
            user=request.user.name,
            dry_run=True,
        )
        count, capped = found.count + found.remaining, found.remaining >= REMAINING_MAX
    return ConfirmData(
        action=wish.action,
        count=count,
        count_capped=capped,
        newest_id=wish.newest_id,
        job_ids=wish.ids if wish.newest_id is None else (),
    )


def _done(verb: Any, context: Context, request: Request, *args: Any, **options: Any) -> Acted:
    try:
        acted: Acted = verb(
            context.engine,
            *args,
            user=request.user.name,
            schema=context.schema,
            on_done=context.on_done,
            **options,
        )
    except InvalidOption as error:
        raise BadRequest("filter", str(error)) from None
    return acted


def _check_typed(request: Request) -> None:
    """Refuse a large action of which the user has not typed in how many jobs it changes."""
    shown = _number(request.posted("shown"))
    typed = (request.posted("typed") or "").replace(",", "").replace(".", "").strip()
    if shown > TYPED_MIN and typed != str(shown):
        raise BadRequest("confirm")


def _number(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) >= 2**63:
        raise BadRequest("filter", f"{text[:40]}: expected a number")
    return int(text)
