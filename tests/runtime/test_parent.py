"""A process ends when the process that started it is gone."""

import signal
import socket
import subprocess
import sys

import pytest

from waiting import DEADLINE_S

CHILD = """
import os, signal, sys
from riverrun.runtime.parent_death import end_with_parent

fd = int(sys.argv[1])
end_with_parent(fd)
os.write(fd, sys.argv[2].encode())
print("begun", flush=True)
signal.sigwait({signal.SIGUSR1})
"""


@pytest.mark.parametrize("unread", ["", "R"])
def test_ends_with_its_parent(unread: str) -> None:
    """A child ends when its parent's end of the socket closes, even with unread data in it."""
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(theirs.fileno()), unread],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
    with ours, child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            ours.close()
            assert child.wait(DEADLINE_S) == -signal.SIGTERM
        finally:
            child.kill()
