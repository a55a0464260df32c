"""The process that started this one, and what becomes of this one when it is gone."""

import contextlib
import os
import signal
import threading


def end_with_parent(fd: int) -> None:
    """Have this process told to end, by SIGTERM, as soon as nobody holds the other end of `fd`.

    Even a parent that was killed lets go of it.
    """

    def watch() -> None:
        # Of a socket whose other end was let go with something unread, the end is an error.
        with contextlib.suppress(ConnectionError):
            # Not a file object: its lock, held by a daemon, would be fatal to the interpreter's
            # end.
            while os.read(fd, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="riverrun.parent", daemon=True).start()
