"""What a benchmark is told, in this process and in those that it starts."""

import gc
import json
import os
from collections.abc import Mapping

import attrs
from sqlalchemy import Engine

from riverrun.db.engines import engine_at

VARIABLE = "RIVERRUN_BENCH"
# By the environment, and not by arguments: those are everybody's to read, and a URL has a password.

TUNED_SLOTS = 100
TUNED_AHEAD = 600
TUNED_GC_THRESHOLD = 50_000
"""Objects between two looks for garbage; Python's own is 2,000.

Jobs in flight are many objects and no garbage. It is the process's to set, not a library's.
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
        gc_threshold: Objects made between two looks for garbage; None for Python's own.
        leads: Whether to stand for election, as workers do. A leader tidies up other queues too.
    """

    url: str = attrs.field(repr=False)
    schema: str | None
    queue: str
    max_workers: int
    claim_ahead: int
    gc_threshold: int | None = None
    leads: bool = True

    def engine(self) -> Engine:
        """Return an engine on the database."""
        return engine_at(self.url)

    def apply(self) -> None:
        """Set what is this process's to set."""
        if self.gc_threshold is not None:
            gc.set_threshold(self.gc_threshold)

    def environment(self) -> Mapping[str, str]:
        """Return the environment in which a process finds these settings."""
        return {**os.environ, VARIABLE: json.dumps(attrs.asdict(self))}


def told() -> Settings:
    """Return the settings of this process."""
    return Settings(**json.loads(os.environ[VARIABLE]))
