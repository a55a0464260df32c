"""The interface of the peers' programs, and the ledger of the jobs that they called.

A program runs in the peers' own virtual environment, with one argument. `fill` inserts the jobs,
`work` works until SIGTERM, and `unfinished` prints how many jobs the peer's own records show as not
done. The settings are a JSON object in the environment variable PEER_BENCH.
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
"""The record of a job: when it was last called, and how often."""


def settings() -> dict[str, Any]:
    """Return the settings of this process: `url`, `redis`, `ledger`, `jobs`."""
    values: dict[str, Any] = json.loads(os.environ[VARIABLE])
    return values


class Ledger:
    """When and how often each job was called, in a file that all processes of a peer share."""

    def __init__(self, path: str, jobs: int) -> None:
        self._jobs = jobs
        with Path(path).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CALL.size * jobs)

    @staticmethod
    def make(path: str, jobs: int) -> "Ledger":
        """Create an empty ledger."""
        Path(path).write_bytes(bytes(CALL.size * jobs))
        return Ledger(path, jobs)

    def call(self, number: int) -> None:
        """Record a call of a job. This is all that the jobs do."""
        at = number * CALL.size
        _, times = CALL.unpack_from(self._memory, at)
        CALL.pack_into(self._memory, at, time.monotonic(), times + 1)

    def calls(self) -> list[tuple[float, int]]:
        """Return, for each job, when it was last called and how often."""
        return list(CALL.iter_unpack(self._memory[: CALL.size * self._jobs]))


_ledger: Ledger | None = None


def call(number: int) -> None:
    """Do the work of a job: record the call in the ledger."""
    global _ledger  # One per process, opened by its first job
    if _ledger is None:
        _ledger = Ledger(settings()["ledger"], settings()["jobs"])
    _ledger.call(number)


def main(**commands: Callable[[], object]) -> None:
    """Run the command that the argument names, and print its result."""
    answer = commands[sys.argv[1]]()
    if answer is not None:
        print(answer)
