"""Forks: what a child process does not take over from riverrun in its parent.

A child that is forked has its parent's open files and signal handlers. Of riverrun's it must keep
neither: it would hold a port, a connection's transaction or the other end of a pipe for as long as
it lives, and could not be ended. A child that executes another program has lost both already.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

from sqlalchemy import Engine, event

CONNECT_MAX_S = 60.0
"""Seconds after which a connection that was begun is taken for one that failed."""


class _File(Protocol):
    def fileno(self) -> int: ...


_files: WeakSet[_File] = WeakSet()


_connecting: dict[int, float] = {}  # by thread: when it began to connect


_handlers: dict[signal.Signals, Any] = {}  # what was there before ours


_mask = threading.local()


def close_in_child(*files: _File) -> None:
    """Keep a forked child from holding `files`; this process keeps them."""
    _files.update(files)


def cut_off_connections(engine: Engine) -> None:
    """Keep a forked child from holding the connections that `engine` makes, or keeps by now."""
    event.listen(engine, "do_connect", _connects)
    # First, as SQLAlchemy's own listener executes statements.
    event.listen(engine, "connect", _connected, insert=True)
    # What is in the pool already; SQLAlchemy has no public way to list that.
    records = getattr(getattr(engine.pool, "_pool", None), "queue", ())
    close_in_child(*(record.dbapi_connection for record in list(records)))


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Have signals do nothing in this process; in its children they do what they did before.

    SIG_IGN would not do: a program that a child executes keeps ignoring what its parent ignored.

    Args:
        numbers: The signals. Whoever set a wakeup file is told of them all the same.
    """
    for number in numbers:
        handler = signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)
        _handlers.setdefault(number, signal.SIG_DFL if handler is None else handler)


def _connects(*_: object) -> None:
    _connecting[threading.get_ident()] = time.monotonic()


def _connected(connection: Any, _: object) -> None:
    _connecting.pop(threading.get_ident(), None)
    close_in_child(connection)


def _before() -> None:
    if _handlers:
        # A signal to the child that came before its handlers are reset would be lost, or be
        # written to the parent's wakeup file.
        _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _handlers)


def _unmask() -> None:
    before = vars(_mask).pop("before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child() -> None:
    _cut_off()
    if _handlers:
        signal.set_wakeup_fd(-1)
        for number, handler in _handlers.items():
            signal.signal(number, handler)
        _handlers.clear()
    _unmask()


def _cut_off() -> None:
    """Put a closed socket in the place of each file.

    Not closed: the objects that know a file's number would then use whatever gets it next.
    """
    files = set()
    for file in list(_files):
        with suppress(Exception):  # it is closed already
            files.add(file.fileno())
    files |= _half_made(files)
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        for fd in files:
            if fd >= 0:
                os.dup2(ours.fileno(), fd, inheritable=False)


def _half_made(known: set[int]) -> set[int]:
    """Return the sockets of connections that other threads were making, known by their servers.

    Nothing tells such a socket from one that the application opened to the same server by itself,
    so that one is cut off, too. The number of the file tells nothing: a file that another thread
    closes meanwhile gives its number to the socket.
    """
    recent = time.monotonic() - CONNECT_MAX_S
    connecting = any(since > recent for since in _connecting.values())
    _connecting.clear()
    if not connecting:
        return set()
    servers = {_peer(fd) for fd in known} - {None, ""}
    try:
        files = set(map(int, os.listdir("/dev/fd")))
    except OSError:  # there is no such folder on this system
        return set()
    return {fd for fd in files - known if _peer(fd) in servers}


def _peer(fd: int) -> object:
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            return connection.getpeername()
    except OSError:
        return None


os.register_at_fork(before=_before, after_in_parent=_unmask, after_in_child=_in_child)
