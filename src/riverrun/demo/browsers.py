"""The people who sign up: a plan of clicks, and threads that send them at a steady rate."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Sequence
from typing import Self

import attrs

from riverrun.demo.signup import RESERVED_TEAM

CLICKS_PER_S = 70.0
THREADS = 8
REFUSED_EVERY = 10
DOUBLE_EVERY = 12
TIMEOUT_S = 30.0


@attrs.frozen(kw_only=True)
class Click:
    """One request to sign up."""

    email: str
    name: str
    team: str

    @property
    def refused(self) -> bool:
        """Whether the service will refuse it, at the end of its transaction."""
        return self.team == RESERVED_TEAM


@attrs.frozen(kw_only=True)
class Answer:
    """The answer to a click.

    Attributes:
        email: The user's e-mail address.
        status: The HTTP status; 0 if there was no answer.
        ms: How long the answer took, in milliseconds.
        problem: The error, if there was no answer.
    """

    email: str
    status: int
    ms: float
    problem: str = ""


def plan(signups: int) -> list[Click]:
    """Return the clicks of `signups` people: one in ten is refused, one in twelve clicks twice."""
    clicks = []
    for n in range(1, signups + 1):
        team = RESERVED_TEAM if n % REFUSED_EVERY == 0 else f"team-{n}"
        click = Click(email=f"user{n}@example.com", name=f"User {n}", team=team)
        clicks += [click] * (2 if n % DOUBLE_EVERY == 5 else 1)
    return clicks


class Browsers:
    """Threads that send clicks at a steady rate, without waiting for earlier answers.

    Args:
        clicks: The clicks, in order.
        port: The port of the service.
    """

    def __init__(self, clicks: Sequence[Click], port: int) -> None:
        self.answers: list[Answer] = []  # list.append is atomic
        self._clicks = clicks
        self._next = itertools.count()  # its next() is atomic too
        self._port = port
        self._stopping = threading.Event()
        self._start_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"browser-{n}") for n in range(THREADS)
        ]

    @property
    def done(self) -> bool:
        """Whether all clicks are answered."""
        return len(self.answers) == len(self._clicks)

    def __enter__(self) -> Self:
        self._start_s = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (n := next(self._next)) < len(self._clicks):
            due_s = self._start_s + n / CLICKS_PER_S
            if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                return
            self.answers.append(send(self._clicks[n], self._port))


def send(click: Click, port: int) -> Answer:
    """Send a click and return the answer."""
    start_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    status, problem = 0, ""
    try:
        body = json.dumps(attrs.asdict(click))
        connection.request("POST", "/signup", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except (OSError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    ms = (time.monotonic() - start_s) * 1000
    return Answer(email=click.email, status=status, ms=ms, problem=problem)
