"""Throws an exception into a thread, for workers that do not check whether they are cancelled."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interruption(BaseException):
    """Thrown into a cancelled worker. The attempt's error is then the reason it was cancelled for.

    It is no `Exception`, so that a worker that retries on every error does not swallow it.
    """


class Interruptible:
    """Lets another thread throw one Interruption into a block of this one, and nowhere else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both below
        self._thread_id: int | None = None
        self._thrown = False

    @contextmanager
    def block(self) -> Iterator[None]:
        """Make the block interruptible, by at most one Interruption.

        The Interruption is raised between two steps of Python code, and not during a call into C,
        such as a statement that the database executes. Catch it around the block: it may be raised
        at the very end.
        """
        with self._lock:
            self._thread_id = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                thread_id, self._thread_id = self._thread_id, None
                if self._thrown and thread_id is not None:
                    # It may not be raised yet: it must not hit the code after the block.
                    _throw(thread_id, None)

    def interrupt(self) -> bool:
        """Throw the Interruption, from another thread; return whether the block was under way."""
        with self._lock:
            if self._thread_id is None or self._thrown:
                return False
            self._thrown = True
            _throw(self._thread_id, Interruption)
            return True


def _throw(thread_id: int, error: type[BaseException] | None) -> None:
    thrown = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), thrown)
