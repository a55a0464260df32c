"""What every process of the demo is told when it starts, in one environment variable."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import attrs
from sqlalchemy import Engine, create_engine

VARIABLE = "RIVERRUN_DEMO"
# By the environment, and not by arguments: those are everybody's to read, and a URL has a password.


@attrs.frozen(kw_only=True)
class Settings:
    """Where things are.

    Attributes:
        url: The database.
        schema: The schema of the host's tables and of River's.
        folder: What the world and the workers leave behind: see `evidence.py`.
        name: What the process is called.
        smtp_port: Where the SMTP sink listens; 0 while nobody knows.
        crm_port: Where the CRM listens; 0 while nobody knows.
    """

    url: str = attrs.field(repr=False)
    schema: str
    folder: str
    name: str = ""
    smtp_port: int = 0
    crm_port: int = 0

    def path(self, name: str) -> Path:
        """Return the place of a file in the folder."""
        return Path(self.folder) / name

    def engine(self) -> Engine:
        """Return an engine whose tables are the schema's."""
        return create_engine(
            self.url,
            pool_size=16,
            execution_options={"schema_translate_map": {None: self.schema}},
        )

    def environment(self) -> Mapping[str, str]:
        """Return the environment in which a process finds these settings."""
        return {**os.environ, VARIABLE: json.dumps(attrs.asdict(self))}


def told() -> Settings:
    """Return the settings of this process.

    Raises:
        RuntimeError: If it is no process of the demo's.
    """
    try:
        return Settings(**json.loads(os.environ[VARIABLE]))
    except KeyError:
        raise RuntimeError(f"{VARIABLE} is not set; start this by `riverrun demo`") from None
