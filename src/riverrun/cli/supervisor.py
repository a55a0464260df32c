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

import attrs

from riverrun.cli import systemd
from riverrun.cli.app import CommandError, ExitCode
from riverrun.cli.signals import Signals
from riverrun.db.forks import close_in_child
from riverrun.runtime.parent_death import end_with_parent

logger = logging.getLogger(__name__)

SUPERVISED = "RIVERRUN_SUPERVISED"
"""Names, in a child's environment, its number and the file descriptor that ties it to us."""

LONGEST_PAUSE_S = 10.0
STEADY_S = 10.0
KILL_AFTER_S = 30.0


@attrs.frozen
class Tie:
    """What ties a process to its supervisor.

    Attributes:
        number: The process's number among its siblings, 0 upwards.
        fd: A socket that the supervisor has the other end of.
    """

    number: int
    fd: int

    def fileno(self) -> int:
        """Return `fd`."""
        return self.fd

    def say_ready(self) -> None:
        """Tell the supervisor that jobs are worked."""
        with contextlib.suppress(OSError):  # it is gone, which ends us anyway
            os.write(self.fd, b"R")


def supervised() -> Tie | None:
    """Return what ties this process to its supervisor, whose end is its own; None without one."""
    # Taken: what workers start is no child of the supervisor's.
    said = os.environ.pop(SUPERVISED, None)
    if said is None:
        return None
    number, _, fd = said.partition(":")
    tie = Tie(int(number), int(fd))
    os.set_inheritable(tie.fd, False)
    close_in_child(tie)
    end_with_parent(tie.fd)
    return tie


class Child:
    """One process, started anew whenever it has died.

    Args:
        number: Its number among its siblings.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self._began = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._tie: socket.socket | None = None
        self.at_once()

    def at_once(self) -> None:
        """Let it be started at once, as if it had never died."""
        self.next_start = 0.0  # when it may be started, by the monotonic clock
        self._pause_s = 0.25

    def start(self) -> None:
        """Start it: the command that this process was started with, once more."""
        ours, theirs = socket.socketpair()
        with theirs:
            # It is this process that speaks to systemd.
            environment = {
                name: value
                for name, value in os.environ.items()
                if name not in {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
            }
            environment[SUPERVISED] = f"{self.number}:{theirs.fileno()}"
            self._popen = subprocess.Popen(  # noqa: S603  our own command line
                [sys.executable, *sys.orig_argv[1:]],
                env=environment,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for us; we tell it once, by SIGTERM.
                start_new_session=True,
            )
        self._tie, self.ready, self._began = ours, False, time.monotonic()

    @property
    def lives(self) -> bool:
        """Whether it was started, and its end was not yet told."""
        return self._popen is not None

    @property
    def tie(self) -> socket.socket | None:
        """Becomes readable when it is ready; None when nothing more will be said."""
        return self._tie

    def hear(self) -> None:
        """Take what it says."""
        assert self._tie is not None  # noqa: S101  heard only while there is one
        if self._tie.recv(1):
            self.ready = True
        else:
            self._tie.close()
            self._tie = None

    def ended(self) -> int | None:
        """Return its exit code if it has died, once."""
        code = None if self._popen is None else self._popen.poll()
        if code is None:
            return None
        self._popen = None
        if self._tie is not None:
            self._tie.close()
            self._tie = None
        now = time.monotonic()
        steady = now - self._began > STEADY_S
        self._pause_s = 0.25 if steady else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self.next_start = now + self._pause_s
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self._popen is not None:
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
        self._signals = Signals()

    def run(self) -> ExitCode:
        """Supervise; return with what code to end."""
        # Its only use: the end of a child ends our wait, whoever still holds its tie.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if self._watcher is not None:
            self._watcher.start()
        try:
            return self._run()
        finally:
            if self._watcher is not None:
                self._watcher.stop()
            self._send(signal.SIGKILL)

    def _run(self) -> ExitCode:
        while True:
            now = time.monotonic()
            for child in self._children:
                if not child.lives and child.next_start <= now:
                    child.start()
            due = [child.next_start - now for child in self._children if not child.lives]
            for child, code in self._hear(min(due, default=None)):
                if self._hopeless(child, code):
                    self._stop()
                    return ExitCode(code)
                pause_s = max(0.0, child.next_start - time.monotonic())
                logger.error(
                    "process %s ended with %s; again in %.1f s", child.number, code, pause_s
                )
            if self._signals.count:
                return self._stop()
            if self._watcher is not None and self._watcher.changed.is_set():
                self._watcher.changed.clear()
                logger.info("a file has changed: starting anew")
                code = self._stop(for_good=False)
                if self._signals.wait(0):
                    return code
                for child in self._children:
                    child.at_once()
            if not self._was_ready and all(child.ready for child in self._children):
                self._was_ready = True
                systemd.notify("READY=1")
                logger.info("%s processes work", len(self._children))

    def _hopeless(self, child: Child, code: int) -> bool:
        """Return whether it is of no use to start `child` again: none of them ever was ready."""
        reasons = {ExitCode.usage, ExitCode.unreachable, ExitCode.schema_behind}
        return not self._was_ready and not child.ready and code in reasons

    def _hear(self, timeout: float | None) -> list[tuple[Child, int]]:
        """Wait for news, at most so many seconds; return who has died, and how."""
        systemd.alive()
        limits = [each for each in (timeout, systemd.watchdog_s()) if each is not None]
        ties = {child.tie.fileno(): child for child in self._children if child.tie is not None}
        watched = [self._signals.fileno(), *ties]
        if self._watcher is not None:
            watched.append(self._watcher.fileno())
        ready, _, _ = select.select(watched, [], [], max(0.0, min(limits)) if limits else None)
        self._signals.wait(0)
        if self._watcher is not None:
            self._watcher.take()
        for fd in ready:
            if fd in ties:
                ties[fd].hear()
        ended = [(child, child.ended()) for child in self._children]
        return [(child, code) for child, code in ended if code is not None]

    def _stop(self, *, for_good: bool = True) -> ExitCode:
        """Tell all to end, and wait until they have; a second signal hurries them."""
        if for_good:
            systemd.notify("STOPPING=1")
        hurried = False
        worst = ExitCode.ok
        deadline = time.monotonic() + self._stop_timeout + KILL_AFTER_S
        self._send(signal.SIGTERM)
        while any(child.lives for child in self._children):
            if self._signals.count > 1 and not hurried:
                hurried = True
                self._send(signal.SIGQUIT)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._send(signal.SIGKILL)
            for child, code in self._hear(left_s if left_s > 0 else None):
                # Until its handlers are there SIGTERM ends it, or SIGQUIT, and cuts nothing off.
                if code not in {0, -signal.SIGTERM, -signal.SIGQUIT}:
                    logger.error("process %s ended with %s", child.number, code)
                    worst = ExitCode.cut_off
        if worst is ExitCode.ok and hurried and self._signals.last is signal.SIGINT:
            return ExitCode.interrupted
        return worst

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)


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
