"""A pipe to a process sends and receives whole messages, and never waits for the process."""

import multiprocessing
import multiprocessing.connection
import os
import struct

import pytest

from riverrun.execution import pipe
from riverrun.execution.pipe import Pipe


def ends() -> tuple[Pipe, int, "multiprocessing.connection.Connection"]:
    """Return a pipe, and the file and the Connection of its other end."""
    mine, other = multiprocessing.Pipe()
    made = Pipe(mine)
    return made, other.fileno(), other


def test_a_message_is_received_as_a_whole() -> None:
    """Parts of a message, even of its size, are no message; the next one is not lost."""
    made, file, other = ends()
    header = struct.pack("!i", 5)
    for part in (header[:2], header[2:], b"he"):
        assert made.receive(0) is None
        os.write(file, part)
    assert made.receive(0) is None
    os.write(file, b"llo" + struct.pack("!i", 0) + struct.pack("!i", 2) + b"to")
    assert [made.receive(0) for _ in range(4)] == [b"hello", b"", b"to", None]
    other.send_bytes(b"end")
    other.close()
    assert made.receive(0) == b"end"
    with pytest.raises(EOFError):
        made.receive(0)


def test_a_message_larger_than_the_pipe_is_sent_as_it_is_read() -> None:
    """Sending does not wait for the other end; what is left is sent while waiting for an answer."""
    made, file, _ = ends()
    message = os.urandom(3_000_000)
    made.send(message)
    got = bytearray()
    while len(got) < 4 + len(message):
        got += os.read(file, 1_000_000)
        assert made.receive(0) is None
    assert got[:4] == struct.pack("!i", len(message))
    assert got[4:] == message


def test_a_message_of_more_than_two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a large message is written as the other end reads it."""
    made, file, other = ends()
    os.write(file, struct.pack("!i", -1) + struct.pack("!Q", 3) + b"big")
    assert made.receive(0) == b"big"
    monkeypatch.setattr(pipe, "SMALL_MAX", 2)
    made.send(b"big")
    assert other.recv_bytes() == b"big"
