"""Counts the signals that ask a process to stop, and wakes the main thread for them."""

import os
import select
import signal

import attrs

from riverrun.db.forks import close_in_child, ignore

STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


@attrs.frozen(eq=False)
class _End:
    """One end of a pipe."""

    fd: int

    def fileno(self) -> int:
        return self.fd


class Signals:
    """A count of SIGTERM, SIGINT and SIGQUIT, read from a pipe.

    The interpreter writes the number of each signal that arrives to the pipe. The handlers
    themselves do nothing: psycopg's commit is Python code, and an exception from a handler could
    interrupt it halfway. SIGQUIT means "stop at once", as a second signal does, so it counts twice.
    The application's own signals, such as a SIGUSR1 that it handles, arrive in the same pipe and
    are skipped. In a child that a worker forks, signals do what they did before.

    Attributes:
        count: How many stop signals `wait` has read.
        last: The last one of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGTERM
        ends = os.pipe()
        for fd in ends:
            os.set_blocking(fd, False)
        self._reader, self._writer = map(_End, ends)
        close_in_child(self._reader, self._writer)
        signal.set_wakeup_fd(self._writer.fd)
        ignore(STOPS)

    def fileno(self) -> int:
        """Return the file descriptor that is readable once a signal has arrived, for `select`."""
        return self._reader.fd

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for any signal; return whether a stop signal has arrived so far.

        It returns for the application's own signals too. After a stop signal it never waits.

        Args:
            timeout: Seconds to wait at most; None for no limit.
        """
        ready, _, _ = select.select([self._reader], [], [], 0 if self.count else timeout)
        if ready:
            for number in os.read(self._reader.fd, 4096):
                if number in STOPS:
                    self.last = signal.Signals(number)
                    self.count += 2 if number == signal.SIGQUIT else 1
        return self.count > 0
