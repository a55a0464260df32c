"""Change all jobs chosen by criteria, in the caller's transaction or in batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session

from riverrun.db.conflicts import again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.queries.chosen import Chosen

BATCH = 1_000
"""Maximum number of jobs that one transaction changes on an Engine."""

PAGE = 100_000
"""Maximum number of ids that one statement reads."""

TRIES = 5


@attrs.frozen(kw_only=True)
class Changed:
    """The result of a change to chosen jobs.

    Attributes:
        count: How many jobs were changed.
        queues: The queues in which jobs were made available.
    """

    count: int
    queues: frozenset[str] = frozenset()


def change_chosen(
    tx: Tx,
    which: Chosen,
    change: Callable[[Transaction, dict[str, Any]], Changed],
    *,
    dry_run: bool,
    attributes: Sequence[str] | None,
) -> Changed:
    """Change the chosen jobs, or only count them.

    Args:
        tx: The transaction. On an Engine each batch of jobs is changed in a transaction of its
            own; otherwise one statement changes all jobs.
        which: The jobs.
        change: A function that changes the jobs in a transaction. Its params have the bind
            `chosen_ids`, or are empty for all jobs.
        dry_run: Whether only to count.
        attributes: The attributes that it changes. They expire on jobs that the session has
            loaded. None means all.
    """
    if dry_run:
        return again(tx, lambda: Changed(count=_count(tx, which)))
    if not isinstance(tx, Engine):
        with joined(tx) as transaction:
            changed = change(transaction, {})
        if changed.count:
            _expire(tx, which.job, attributes)
        return changed
    total, queues = 0, frozenset[str]()
    for ids in _batches(tx, which):
        changed = _change_batch(tx, change, ids)
        total += changed.count
        queues |= changed.queues
    return Changed(count=total, queues=queues)


def _count(tx: Tx, which: Chosen) -> int:
    with joined(tx) as transaction:
        count: int = transaction.execute(which.count(), {"now": None}).scalar_one()
        return count


def _batches(tx: Engine, which: Chosen) -> Iterator[Sequence[int]]:
    after = -(2**63)
    while True:
        params = {"after": after, "limit": PAGE, "now": None}
        ids = again(tx, lambda params=params: _page(tx, which, params))  # type: ignore[misc]
        for start in range(0, len(ids), BATCH):
            yield ids[start : start + BATCH]
        if len(ids) < PAGE:
            return
        after = ids[-1]


def _page(tx: Engine, which: Chosen, params: dict[str, Any]) -> Sequence[int]:
    with joined(tx) as transaction:
        return transaction.execute(which.page(), params).scalars().all()


def _change_batch(
    tx: Engine,
    change: Callable[[Transaction, dict[str, Any]], Changed],
    ids: Sequence[int],
) -> Changed:
    params = {"chosen_ids": f"{{{','.join(map(str, ids))}}}"}

    def act() -> Changed:
        with joined(tx) as transaction:
            return change(transaction, params)

    for _ in range(TRIES - 1):
        try:
            return again(tx, act)
        except IntegrityError:
            # A unique key was taken after the statement began. The next try sees that.
            continue
    return again(tx, act)


def _expire(tx: Tx, job: type[Any], attributes: Sequence[str] | None) -> None:
    """Expire the changed attributes of jobs that a session has loaded.

    Jobs with changes that the application has not flushed are left alone.
    """
    session = tx() if isinstance(tx, scoped_session) else tx
    if isinstance(session, Session):
        for loaded in list(session.identity_map.values()):
            if type(loaded) is job and not inspect(loaded).modified:
                session.expire(loaded, attributes)
