"""The verbs: plain functions that work on any session or connection, and need no client."""

from riverrun.verbs.cancel import cancel
from riverrun.verbs.claim import claim
from riverrun.verbs.complete import complete, discard, fail, snooze
from riverrun.verbs.insert import InsertResult, insert, insert_many, insert_many_fast
from riverrun.verbs.read import get
from riverrun.verbs.retry import retry

__all__ = [
    "InsertResult",
    "cancel",
    "claim",
    "complete",
    "discard",
    "fail",
    "get",
    "insert",
    "insert_many",
    "insert_many_fast",
    "retry",
    "snooze",
]
