"""Several processes that work one client's queues: each started again when it dies."""

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from riverrun.cli import systemd
from riverrun.cli.app import CommandError, ExitCode
from riverrun.cli.signals import Signals
from riverrun.runtime.parent import end_with_parent

logger = logging.getLogger(__name__)

SUPERVISED = "RIVERRUN_SUPERVISED"
"""Names, in a child's environment, its number and the file descriptor that ties it to us."""

LONGEST_PAUSE_S = 10.0
STEADY_S = 10.0
KILL_AFTER_S = 30.0


def supervised() -> int | None:
    """Return this process's number among its siblings, 0 upwards; None if it has no supervisor."""
    said = os.environ.get(SUPERVISED)
    return None if said is None else int(said.partition(":")[0])


def say_ready() -> None:
    """Tell the supervisor that jobs are worked; from now on this process ends when it is gone."""
    fd = int(os.environ[SUPERVISED].partition(":")[2])
    os.set_inheritable(fd, False)  # processes that workers start must not keep us from it
    os.write(fd, b"R")
    end_with_parent(fd)


class Child:
    """One process, started anew whenever it has died.

    Args:
        number: Its number among its siblings.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.next_start = 0.0  # when it may be started, by the monotonic clock
        self._pause_s = 0.25
        self._began = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._tie: socket.socket | None = None

    def start(self) -> None:
        """Start it: the command that this process was started with, once more."""
        ours, theirs = socket.socketpair()
        with theirs:
            environment: Mapping[str, str] = {
                **os.environ,
                SUPERVISED: f"{self.number}:{theirs.fileno()}",
            }
            self._popen = subprocess.Popen(  # noqa: S603  our own command line
                [sys.executable, *sys.orig_argv[1:]],
                env=environment,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for us; we tell it once, by SIGTERM.
                start_new_session=True,
            )
        self._tie, self.ready, self._began = ours, False, time.monotonic()

    @property
    def tie(self) -> socket.socket | None:
        """Becomes readable when it is ready, and when it has died; None while there is none."""
        return self._tie

    def hear(self) -> int | None:
        """Take what it says; return its exit code if it has died."""
        assert self._tie is not None  # noqa: S101  heard only while there is one
        if self._tie.recv(1):
            self.ready = True
            return None
        self._tie.close()
        self._tie = None
        assert self._popen is not None  # noqa: S101  started together
        code = self._popen.wait()
        now = time.monotonic()
        steady = now - self._began > STEADY_S
        self._pause_s = 0.25 if steady else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self.next_start = now + self._pause_s
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(number)


class Supervisor:
    """Keeps `count` processes at work until a signal says stop.

    Args:
        count: How many.
        stop_timeout: Seconds that their running jobs have to end.
        reload: Whether to start them anew whenever a Python file below the current folder changes.
    """

    def __init__(self, count: int, *, stop_timeout: float, reload: bool) -> None:
        self._children = [Child(number) for number in range(count)]
        self._stop_timeout = stop_timeout
        self._watcher = _Watcher() if reload else None
        self._was_ready = False

    def run(self) -> ExitCode:
        """Supervise; return with what code to end."""
        signals = Signals()
        if self._watcher is not None:
            self._watcher.start()
        try:
            return self._run(signals)
        finally:
            if self._watcher is not None:
                self._watcher.stop()
            for child in self._children:
                child.send(signal.SIGKILL)

    def _run(self, signals: Signals) -> ExitCode:
        while True:
            now = time.monotonic()
            for child in self._children:
                if child.tie is None and child.next_start <= now:
                    child.start()
            due = [child.next_start - now for child in self._children if child.tie is None]
            for child, code in self._hear(signals, min(due, default=None)):
                if self._fatal(child, code):
                    self._stop(signals)
                    return ExitCode(code)
                pause_s = max(0.0, child.next_start - time.monotonic())
                logger.error(
                    "process %s ended with %s; again in %.1f s", child.number, code, pause_s
                )
            if signals.count:
                systemd.notify("STOPPING=1")
                return self._stop(signals)
            if self._watcher is not None and self._watcher.changed.is_set():
                self._watcher.changed.clear()
                logger.info("a file has changed: starting anew")
                ended = self._restart(signals)
                if ended is not None:
                    return ended
            if not self._was_ready and all(child.ready for child in self._children):
                self._was_ready = True
                systemd.notify("READY=1")
                logger.info("%s processes work", len(self._children))
            systemd.notify("WATCHDOG=1")

    def _restart(self, signals: Signals) -> ExitCode | None:
        """Stop all, to be started anew; return how to end if a signal came meanwhile."""
        code = self._stop(signals)
        for child in self._children:
            child.next_start = 0.0
        return code if signals.count else None

    def _fatal(self, child: Child, code: int) -> bool:
        """Return whether it is of no use to start `child` again: none of them ever was ready."""
        hopeless = {ExitCode.usage, ExitCode.unreachable, ExitCode.schema_behind}
        return not self._was_ready and not child.ready and code in hopeless

    def _hear(self, signals: Signals, timeout: float | None) -> list[tuple[Child, int]]:
        """Wait for news, at most so many seconds; return who has died, and how."""
        limits = [each for each in (timeout, systemd.watchdog_s()) if each is not None]
        ties = {child.tie.fileno(): child for child in self._children if child.tie is not None}
        watched = [signals.fileno(), *ties]
        if self._watcher is not None:
            watched.append(self._watcher.fileno())
        ready, _, _ = select.select(watched, [], [], max(0.0, min(limits)) if limits else None)
        signals.wait(0)
        if self._watcher is not None:
            self._watcher.take()
        heard = [(ties[fd], ties[fd].hear()) for fd in ready if fd in ties]
        return [(child, code) for child, code in heard if code is not None]

    def _stop(self, signals: Signals) -> ExitCode:
        """Tell all to end, and wait until they have; a further signal hurries them."""
        told = 1
        worst = ExitCode.ok
        for child in self._children:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_timeout + KILL_AFTER_S
        while any(child.tie is not None for child in self._children):
            for child, code in self._hear(signals, max(0.0, deadline - time.monotonic())):
                # Before and after its handlers are there SIGTERM ends it, and cuts nothing off.
                if code not in {0, -signal.SIGTERM}:
                    logger.error("process %s ended with %s", child.number, code)
                    worst = ExitCode.cut_off
            if signals.count > told:
                told = signals.count
                for child in self._children:
                    child.send(signal.SIGTERM)
            if time.monotonic() >= deadline:
                for child in self._children:
                    child.send(signal.SIGKILL)
        if worst is ExitCode.ok and signals.count > 1 and signals.last is signal.SIGINT:
            return ExitCode.interrupted
        return worst


class _Watcher:
    """Notices changed Python files; readable, for `select`, when there are any."""

    def __init__(self) -> None:
        try:
            import watchfiles
        except ImportError as error:
            problem = "--reload needs watchfiles: pip install 'riverrun[reload]'"
            raise CommandError(problem, ExitCode.usage) from error
        self.changed = threading.Event()
        self._stop = threading.Event()
        self._told, self._tell = os.pipe()
        os.set_blocking(self._told, False)
        changes = watchfiles.watch(
            os.getcwd(),
            watch_filter=watchfiles.PythonFilter(),
            stop_event=self._stop,
            raise_interrupt=False,
        )

        def run() -> None:
            for _ in changes:
                self.changed.set()
                os.write(self._tell, b"C")

        self._thread = threading.Thread(target=run, name="riverrun.reload")

    def fileno(self) -> int:
        return self._told

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._told, 4096)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
