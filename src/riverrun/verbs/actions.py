"""The record of what users do to jobs and queues, such as through a dashboard."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidOption
from riverrun.events import UserActed
from riverrun.jobs.checks import check_int
from riverrun.jobs.json_values import json_text
from riverrun.logs.loggers import logger_of
from riverrun.queries import actions as queries
from riverrun.verbs.read import json_object
from riverrun.verbs.version_3 import find_in

logger = logger_of(__name__)

IDS_MAX = 1_000
"""Maximum number of ids of jobs in a record."""

LOGGED_IDS = 100
"""Maximum number of ids of jobs in a log record."""

USER_MAX = 200
"""Longest name of a user, in characters."""

ID_MAX = 2**63 - 1

OnDone = Callable[[UserActed], object]


@attrs.frozen(kw_only=True)
class ActionRow:
    """The record of an action.

    Attributes:
        id: The record's number. Later records have higher ones.
        created_at: When the action was done.
        user: Who did it.
        action: What was done, such as "retry" or "pause_queue".
        count: How many jobs, queues or periodic jobs it changed.
        job_ids: The jobs that it changed, at most 1,000.
        filter: How they were chosen: the filters of a list, or the name of a queue.
    """

    id: int
    created_at: datetime
    user: str
    action: str
    count: int
    job_ids: Sequence[int]
    filter: Mapping[str, Any]


@tried_again
def record_action(
    tx: Tx,
    *,
    user: str,
    action: str,
    count: int,
    job_ids: Iterable[int] = (),
    filter: Mapping[str, Any] | None = None,  # noqa: A002  as the column is named
    schema: str | None = None,
    on_done: OnDone | None = None,
) -> bool:
    """Record an action in the transaction that does it; return whether there is a table for it.

    `act_on` and the like do this themselves. Once the transaction has committed, the action is
    logged, too.

    Args:
        tx: The transaction, as for `insert`.
        user: The user's name, at most 200 characters.
        action: What is done, such as "insert".
        count: How many jobs, queues or periodic jobs it changes.
        job_ids: The jobs that it changes. Only the first 1,000 are recorded.
        filter: How they were chosen, a JSON object. It should hold no args.
        schema: The schema of River's tables. Default: the search path's.
        on_done: Called with a UserActed once the transaction has committed.

    Raises:
        InvalidOption: If a value is out of range.
    """
    if not isinstance(action, str) or not action or "\x00" in action:
        raise InvalidOption("action", action, "a text")
    done = UserActed(
        user=check_user(user),
        action=action,
        count=check_int("count", count, 0, ID_MAX),
        job_ids=tuple(check_int("job_ids", job_id, 0, ID_MAX) for job_id in job_ids),
    )
    with joined(tx, schema) as transaction:
        return record_done(transaction, done, filter or {}, schema, on_done)


@tried_again
def list_actions(
    tx: Tx, *, limit: int = 100, after: int | None = None, schema: str | None = None
) -> list[ActionRow]:
    """Return the records of actions, newest first; none without version 3 of riverrun's line.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of records, 1 to 10,000.
        after: The id of the last record of another list, which this one continues.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    before = ID_MAX if after is None else check_int("after", after, 0, ID_MAX)
    with joined(tx, schema) as transaction:
        if not find_in(transaction, schema):
            return []
        rows = transaction.execute(queries.list_actions(), {"limit": limit, "before_id": before})
        return [_row(row) for row in rows]


def record_done(
    transaction: Transaction,
    done: UserActed,
    chosen_by: Mapping[str, Any],
    schema: str | None,
    on_done: OnDone | None,
) -> bool:
    """Do what `record_action` does, in `transaction` and without its checks."""
    there = find_in(transaction, schema)
    if there:
        params = {
            "by_user": done.user,
            "done": done.action,
            "how_many": done.count,
            "which": f"{{{','.join(map(str, done.job_ids[:IDS_MAX]))}}}",
            "chosen_by": json_text(chosen_by),
        }
        transaction.execute(queries.record(), params)
    transaction.after_commit(_log, done)
    if on_done is not None:
        transaction.after_commit(on_done, done)
    return there


def check_user(user: object) -> str:
    """Return `user` if it can name a user.

    Raises:
        InvalidOption: If it cannot.
    """
    if not isinstance(user, str) or not 0 < len(user) <= USER_MAX or not user.isprintable():
        raise InvalidOption("user", user, f"a printable name of 1 to {USER_MAX} characters")
    return user


def _log(done: UserActed) -> None:
    extra = {
        "user": done.user,
        "action": done.action,
        "count": done.count,
        "job_ids": done.job_ids[:LOGGED_IDS],
    }
    logger.info("%s by %s changed %s", done.action, done.user, done.count, extra=extra)


def _row(row: Any) -> ActionRow:
    return ActionRow(
        id=row.id,
        created_at=row.created_at,
        user=row.user_name,
        action=row.action,
        count=row.count,
        job_ids=tuple(row.job_ids),
        filter=json_object(row.filter),
    )
