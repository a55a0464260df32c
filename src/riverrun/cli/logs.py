"""What `riverrun work` logs: lines for people, or JSON for machines."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

KEYS = ("job_id", "kind", "queue", "attempt", "client_id")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, with the facts that riverrun's records carry."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said.update({key: getattr(record, key) for key in KEYS if hasattr(record, key)})
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def configure(level: str, *, as_json: bool) -> None:
    """Log to stderr, as the application has not said otherwise."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
