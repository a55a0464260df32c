"""What `riverrun work` logs: lines for people, or JSON for machines."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from riverrun.logs.errors import tracebacks as texts

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; the rest was given as `extra`, by riverrun or by the application."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, with all that was given as its `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        said.update(
            {
                key: value
                for key, value in vars(record).items()
                if key not in _OWN and key not in said
            }
        )
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def configure(level: str, *, as_json: bool, force: bool, tracebacks: bool) -> None:
    """Log to stderr, unless the application has configured logging itself.

    Args:
        level: The lowest level that is logged.
        as_json: Whether each record is a line of JSON.
        force: Whether this replaces what the application has configured.
        tracebacks: Whether failed attempts are logged with their texts and tracebacks.
    """
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=force)
    if tracebacks:
        texts.setLevel(logging.DEBUG)
