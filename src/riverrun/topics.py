"""Notification topics, and their payloads, written and parsed.

Source: River 0.51, internal/notifier and producer.go; channels are `<schema>.<topic>`.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Topic(StrEnum):
    """What a notification is about."""

    insert = "river_insert"
    control = "river_control"
    leadership = "river_leadership"


def insert_payload(queue: str) -> str:
    """Return what tells that `queue` has a job to claim."""
    return json.dumps({"queue": queue})


def cancel_payload(job_id: int, queue: str) -> str:
    """Return what tells the client that runs `job_id` to cancel it."""
    return json.dumps({"action": "cancel", "job_id": job_id, "queue": queue})


def parse(payload: str) -> Mapping[str, Any] | None:
    """Return the object in `payload`, or None where it is not a JSON object."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
