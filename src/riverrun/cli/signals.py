"""Signals: counted, and what waits for one is woken."""

import os
import select
import signal

STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


class Signals:
    """SIGTERM, SIGINT and SIGQUIT, counted as they are read from a pipe.

    The interpreter writes the number of each signal to the pipe as it comes. The handlers do
    nothing: psycopg's commit is Python code, which an exception out of a handler could cut in two.
    SIGQUIT means at once, as a second signal does. An application's own signals, such as a handler
    of SIGUSR1, come through the pipe too, and are none of ours.

    Attributes:
        count: How many came, as far as was read by `wait`.
        last: The last of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGTERM
        self._told, tell = os.pipe()
        os.set_blocking(self._told, False)
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        for number in STOPS:
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """Return what becomes readable when a signal came, for `select`."""
        return self._told

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a signal, one of an application's own too; return whether one says stop.

        Once one has said so there is nothing to wait for.

        Args:
            timeout: Seconds; for ever if None.
        """
        ready, _, _ = select.select([self._told], [], [], 0 if self.count else timeout)
        if ready:
            for number in os.read(self._told, 4096):
                if number in STOPS:
                    self.last = signal.Signals(number)
                    self.count += 2 if number == signal.SIGQUIT else 1
        return self.count > 0
