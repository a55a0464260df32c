"""The topics of notifications, and functions that write and parse their payloads.

Payloads equal River's to the byte. A channel is named `<schema>.<topic>`. Source: River 0.51,
internal/notifier and producer.go.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from riverrun.wire import go_json

PAYLOAD_MAX = 7_999
"""Longest payload of PostgreSQL's NOTIFY, in bytes."""


class Topic(StrEnum):
    """The topic of a notification."""

    insert = "river_insert"
    control = "river_control"
    leadership = "river_leadership"


def insert_payload(queue: str) -> str:
    """Return the payload for a new job in `queue`."""
    # River formats this one by hand, with a space and without the escapes of its other JSON.
    return json.dumps({"queue": queue}, ensure_ascii=False)


def cancel_payload(job_id: int, queue: str) -> str:
    """Return the payload that asks the client that runs a job to cancel it."""
    return _by_postgresql({"action": "cancel", "job_id": job_id, "queue": queue})


def pause_payload(queue: str) -> str:
    """Return the payload that asks clients to stop claiming from `queue`; "*" means all queues."""
    return go_json.encode({"action": "pause", "queue": queue})


def resume_payload(queue: str) -> str:
    """Return the payload that asks clients to claim from `queue` again; "*" means all queues."""
    return go_json.encode({"action": "resume", "queue": queue})


def metadata_payload(queue: str, metadata: Mapping[str, Any]) -> str:
    """Return the payload for new metadata of `queue`.

    If the payload would be too long for PostgreSQL, it has no metadata, and clients read the row.
    """
    fields = {
        "action": "metadata_changed",
        "metadata": go_json.sorted_keys(metadata),
        "queue": queue,
    }
    payload = go_json.encode(fields)
    if len(payload.encode()) > PAYLOAD_MAX:
        del fields["metadata"]
        payload = go_json.encode(fields)
    return payload


def run_periodic_payload(periodic_id: str) -> str:
    """Return the payload that asks the leader to look for a periodic job that is to run now.

    River does not have it. Its clients ignore actions that they do not know.
    """
    return go_json.encode({"action": "run_periodic", "id": periodic_id, "queue": ""})


def resigned_payload(leader_id: str) -> str:
    """Return the payload with which the leader `leader_id` announces that it resigned."""
    return _by_postgresql({"leader_id": leader_id, "action": "resigned"})


def request_resign_payload() -> str:
    """Return the payload that asks the leader to resign."""
    return go_json.encode({"action": "request_resign", "leader_id": ""})


def parse(payload: str) -> Mapping[str, Any] | None:
    """Return the JSON object in `payload`; None if there is none."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _by_postgresql(fields: Mapping[str, Any]) -> str:
    """Return an object as PostgreSQL's json_build_object writes it; River builds it in SQL."""
    return json.dumps(fields, ensure_ascii=False, separators=(", ", " : "))
