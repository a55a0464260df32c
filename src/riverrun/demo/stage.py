"""Keeps the demo running under a steady load, with failures, and shows it in the dashboard."""

import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NoReturn

import attrs

from riverrun.demo.browsers import Browsers, endless
from riverrun.demo.processes import Process
from riverrun.demo.settings import LINK
from riverrun.demo.story import WORK, Show, check_answers, ground, signals, start

CLICKS_PER_S = 3.0
TURN_S = 0.2
KILL_EVERY_S = 90.0


def run(*, database_url: str | None, show: Show) -> NoReturn:
    """Run the demo until a signal.

    Args:
        database_url: A PostgreSQL database to make a temporary schema in. Default: a temporary
            server.
        show: Called with lines that report progress.

    Raises:
        Interrupted: If SIGINT or SIGTERM arrived; everything is cleaned up.
        PartFailed: If a process of the demo failed.
        UnsupportedDatabase: If `database_url` is not a PostgreSQL URL.
        riverrun.embedded.PostgresNotFound: If there is no PostgreSQL.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(signals())
        settings = stack.enter_context(ground(database_url, stop, show))
        cast = start(attrs.evolve(settings, dashboard=True), stack, stop, show)

        def begin(name: str, *arguments: str) -> Process:
            own = attrs.evolve(cast.settings, name=name)
            return stack.enter_context(Process(own, arguments))

        pages = begin("pages", "-m", "riverrun.demo.pages")
        browsers = stack.enter_context(Browsers(endless(), cast.port, per_s=CLICKS_PER_S))
        numbers = count(len(cast.workers) + 1)
        kill_at = time.monotonic() + KILL_EVERY_S
        shown = ""
        while True:
            for process in (cast.world, cast.service, pages, *cast.workers):
                process.check()
            answers = [browsers.answers.pop(0) for _ in range(len(browsers.answers))]
            check_answers(answers, cast.service)
            link = _read(settings.path(LINK))
            if link != shown:
                text = "for another browser" if shown else "the dashboard, until Ctrl-C"
                show(f"{text}: {link}", False)
                shown = link
            if time.monotonic() > kill_at:
                # One that comes back with another name, as a container would.
                killed = cast.workers.pop(0)
                killed.kill_if(lambda: True)
                cast.workers.append(begin(f"worker-{next(numbers)}", *WORK))
                show(f"SIGKILL to {killed.name}; its jobs are rescued in half a minute", False)
                kill_at = time.monotonic() + KILL_EVERY_S
            stop.wait(TURN_S)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
