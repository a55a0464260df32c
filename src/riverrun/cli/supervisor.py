"""`riverrun work --processes`: runs several worker processes, and restarts those that die."""

import contextlib
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
from riverrun.logs.loggers import logger_of
from riverrun.runtime.parent_death import end_with_parent

logger = logger_of(__name__)

SUPERVISED = "RIVERRUN_SUPERVISED"
"""The variable in a child's environment that holds its number and its end of the tie."""

LONGEST_PAUSE_S = 10.0
"""Longest pause before a child that died is started again, in seconds."""

STEADY_S = 10.0
"""A child that lived for longer than these seconds is started again without a growing pause."""

KILL_AFTER_S = 30.0
"""Seconds after the stop timeout at which children that still run are killed."""


@attrs.frozen
class Tie:
    """A child's end of the socket pair that it shares with its supervisor.

    Attributes:
        number: The child's number among its siblings, from 0.
        fd: The file descriptor of its socket.
    """

    number: int
    fd: int

    def fileno(self) -> int:
        """Return `fd`."""
        return self.fd

    def report_ready(self) -> None:
        """Report to the supervisor that this process works jobs."""
        with contextlib.suppress(OSError):  # The supervisor is gone, which ends us anyway.
            os.write(self.fd, b"R")


def supervised() -> Tie | None:
    """Return the tie to this process's supervisor, or None without one.

    From then on, this process ends when its supervisor does.
    """
    # Removed from the environment: processes that workers start are not the supervisor's children.
    value = os.environ.pop(SUPERVISED, None)
    if value is None:
        return None
    number, _, fd = value.partition(":")
    tie = Tie(int(number), int(fd))
    os.set_inheritable(tie.fd, False)
    close_in_child(tie)
    end_with_parent(tie.fd)
    return tie


class Child:
    """One worker process, which is started again whenever it has died.

    Args:
        number: Its number among its siblings, from 0.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self._began = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._tie: socket.socket | None = None
        self.at_once()

    def at_once(self) -> None:
        """Allow the next start at once, as if the process had never died."""
        self.next_start = 0.0  # earliest start, by the monotonic clock
        self._pause_s = 0.25

    def start(self) -> None:
        """Start the process, with the command line of this process."""
        ours, theirs = socket.socketpair()
        with theirs:
            # Only the supervisor talks to systemd.
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
                # Ctrl-C must reach the supervisor alone; it sends each child one SIGTERM.
                start_new_session=True,
            )
        self._tie, self.ready, self._began = ours, False, time.monotonic()

    @property
    def lives(self) -> bool:
        """Whether it was started, and `exit_code` has not yet reported its end."""
        return self._popen is not None

    @property
    def tie(self) -> socket.socket | None:
        """Our end of the tie: readable when the process has news; None once it is closed."""
        return self._tie

    def read_tie(self) -> None:
        """Read news of the process: it is ready, or it has closed its end."""
        assert self._tie is not None  # noqa: S101  only called for a readable tie
        if self._tie.recv(1):
            self.ready = True
        else:
            self._tie.close()
            self._tie = None

    def exit_code(self) -> int | None:
        """Return the exit code if the process has died since the last call; else None."""
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
        """Send the process a signal, if it lives."""
        if self._popen is not None:
            self._popen.send_signal(number)


class Supervisor:
    """Keeps `count` worker processes running until a signal asks to stop.

    Args:
        count: How many processes.
        stop_timeout: Seconds that running jobs have to end after that signal.
        reload: Whether to restart them when a Python file below the current folder changes.
    """

    def __init__(self, count: int, *, stop_timeout: float, reload: bool) -> None:
        self._children = [Child(number) for number in range(count)]
        self._stop_timeout = stop_timeout
        self._watcher = _Watcher() if reload else None
        self._was_ready = False
        self._signals = Signals()

    def run(self) -> ExitCode:
        """Supervise the processes; return the exit code for this process."""
        # The handler does nothing, but the signal ends our wait when a child dies, even if another
        # process still holds the child's end of the tie.
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
            for child, code in self._wait(min(due, default=None)):
                if self._hopeless(child, code):
                    self._stop()
                    return ExitCode(code)
                pause_s = max(0.0, child.next_start - time.monotonic())
                logger.error(
                    "process %s exited with %s; starting it again in %.1f s",
                    child.number,
                    code,
                    pause_s,
                )
            if self._signals.count:
                return self._stop()
            if self._watcher is not None and self._watcher.changed.is_set():
                self._watcher.changed.clear()
                logger.info("a file has changed: restarting")
                code = self._stop(for_good=False)
                if self._signals.wait(0):
                    return code
                for child in self._children:
                    child.at_once()
            if not self._was_ready and all(child.ready for child in self._children):
                self._was_ready = True
                systemd.notify("READY=1")
                logger.info("all %s processes are working", len(self._children))

    def _hopeless(self, child: Child, code: int) -> bool:
        """Return whether starting `child` again cannot help.

        That is so if no process was ever ready, and this one exited for a lasting reason.
        """
        reasons = {ExitCode.usage, ExitCode.unreachable, ExitCode.schema_behind}
        return not self._was_ready and not child.ready and code in reasons

    def _wait(self, timeout: float | None) -> list[tuple[Child, int]]:
        """Wait up to `timeout` seconds for an event; return children that died, with exit codes."""
        systemd.alive()
        limits = [limit for limit in (timeout, systemd.watchdog_s()) if limit is not None]
        ties = {child.tie.fileno(): child for child in self._children if child.tie is not None}
        watched = [self._signals.fileno(), *ties]
        if self._watcher is not None:
            watched.append(self._watcher.fileno())
        ready, _, _ = select.select(watched, [], [], max(0.0, min(limits)) if limits else None)
        self._signals.wait(0)
        if self._watcher is not None:
            self._watcher.drain()
        for fd in ready:
            if fd in ties:
                ties[fd].read_tie()
        codes = [(child, child.exit_code()) for child in self._children]
        return [(child, code) for child, code in codes if code is not None]

    def _stop(self, *, for_good: bool = True) -> ExitCode:
        """Send all children SIGTERM, and wait for their end; a second signal makes it SIGQUIT."""
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
            for child, code in self._wait(left_s if left_s > 0 else None):
                # A child without its handlers yet dies of the signal, and has no jobs to cut off.
                if code not in {0, -signal.SIGTERM, -signal.SIGQUIT}:
                    logger.error("process %s exited with %s", child.number, code)
                    worst = ExitCode.cut_off
        if worst is ExitCode.ok and hurried and self._signals.last is signal.SIGINT:
            return ExitCode.interrupted
        return worst

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)


class _Watcher:
    """Watches for changed Python files; readable, for `select`, once one has changed."""

    def __init__(self) -> None:
        try:
            import watchfiles
        except ImportError as error:
            problem = "--reload needs watchfiles: pip install 'riverrun[reload]'"
            raise CommandError(problem, ExitCode.usage) from error
        self.changed = threading.Event()
        self._stop = threading.Event()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        changes = watchfiles.watch(
            os.getcwd(),
            watch_filter=watchfiles.PythonFilter(),
            stop_event=self._stop,
            raise_interrupt=False,
        )

        def run() -> None:
            for _ in changes:
                self.changed.set()
                os.write(self._writer, b"C")

        self._thread = threading.Thread(target=run, name="riverrun.reload")

    def fileno(self) -> int:
        return self._reader

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
