"""What a benchmark is told, in this process and in those that it starts."""

import json
import os
import sys
from collections.abc import Mapping

import attrs
from sqlalchemy import Engine, create_engine

VARIABLE = "RIVERRUN_BENCH"
# By the environment, and not by arguments: those are everybody's to read, and a URL has a password.

TUNED_SLOTS = 200
TUNED_AHEAD = 2_000
TUNED_SWITCH_S = 0.001
"""Threads that claim and complete wait for the interpreter: let it go round more often.

Python's own value is 5 ms. It is the process's to set, not a library's.
"""


@attrs.frozen(kw_only=True)
class Settings:
    """How jobs are worked.

    Attributes:
        url: The database.
        schema: The schema of River's tables.
        queue: The benchmark's own queue.
        max_workers: Slots of each process.
        claim_ahead: Jobs that a process may claim ahead of free slots.
        switch_s: Seconds between the interpreter's switches of threads; None for Python's own.
    """

    url: str = attrs.field(repr=False)
    schema: str | None
    queue: str
    max_workers: int
    claim_ahead: int
    switch_s: float | None = None

    def engine(self) -> Engine:
        """Return an engine on the database."""
        return create_engine(self.url)

    def apply(self) -> None:
        """Set what is this process's to set."""
        if self.switch_s is not None:
            sys.setswitchinterval(self.switch_s)

    def environment(self) -> Mapping[str, str]:
        """Return the environment in which a process finds these settings."""
        return {**os.environ, VARIABLE: json.dumps(attrs.asdict(self))}


def told() -> Settings:
    """Return the settings of this process."""
    return Settings(**json.loads(os.environ[VARIABLE]))
