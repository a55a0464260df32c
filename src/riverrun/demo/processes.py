"""Processes of the demo: the story starts, watches and ends them; they report when ready."""

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
    """A part of the demo failed."""

    def __init__(self, name: str, problem: str, stderr: str) -> None:
        super().__init__(name, problem, stderr)

    def __str__(self) -> str:
        name, problem, stderr = self.args
        return f"{name} {problem}; its stderr ends:\n{stderr or '(nothing)'}"


class Process:
    """A process of the demo, in a session of its own, so that Ctrl-C reaches the story alone.

    Args:
        settings: The settings of the process, with its name.
        arguments: The arguments of Python.
    """

    def __init__(self, settings: Settings, arguments: Sequence[str]) -> None:
        self.name = settings.name
        self._ready = settings.path(f"{settings.name}.ready")
        self._stderr = settings.path(f"{settings.name}.stderr")
        self._terminated = False
        self.killed = False
        with self._stderr.open("wb") as stderr:
            self._popen = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments],
                env=settings.environment(),
                stdin=subprocess.PIPE,  # Closes when this process ends, for whatever reason.
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
        """End the process, by SIGKILL if SIGTERM has no effect, and wait for it."""
        try:
            self.terminate()
            self._popen.wait(STOP_TIMEOUT_S if kind is None else 5.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        finally:
            if self._popen.stdin is not None:
                self._popen.stdin.close()

    def terminate(self) -> None:
        """Send SIGTERM, once."""
        if not self._terminated:
            self._terminated = True
            self._popen.send_signal(signal.SIGTERM)

    def kill_if(self, condition: Callable[[], bool]) -> bool:
        """Stop the process, and kill it if `condition` holds meanwhile; return whether it did."""
        self._popen.send_signal(signal.SIGSTOP)
        holds = False
        try:
            holds = condition()
        finally:
            if not holds:  # Also if `condition` raised: a stopped process could not be ended.
                self._popen.send_signal(signal.SIGCONT)
        if not holds:
            return False
        self._popen.kill()
        self._popen.wait()
        self.killed = True
        return True

    def ready(self) -> list[int] | None:
        """Return the ports that the process listens on; None until it has reported them."""
        try:
            return [int(port) for port in self._ready.read_text().split()]
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """Raise if the process has ended by itself, or with an error.

        Raises:
            PartFailed: With the end of its stderr.
        """
        code = self._popen.poll()
        if not self.killed and code is not None and (code != 0 or not self._terminated):
            raise self.failed(f"ended with {code}")

    def join(self) -> None:
        """Wait until the process has ended, after `terminate`.

        Raises:
            PartFailed: If it does not end in time, or ends with an error.
        """
        try:
            self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {STOP_TIMEOUT_S:g} s of SIGTERM") from None
        self.check()

    def failed(self, problem: str) -> PartFailed:
        """Return an error with this problem and the end of the process's stderr."""
        lines = self._stderr.read_text(errors="replace").splitlines()
        return PartFailed(self.name, problem, "\n".join(lines[-TAIL_LINES:]))


def report_ready(settings: Settings, *ports: int) -> None:
    """Report to the story that this process is ready, and which ports it listens on."""
    place = settings.path(f"{settings.name}.ready")
    unfinished = place.with_suffix(".unready")
    unfinished.write_text(" ".join(map(str, ports)))
    unfinished.replace(place)  # Atomically, so that no half number is read.


def serve(server: BaseServer, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM; then answer the open requests, and return.

    Args:
        server: A server that listens already.
        on_ready: Called once requests are served and signals are handled.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    end_with_parent(0)
    thread = threading.Thread(target=server.serve_forever, name="server")
    thread.start()
    try:
        on_ready()
        stop.wait()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
