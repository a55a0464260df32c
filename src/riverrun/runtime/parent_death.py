"""Ends this process when the process that started it is gone."""

import contextlib
import os
import signal
import threading


def end_with_parent(fd: int) -> None:
    """Send SIGTERM to this process as soon as no process holds the other end of `fd`.

    The operating system closes that end even if the parent was killed.
    """

    def watch() -> None:
        # A socket whose other end was closed with data unread raises an error instead of ending.
        with contextlib.suppress(ConnectionError):
            # Not a file object: its lock, held by a daemon thread, would be fatal at the
            # interpreter's exit.
            while os.read(fd, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="riverrun.parent", daemon=True).start()
