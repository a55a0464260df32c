"""Pipe: the parent's end of a pipe to a worker's process, on which no call waits for the process.

A process may stop reading in the middle of a call, or stop writing in the middle of an answer, as
one that hangs while it imports the application or that was suspended. `multiprocessing`'s own
methods would then wait for it for ever.
"""

import os
import select
import struct
from multiprocessing.connection import Connection

_CHUNK = 64 * 1024
"""Most bytes of one read."""

SMALL_MAX = 2**31 - 1
"""Most bytes of a message whose size is written in four bytes."""

# How `multiprocessing.connection` writes the size of a message, which the other end reads.
_SIZE = struct.Struct("!i")
_LARGE = struct.Struct("!Q")  # after a size of -1


class Pipe:
    """Sends and receives messages as the Connection `end` does, without waiting.

    One thread at a time may use it.
    """

    def __init__(self, end: Connection) -> None:
        self._end = end
        os.set_blocking(end.fileno(), False)
        # Kept for all waits: what Connection.poll() makes for each takes as long as a whole call.
        self._events = select.poll()
        self._events.register(end, select.POLLIN)
        self._unsent = memoryview(b"")
        self._received = bytearray()

    def send(self, message: bytes) -> None:
        """Send what fits into the pipe. `receive` sends the rest.

        Raises:
            OSError: If the other end is closed.
        """
        size = len(message)
        header = _SIZE.pack(size) if size <= SMALL_MAX else _SIZE.pack(-1) + _LARGE.pack(size)
        self._unsent = memoryview(header + message)
        self._write()

    def receive(self, wait_s: float) -> bytes | None:
        """Return the next message; None if it has not arrived as a whole.

        Args:
            wait_s: Seconds to wait at most for a part of it.

        Raises:
            EOFError: If the other end is closed.
            OSError: If the connection is lost, or this end is closed.
        """
        message = self._taken()
        if message is not None:
            return message
        for _, event in self._events.poll(wait_s * 1_000):
            if event & select.POLLOUT:
                self._write()
            if event & ~select.POLLOUT:
                self._read()
        return self._taken()

    def has_more(self) -> bool:
        """Return whether there is anything to read, or the end of it."""
        return any(event & ~select.POLLOUT for _, event in self._events.poll(0))

    def _write(self) -> None:
        while self._unsent:
            try:
                sent = os.write(self._end.fileno(), self._unsent)
            except BlockingIOError:
                self._events.modify(self._end, select.POLLIN | select.POLLOUT)
                return
            self._unsent = self._unsent[sent:]
        self._events.modify(self._end, select.POLLIN)

    def _read(self) -> None:
        chunk = os.read(self._end.fileno(), _CHUNK)
        if not chunk:
            raise EOFError
        self._received += chunk

    def _taken(self) -> bytes | None:
        """Return the first message that was received as a whole, and drop it."""
        received, start = self._received, _SIZE.size
        if len(received) < start:
            return None
        (size,) = _SIZE.unpack_from(received)
        if size < 0:
            start += _LARGE.size
            if len(received) < start:
                return None
            (size,) = _LARGE.unpack_from(received, _SIZE.size)
        if len(received) < start + size:
            return None
        message = bytes(received[start : start + size])
        del received[: start + size]
        return message
