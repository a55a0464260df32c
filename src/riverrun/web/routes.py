"""Which function answers which address."""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from riverrun.web.errors import NotFound
from riverrun.web.page import Page
from riverrun.web.pages.actions import actions
from riverrun.web.pages.again import copy, do_copy, do_run_at, run_at
from riverrun.web.pages.clients import client, clients
from riverrun.web.pages.confirm import act, confirm, progress
from riverrun.web.pages.failures import failure, failures
from riverrun.web.pages.health import health
from riverrun.web.pages.job import job, part
from riverrun.web.pages.jobs import jobs
from riverrun.web.pages.kinds import kind, kinds
from riverrun.web.pages.overview import overview
from riverrun.web.pages.periodic import one_periodic, periodic
from riverrun.web.pages.queues import queue, queues
from riverrun.web.pages.rescues import rescues
from riverrun.web.pages.switch import confirm_switch, do_switch
from riverrun.web.preferences import prefer
from riverrun.web.request import Request
from riverrun.web.responses import Response

Handler: TypeAlias = Callable[..., Page | Response]
"""Takes a request, a Context and the names in the address."""

MENU = (
    ("overview", "/", "o"),
    ("jobs", "/jobs", "j"),
    ("failures", "/failures", "f"),
    ("queues", "/queues", "q"),
    ("kinds", "/kinds", "k"),
    ("clients", "/clients", "c"),
    ("periodic", "/periodic", "p"),
    ("rescues", "/rescues", "e"),
    ("actions", "/actions", "a"),
    ("health", "/health", "h"),
)
"""The pages of the menu: the name of each, its address, and the key that goes there after g."""

_GET: dict[str, Handler] = {
    "/": overview,
    "/overview": overview,
    "/actions": actions,
    "/clients": clients,
    "/clients/{name}": client,
    "/confirm": confirm,
    "/failures": failures,
    "/failures/{name}": failure,
    "/health": health,
    "/jobs": jobs,
    "/jobs/{job_id}": job,
    "/jobs/{job_id}/copy": copy,
    "/jobs/{job_id}/run_at": run_at,
    "/jobs/{job_id}/(?P<part>args|output|metadata|log)": part,
    "/kinds": kinds,
    "/kinds/{name}": kind,
    "/periodic": periodic,
    "/periodic/{name}": one_periodic,
    "/progress": progress,
    "/queues": queues,
    "/queues/{name}": queue,
    "/rescues": rescues,
    "/switch": confirm_switch,
}

_POST: dict[str, Handler] = {
    "/act": act,
    "/confirm": confirm,
    "/jobs/{job_id}/copy": do_copy,
    "/jobs/{job_id}/run_at": do_run_at,
    "/preferences": prefer,
    "/switch": do_switch,
}


def handler_of(request: Request) -> tuple[Handler, Mapping[str, str]]:
    """Return the function that answers a request, and the names in its address.

    Raises:
        NotFound: If there is none.
    """
    for pattern, handler in _PATTERNS[request.method]:
        if match := pattern.fullmatch(request.path):
            names = match.groupdict()
            if names.get("name") == "-":
                names["name"] = request.one("name") or "-"
            return handler, names
    raise NotFound(request.path)


def _pattern(path: str) -> re.Pattern[str]:
    # A name may have a slash in it, and a proxy may have decoded it.
    text = path.replace("{name}", "(?P<name>.+)").replace("{job_id}", r"(?P<job_id>\d{1,19})")
    return re.compile(text, re.DOTALL | re.ASCII)


_PATTERNS = {
    method: [(_pattern(path), handler) for path, handler in routes.items()]
    for method, routes in (("GET", _GET), ("POST", _POST))
}
