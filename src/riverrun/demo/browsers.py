"""The people who sign up: a plan of clicks, and threads that send them at a steady rate."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterable, Iterator
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
    return [click for n in range(1, signups + 1) for click in clicks_of(n)]


def endless() -> Iterator[Click]:
    """Yield the clicks of one person after another."""
    return (click for n in itertools.count(1) for click in clicks_of(n))


def clicks_of(n: int) -> list[Click]:
    """Return the clicks of the person with this number."""
    team = RESERVED_TEAM if n % REFUSED_EVERY == 0 else f"team-{n}"
    click = Click(email=f"user{n}@example.com", name=f"User {n}", team=team)
    return [click] * (2 if n % DOUBLE_EVERY == 5 else 1)


class Browsers:
    """Threads that send clicks at a steady rate, without waiting for earlier answers.

    Args:
        clicks: The clicks, in order.
        port: The port of the service.
        per_s: How many are sent in a second.
    """

    def __init__(self, clicks: Iterable[Click], port: int, per_s: float = CLICKS_PER_S) -> None:
        self.answers: list[Answer] = []  # its methods are atomic
        self._clicks = enumerate(clicks)
        self._lock = threading.Lock()  # guards _clicks
        self._port = port
        self._per_s = per_s
        self._stopping = threading.Event()
        self._start_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"browser-{n}") for n in range(THREADS)
        ]

    @property
    def done(self) -> bool:
        """Whether all clicks are answered."""
        return not any(thread.is_alive() for thread in self._threads)

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
        while (following := self._take()) is not None:
            n, click = following
            due_s = self._start_s + n / self._per_s
            if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                return
            self.answers.append(send(click, self._port))

    def _take(self) -> tuple[int, Click] | None:
        with self._lock:
            return next(self._clicks, None)


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
