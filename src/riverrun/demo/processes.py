"""Processes that start, are watched and surely end: the story's hold on them, and their side."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from socketserver import BaseServer
from types import TracebackType
from typing import Self

from riverrun.demo.settings import Settings
from riverrun.runtime.parent_death import end_with_parent

STOP_TIMEOUT_S = 20.0
TAIL_LINES = 20


class PartFailed(Exception):
    """A part of the demo did not do what it should."""

    def __init__(self, name: str, problem: str, said: str) -> None:
        super().__init__(name, problem, said)

    def __str__(self) -> str:
        name, problem, said = self.args
        return f"{name} {problem}; its stderr ends:\n{said or '(nothing)'}"


class Process:
    """A process of the demo, in a session of its own: Ctrl-C is for the story, which ends it.

    Args:
        settings: What it is told; their `name` is its name.
        arguments: What Python runs.
    """

    def __init__(self, settings: Settings, arguments: Sequence[str]) -> None:
        self.name = settings.name
        self._ready = settings.path(f"{settings.name}.ready")
        self._stderr = settings.path(f"{settings.name}.stderr")
        self._told_to_end = False
        self.killed = False
        with self._stderr.open("wb") as stderr:
            self._popen = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments],
                env=settings.environment(),
                stdin=subprocess.PIPE,  # Closed when we are gone, however that comes about.
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, by force if it does not listen, and wait until it has."""
        try:
            self.tell_to_end()
            self._popen.wait(STOP_TIMEOUT_S if kind is None else 5.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        finally:
            if self._popen.stdin is not None:
                self._popen.stdin.close()

    def tell_to_end(self) -> None:
        """Send SIGTERM, once."""
        if not self._told_to_end:
            self._told_to_end = True
            self._popen.send_signal(signal.SIGTERM)

    def kill_if(self, condition: Callable[[], bool]) -> bool:
        """Kill it if `condition` holds while it stands still; return whether it did."""
        self._popen.send_signal(signal.SIGSTOP)
        holds = False
        try:
            holds = condition()
        finally:
            if not holds:  # or was not to be had: a process that stands still could not be ended
                self._popen.send_signal(signal.SIGCONT)
        if not holds:
            return False
        self._popen.kill()
        self._popen.wait()
        self.killed = True
        return True

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None

    def ready(self) -> list[int] | None:
        """Return the ports it listens on; None while it has not said."""
        try:
            return [int(port) for port in self._ready.read_text().split()]
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """Raise if it has ended without being told to, or not as it should.

        Raises:
            PartFailed: With what it said last.
        """
        code = self._popen.poll()
        if not self.killed and code is not None and (code != 0 or not self._told_to_end):
            raise self.failed(f"ended with {code}")

    def join(self) -> None:
        """Wait until it has ended, as it was told to.

        Raises:
            PartFailed: If it does not, or says that something went wrong.
        """
        try:
            self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {STOP_TIMEOUT_S:g} s of SIGTERM") from None
        self.check()

    def failed(self, problem: str) -> PartFailed:
        """Return an error that says so, with the tail of its stderr."""
        lines = self._stderr.read_text(errors="replace").splitlines()
        return PartFailed(self.name, problem, "\n".join(lines[-TAIL_LINES:]))


def say_ready(settings: Settings, *ports: int) -> None:
    """Tell the story, from within a process, which ports it listens on."""
    place = settings.path(f"{settings.name}.ready")
    unfinished = place.with_suffix(".unready")
    unfinished.write_text(" ".join(map(str, ports)))
    unfinished.replace(place)  # Or half a number might be read.


def serve(server: BaseServer, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM; answer then what was asked, and return.

    Args:
        server: Bound and listening.
        on_ready: Called when requests and signals are heard.
    """
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    end_with_parent(0)
    thread = threading.Thread(target=server.serve_forever, name="server")
    thread.start()
    try:
        on_ready()
        told_to_end.wait()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
