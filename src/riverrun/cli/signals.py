"""Signals: counted, and what waits for one is woken."""

import os
import select
import signal

import attrs

from riverrun.db.forks import close_in_child, ignore

STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


@attrs.frozen(eq=False)
class _End:
    """An end of a pipe."""

    fd: int

    def fileno(self) -> int:
        return self.fd


class Signals:
    """SIGTERM, SIGINT and SIGQUIT, counted as they are read from a pipe.

    The interpreter writes the number of each signal to the pipe as it comes. The handlers do
    nothing: psycopg's commit is Python code, which an exception out of a handler could cut in two.
    SIGQUIT means at once, as a second signal does. An application's own signals, such as a handler
    of SIGUSR1, come through it too, and are none of ours.
    In a child that a worker forks the signals do what they did before.

    Attributes:
        count: How many came, as far as was read by `wait`.
        last: The last of them.
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
        """Return what becomes readable when a signal came, for `select`."""
        return self._reader.fd

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a signal, one of an application's own too; return whether one says stop.

        Once one has said so there is nothing to wait for.

        Args:
            timeout: Seconds; for ever if None.
        """
        ready, _, _ = select.select([self._reader], [], [], 0 if self.count else timeout)
        if ready:
            for number in os.read(self._reader.fd, 4096):
                if number in STOPS:
                    self.last = signal.Signals(number)
                    self.count += 2 if number == signal.SIGQUIT else 1
        return self.count > 0
