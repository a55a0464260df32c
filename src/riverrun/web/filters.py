"""The filters of a list of jobs, as they stand in an address and as the verbs take them."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from riverrun.errors import InvalidOption
from riverrun.jobs.listing import CLIENT_WINDOW, JobListParams, JobOrder
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.web.errors import BadRequest
from riverrun.web.request import last

MANY = ("state", "kind", "queue", "tag", "priority", "id", "arg", "meta")
"""Fields that may be given several times."""

ONCE = ("client", "q", "since", "until")

FIELDS = (*MANY, *ONCE)
"""The fields of a query that choose jobs."""

LIMIT = 50
"""Jobs on a page."""

LIMIT_MAX = 500

UNBOUNDED = frozenset({"client", "q"})
"""Fields by which all jobs that match cannot be acted on, but only those that are ticked."""

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_SPAN_MAX_S = 100 * 366 * 86_400


@attrs.frozen(kw_only=True)
class JobFilter:
    """The filters and the order of a list, from the fields of a query.

    Attributes:
        fields: The fields that choose jobs, in order, as they were given.
        params: The same for the verbs.
    """

    fields: tuple[tuple[str, str], ...]
    params: JobListParams

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of the field `name`."""
        return tuple(value for key, value in self.fields if key == name)

    def without(self, *names: str) -> list[tuple[str, str]]:
        """Return the fields other than `names`."""
        return [(key, value) for key, value in self.fields if key not in names]

    def but(self, name: str, value: str) -> list[tuple[str, str]]:
        """Return the fields without one value of the field `name`."""
        return [pair for pair in self.fields if pair != (name, value)]

    @property
    def acts_on_all(self) -> bool:
        """Whether all jobs that match may be acted on at once. Without a filter they may not."""
        names = {key for key, _ in self.fields}
        return bool(names) and not names & UNBOUNDED

    @property
    def state(self) -> JobState | None:
        """The state, if the list is of one."""
        states = self.params.states or ()
        return states[0] if len(states) == 1 else None


def job_filter(query: Iterable[tuple[str, str]], *, now: datetime) -> JobFilter:
    """Return the filters of a query.

    Args:
        query: The fields of a query. Others than `FIELDS`, `order`, `after` and `limit` are
            left out.
        now: The time from which spans such as `since=2h` count.

    Raises:
        BadRequest: If a value cannot be used.
    """
    query = tuple(query)
    fields = tuple((key, value.strip()) for key, value in query if key in FIELDS and value.strip())
    many = {name: tuple(value for key, value in fields if key == name) for name in MANY}
    states = many["state"]
    options: dict[str, Any] = {
        "states": states or None,
        "kinds": many["kind"] or None,
        "queues": many["queue"] or None,
        "tags_all": many["tag"] or None,
        "priorities": [_int("priority", value) for value in many["priority"]] or None,
        "ids": [_int("id", value) for value in many["id"]] or None,
        "metadata": _object("meta", many["meta"]),
        "since": time_of("since", last(fields, "since"), now),
        "until": time_of("until", last(fields, "until"), now),
        "after": last(query, "after"),
        "limit": _limit(last(query, "limit")),
        "args": _object("arg", many["arg"]),
        "client": last(fields, "client"),
        "text": last(fields, "q"),
        # No index serves these, so a search for a rare one would read the whole table.
        "window": CLIENT_WINDOW if many["tag"] or many["priority"] else None,
        **_order(last(query, "order"), states),
    }
    try:
        return JobFilter(fields=fields, params=JobListParams(**options))
    except InvalidOption as error:
        raise BadRequest("filter", str(error)) from None


def _order(order: str | None, states: tuple[str, ...]) -> dict[str, Any]:
    final = {str(state) for state in FINAL_STATES}
    if order not in {None, "newest", "oldest", "time"}:
        raise BadRequest("filter", f"order={order}: expected newest, oldest or time")
    if order in {"newest", "oldest"} or not states:
        return {"order_by": JobOrder.id, "descending": order != "oldest"}
    if set(states) <= final:
        return {"order_by": JobOrder.finalized_at, "descending": True}
    if order == "time":
        return {"order_by": JobOrder.time}
    return {"order_by": JobOrder.id, "descending": True}


def _int(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 19:
        raise BadRequest("filter", f"{name}={value[:40]}: expected a number")
    return int(value)


def _limit(value: str | None) -> int:
    limit = LIMIT if value is None else _int("limit", value)
    if not 1 <= limit <= LIMIT_MAX:
        raise BadRequest("filter", f"limit={limit}: expected 1 to {LIMIT_MAX}")
    return limit


def _object(name: str, pairs: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the object that contains each `path:value`, such as `customer.id:7`."""
    found: dict[str, Any] = {}
    for pair in pairs:
        path, colon, text = pair.partition(":")
        keys = path.split(".")
        if not colon or not all(keys) or len(keys) > 20:
            raise BadRequest(
                "filter", f"{name}={pair[:80]}: expected path:value, such as customer.id:7"
            )
        place = found
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise BadRequest("filter", f"{name}={pair[:80]}: two values for one path")
        place[keys[-1]] = _value(text)
    return found or None


def _value(text: str) -> object:
    """Return JSON's value of a text; the text itself if it is none, so that quotes may be left out.

    A number that JSON reads differently stays exact: it is compared with what jsonb has stored.
    """
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        return text
    return value


def time_of(name: str, text: str | None, now: datetime, *, ahead: bool = False) -> datetime | None:
    """Return the time that a field means; None without one.

    Args:
        name: The field's name, for the error.
        text: A time, in UTC unless it has an offset, or a span such as 2h.
        now: The time from which a span counts.
        ahead: Whether a span counts into the future.

    Raises:
        BadRequest: If it is neither.
    """
    if text is None:
        return None
    try:
        number, unit = text[:-1], text[-1]
        if unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 12:
            span = timedelta(seconds=min(int(number) * _UNITS[unit], _SPAN_MAX_S))
            return now + span if ahead else now - span
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        expected = "expected a time such as 2026-03-01T12:00 (UTC), or a span such as 2h"
        raise BadRequest("filter", f"{name}={text[:40]}: {expected}") from None
