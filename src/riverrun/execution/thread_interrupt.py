"""An exception thrown into a thread, for code that does not look whether it shall end."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interruption(BaseException):
    """Thrown into a worker that shall end; what its attempt came to is the reason for that.

    No `Exception`: a worker that tries something again and again shall not swallow it.
    """


class Interruptible:
    """Lets another thread throw one Interruption into a block of this one, and nowhere else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both below
        self._thread_id: int | None = None
        self._thrown = False

    @contextmanager
    def block(self) -> Iterator[None]:
        """Be interruptible within the block, by at most one Interruption.

        It comes between two steps of Python code: not while a call into C, such as a statement
        that the database executes, is under way. Catch it around the block: it may come at the
        very end.
        """
        with self._lock:
            self._thread_id = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                thread_id, self._thread_id = self._thread_id, None
                if self._thrown and thread_id is not None:
                    # Not delivered yet: it must not hit what comes after.
                    _throw(thread_id, None)

    def interrupt(self) -> bool:
        """Throw, from another thread; return whether the block was under way."""
        with self._lock:
            if self._thread_id is None or self._thrown:
                return False
            self._thrown = True
            _throw(self._thread_id, Interruption)
            return True


def _throw(thread_id: int, error: type[BaseException] | None) -> None:
    thrown = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), thrown)
