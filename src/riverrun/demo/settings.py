"""Settings of the demo's processes, passed to each in one environment variable."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import attrs
from sqlalchemy import Engine, create_engine

LINK = "link"
"""The file with the address that signs a browser in to the dashboard."""

VARIABLE = "RIVERRUN_DEMO"
# Not passed as arguments, which other users can read: the URL may have a password.


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a process of the demo.

    Attributes:
        url: The URL of the database.
        schema: The schema of the host's tables and of River's.
        folder: The folder for the traces that jobs leave; see `evidence.py`.
        name: The name of the process.
        smtp_port: The port of the mail server; 0 while unknown.
        crm_port: The port of the CRM; 0 while unknown.
        dashboard: Whether the demo goes on for its dashboard, with further jobs.
    """

    url: str = attrs.field(repr=False)
    schema: str
    folder: str
    name: str = ""
    smtp_port: int = 0
    crm_port: int = 0
    dashboard: bool = False

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return Path(self.folder) / name

    def engine(self) -> Engine:
        """Return an engine whose tables are in the schema."""
        return create_engine(
            self.url,
            pool_size=16,
            execution_options={"schema_translate_map": {None: self.schema}},
        )

    def environment(self) -> Mapping[str, str]:
        """Return an environment that passes these settings to a process."""
        return {**os.environ, VARIABLE: json.dumps(attrs.asdict(self))}


def settings_from_environment() -> Settings:
    """Return the settings of this process.

    Raises:
        RuntimeError: If this is not a process of the demo.
    """
    try:
        return Settings(**json.loads(os.environ[VARIABLE]))
    except KeyError:
        raise RuntimeError(f"{VARIABLE} is not set; start this by `riverrun demo`") from None
