"""Chosen: act on all jobs of some criteria, in the caller's transaction or in small ones."""

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
"""Jobs that one transaction changes where each batch has one of its own."""

PAGE = 100_000
"""Ids that are read at once."""

TRIES = 5


@attrs.frozen(kw_only=True)
class Changed:
    """What became of chosen jobs.

    Attributes:
        count: How many were changed.
        queues: The queues in which jobs are available now.
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
    """Change the jobs that `which` chooses, or only count them.

    Args:
        tx: Whose transaction. An Engine has batches of jobs changed in transactions of their
            own; any other has all of them changed by one statement.
        which: The jobs.
        change: Changes them in a transaction; called with the bind `chosen_ids`, if that counts.
        dry_run: Whether only to count.
        attributes: What it changes of jobs that the session has loaded, which expires; None for
            all.
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
            # A unique key was free when the statement began, and is taken now: it sees that next.
            continue
    return again(tx, act)


def _expire(tx: Tx, job: type[Any], attributes: Sequence[str] | None) -> None:
    """Have a session read again what was changed of the jobs that it has loaded.

    Not of those that the host has changed and not flushed.
    """
    session = tx() if isinstance(tx, scoped_session) else tx
    if isinstance(session, Session):
        for loaded in list(session.identity_map.values()):
            if type(loaded) is job and not inspect(loaded).modified:
                session.expire(loaded, attributes)
