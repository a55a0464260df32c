"""Settings of a benchmark, passed to its processes in one environment variable."""

import gc
import json
import os
from collections.abc import Mapping

import attrs
from sqlalchemy import Engine

from riverrun.db.engines import engine_at

VARIABLE = "RIVERRUN_BENCH"
# Not passed as arguments, which other users can read: the URL may have a password.

TUNED_SLOTS = 100
TUNED_AHEAD = 2_000
TUNED_GC_THRESHOLD = 50_000
"""New objects between two garbage collections. Python's default: 2,000.

Jobs in flight are many objects that are not garbage. Only an application may change this setting, a
library must not.
"""


@attrs.frozen(kw_only=True)
class Settings:
    """How jobs are worked.

    Attributes:
        url: The URL of the database.
        schema: The schema of River's tables.
        queue: The benchmark's own queue.
        max_workers: Slots of each process.
        claim_ahead: Jobs that a process may claim ahead of free slots.
        gc_threshold: New objects between two garbage collections. Default: Python's own setting.
        leads: Whether the client may be elected leader. A leader maintains other queues too.
        deletes: Whether completed jobs are deleted at once.
    """

    url: str = attrs.field(repr=False)
    schema: str | None
    queue: str
    max_workers: int
    claim_ahead: int
    gc_threshold: int | None = None
    leads: bool = True
    deletes: bool = False

    def engine(self) -> Engine:
        """Return an engine on the database."""
        return engine_at(self.url)

    def apply(self) -> None:
        """Apply the settings that are of the whole process."""
        if self.gc_threshold is not None:
            gc.set_threshold(self.gc_threshold)

    def environment(self) -> Mapping[str, str]:
        """Return an environment that passes these settings to a process."""
        return {**os.environ, VARIABLE: json.dumps(attrs.asdict(self))}


def settings_from_environment() -> Settings:
    """Return the settings of this process."""
    return Settings(**json.loads(os.environ[VARIABLE]))
