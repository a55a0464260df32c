"""How a peer is asked to fill its queue and to work it, and where it says which jobs it called.

A peer is a program that runs in the peers' own environment, with one argument: `fill` inserts the
jobs and ends, `work` works until SIGTERM, `unfinished` prints how many jobs its own records have as
not done. What it needs to know is one JSON object in the environment variable PEER_BENCH.
"""

import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "PEER_BENCH"
CALL = struct.Struct("dI")
"""Of a job: when it was last called, and how often."""


def told() -> dict[str, Any]:
    """Return what this process was told: `url`, `redis`, `ledger`, `jobs`."""
    said: dict[str, Any] = json.loads(os.environ[VARIABLE])
    return said


class Ledger:
    """Which job was called when, in a file that all processes of a peer share."""

    def __init__(self, path: str, jobs: int) -> None:
        self._jobs = jobs
        with Path(path).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CALL.size * jobs)

    @staticmethod
    def make(path: str, jobs: int) -> "Ledger":
        """Make an empty one."""
        Path(path).write_bytes(bytes(CALL.size * jobs))
        return Ledger(path, jobs)

    def call(self, number: int) -> None:
        """Note that a job is called; what the job does, and all that it does."""
        at = number * CALL.size
        _, times = CALL.unpack_from(self._memory, at)
        CALL.pack_into(self._memory, at, time.monotonic(), times + 1)

    def calls(self) -> list[tuple[float, int]]:
        """Return of each job when it was last called, and how often."""
        return list(CALL.iter_unpack(self._memory[: CALL.size * self._jobs]))


_ledger: Ledger | None = None


def call(number: int) -> None:
    """Do the job's work: note in the ledger that it is called."""
    global _ledger  # One for each process, opened by its first job
    if _ledger is None:
        _ledger = Ledger(told()["ledger"], told()["jobs"])
    _ledger.call(number)


def main(**commands: Callable[[], object]) -> None:
    """Run the command that the argument names; print what it returns."""
    answer = commands[sys.argv[1]]()
    if answer is not None:
        print(answer)
