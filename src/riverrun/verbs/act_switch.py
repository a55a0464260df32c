"""Switch queues and periodic jobs for a user, with a record of it."""

from datetime import datetime

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.errors import InvalidOption
from riverrun.events import UserActed
from riverrun.verbs.act import same
from riverrun.verbs.actions import OnDone, check_user, record_done
from riverrun.verbs.periodic import (
    PeriodicRow,
    pause_periodic,
    resume_periodic,
    run_periodic_now,
)
from riverrun.verbs.queues import QueueRow, pause_queue, resume_queue


@tried_again
def act_on_queue(
    tx: Tx,
    action: str,
    name: str,
    *,
    user: str,
    schema: str | None = None,
    now: datetime | None = None,
    on_done: OnDone | None = None,
) -> list[QueueRow]:
    """Pause or resume a queue for a user, and record it, in one transaction.

    Args:
        tx: The transaction, as for `insert`.
        action: "pause" or "resume".
        name: The queue's name; "*" for all queues.
        user: The user's name, at most 200 characters.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
        on_done: Called with a UserActed once the transaction has committed.

    Returns:
        The queues after the change.

    Raises:
        InvalidOption: If a value is out of range.
        QueueNotFound: If there is no such queue.
    """
    verbs = {"pause": pause_queue, "resume": resume_queue}
    if not isinstance(action, str) or action not in verbs:
        raise InvalidOption("action", action, "pause or resume")
    user = check_user(user)
    with joined(tx, schema) as transaction:
        rows = verbs[action](same(tx, transaction), name, schema=schema, now=now)
        done = UserActed(user=user, action=f"{action}_queue", count=len(rows))
        record_done(transaction, done, {"queue": name}, schema, on_done)
    return rows


@tried_again
def act_on_periodic(
    tx: Tx,
    action: str,
    periodic_id: str,
    *,
    user: str,
    schema: str | None = None,
    now: datetime | None = None,
    on_done: OnDone | None = None,
) -> PeriodicRow:
    """Pause, resume or run a periodic job for a user, and record it, in one transaction.

    Args:
        tx: The transaction, as for `insert`.
        action: "pause", "resume" or "run".
        periodic_id: The periodic job's id.
        user: The user's name, at most 200 characters.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
        on_done: Called with a UserActed once the transaction has committed.

    Returns:
        The periodic job's row after the change.

    Raises:
        InvalidOption: If a value is out of range.
        PeriodicJobNotFound: If no leader has planned a run of it yet.
        SchemaMissing: If version 3 of riverrun's line is missing.
    """
    verbs = {"pause": pause_periodic, "resume": resume_periodic, "run": run_periodic_now}
    if not isinstance(action, str) or action not in verbs:
        raise InvalidOption("action", action, "pause, resume or run")
    user = check_user(user)
    with joined(tx, schema) as transaction:
        row = verbs[action](same(tx, transaction), periodic_id, schema=schema, now=now)
        done = UserActed(user=user, action=f"{action}_periodic", count=1)
        record_done(transaction, done, {"periodic_id": periodic_id}, schema, on_done)
    return row
