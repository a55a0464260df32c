"""The verbs: plain functions that work on any session or connection, and need no client."""

from riverrun.verbs.cancel import cancel
from riverrun.verbs.claim import claim
from riverrun.verbs.complete import complete, discard, fail, snooze
from riverrun.verbs.insert import InsertResult, insert, insert_many, insert_many_fast
from riverrun.verbs.queues import (
    QueueRow,
    get_queue,
    list_queues,
    pause_queue,
    resume_queue,
    update_queue,
)
from riverrun.verbs.read import get
from riverrun.verbs.retry import retry

__all__ = [
    "InsertResult",
    "QueueRow",
    "cancel",
    "claim",
    "complete",
    "discard",
    "fail",
    "get",
    "get_queue",
    "insert",
    "insert_many",
    "insert_many_fast",
    "list_queues",
    "pause_queue",
    "resume_queue",
    "retry",
    "snooze",
    "update_queue",
]
