"""Release riverrun's files and signal handlers in a forked child.

A forked child has its parent's open files and signal handlers. It must keep none of riverrun's.
Otherwise it would hold a port, a connection's transaction or the end of a pipe for as long as it
lives, and signals could not end it. A child that executes another program has lost both already.
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
"""Seconds after which an attempt to connect is considered to have failed."""


class _File(Protocol):
    def fileno(self) -> int: ...


_files: WeakSet[_File] = WeakSet()


_connecting: dict[int, float] = {}  # when each thread began to connect, by its identity


_handlers: dict[signal.Signals, Any] = {}  # the handlers that ours replaced


_mask = threading.local()


def close_in_child(*files: _File) -> None:
    """Close `files` in forked children. This process keeps them."""
    _files.update(files)


def cut_off_connections(engine: Engine) -> None:
    """Close the engine's present and future connections in forked children."""
    event.listen(engine, "do_connect", _connects)
    # Before SQLAlchemy's own listener, because that executes statements.
    event.listen(engine, "connect", _connected, insert=True)
    # The connections in the pool. SQLAlchemy has no public way to list them.
    records = getattr(getattr(engine.pool, "_pool", None), "queue", ())
    close_in_child(*(record.dbapi_connection for record in list(records)))


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Ignore signals in this process, but not in its children.

    SIG_IGN would not do: a program that a child executes goes on ignoring the same signals.

    Args:
        numbers: The signals. Python still writes them to a wakeup file, if one is set.
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
        # If a signal reached the child before its handlers are reset, it would be lost or be
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
    """Replace each file by a socket whose other end is closed.

    The files cannot be closed: objects that know a file's number would then use whatever file gets
    that number next.
    """
    files = set()
    for file in list(_files):
        with suppress(Exception):  # if it is closed already
            files.add(file.fileno())
    files |= _half_made(files)
    closed, other = socket.socketpair()
    other.close()
    with closed:
        for fd in files:
            if fd >= 0:
                os.dup2(closed.fileno(), fd, inheritable=False)


def _half_made(known: set[int]) -> set[int]:
    """Return the sockets of connections that other threads were making, recognised by the server.

    A socket that the application itself opened to the same server looks the same, so it is cut
    off, too. The file's number is no help: the new socket may have the number of a file that
    another thread has just closed.
    """
    recent = time.monotonic() - CONNECT_MAX_S
    connecting = any(since > recent for since in _connecting.values())
    _connecting.clear()
    if not connecting:
        return set()
    servers = {_peer(fd) for fd in known} - {None, ""}
    try:
        files = set(map(int, os.listdir("/dev/fd")))
    except OSError:  # this system has no such folder
        return set()
    return {fd for fd in files - known if _peer(fd) in servers}


def _peer(fd: int) -> object:
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            return connection.getpeername()
    except OSError:
        return None


os.register_at_fork(before=_before, after_in_parent=_unmask, after_in_child=_in_child)
