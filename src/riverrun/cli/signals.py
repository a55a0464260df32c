"""Signals: a handler only counts, and what waits is woken by a pipe."""

import os
import select
import signal
from types import FrameType


class Signals:
    """SIGTERM, SIGINT and SIGQUIT, counted; a handler only counts, and never raises.

    psycopg's commit is Python code: an exception out of a handler could cut it in two. An Event's
    lock may be held by the very code that the handler interrupts. And a handler runs only once the
    main thread is back in Python; so what ends its wait is a byte that the interpreter itself
    writes to a pipe when the signal comes. SIGQUIT means at once, as a second signal does.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGTERM
        self._told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._handle)

    def fileno(self) -> int:
        """Return what becomes readable when a signal came, for `select`."""
        return self._told

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a signal that was not waited for yet; return whether one came.

        Args:
            timeout: Seconds; for ever if None.
        """
        ready, _, _ = select.select([self._told], [], [], timeout)
        if ready:
            os.read(self._told, 1)
        return bool(ready)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.count += 2 if number == signal.SIGQUIT else 1
        self.last = signal.Signals(number)
