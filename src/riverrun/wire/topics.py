"""Notification topics, and their payloads, written and parsed.

Source: River 0.51, internal/notifier and producer.go; channels are `<schema>.<topic>`. Payloads are
River's to the byte.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from riverrun.wire import go_json

PAYLOAD_MAX = 7_999
"""Longest payload that PostgreSQL sends, in bytes."""


class Topic(StrEnum):
    """What a notification is about."""

    insert = "river_insert"
    control = "river_control"
    leadership = "river_leadership"


def insert_payload(queue: str) -> str:
    """Return what tells that `queue` has a job to claim."""
    # River formats this one by hand: a space, and no escapes of its JSON.
    return json.dumps({"queue": queue}, ensure_ascii=False)


def cancel_payload(job_id: int, queue: str) -> str:
    """Return what tells the client that runs `job_id` to cancel it."""
    return _by_postgresql({"action": "cancel", "job_id": job_id, "queue": queue})


def pause_payload(queue: str) -> str:
    """Return what tells clients to claim nothing more from `queue`; "*" for all."""
    return go_json.encode({"action": "pause", "queue": queue})


def resume_payload(queue: str) -> str:
    """Return what tells clients to claim again from `queue`; "*" for all."""
    return go_json.encode({"action": "resume", "queue": queue})


def metadata_payload(queue: str, metadata: Mapping[str, Any]) -> str:
    """Return what tells clients that the metadata of `queue` was replaced.

    Without the metadata where PostgreSQL would refuse the length: who hears it can read the row.
    """
    said = {"action": "metadata_changed", "metadata": go_json.sorted_keys(metadata), "queue": queue}
    payload = go_json.encode(said)
    if len(payload.encode()) > PAYLOAD_MAX:
        del said["metadata"]
        payload = go_json.encode(said)
    return payload


def resigned_payload(leader_id: str) -> str:
    """Return what tells followers that `leader_id` leads no more."""
    return _by_postgresql({"leader_id": leader_id, "action": "resigned"})


def request_resign_payload() -> str:
    """Return what asks whoever leads to resign."""
    return go_json.encode({"action": "request_resign", "leader_id": ""})


def parse(payload: str) -> Mapping[str, Any] | None:
    """Return the object in `payload`, or None where it is not a JSON object."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _by_postgresql(said: Mapping[str, Any]) -> str:
    """Return an object as PostgreSQL's json_build_object writes it, which River has do so."""
    return json.dumps(said, ensure_ascii=False, separators=(", ", " : "))
