"""Logging of `riverrun work`: lines for people, or JSON for machines."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from riverrun.logs.errors import tracebacks as texts

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes of every record; all others came as `extra` from riverrun or the application."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON that includes its `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _OWN:
                fields.setdefault(key, value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def configure(level: str, *, as_json: bool, force: bool, tracebacks: bool) -> None:
    """Log to stderr, unless the application has configured logging itself.

    Args:
        level: The lowest level that is logged.
        as_json: Whether each record is one line of JSON.
        force: Whether to replace what the application has configured.
        tracebacks: Whether to log the error text and traceback of each failed attempt.
    """
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=force)
    if tracebacks:
        texts.setLevel(logging.DEBUG)
