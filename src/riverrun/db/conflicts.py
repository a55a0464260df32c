"""Again: transactions that PostgreSQL rolled back only because another one was in their way."""

import random
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.exc import StaleDataError

from riverrun.db.refusals import sqlstate

R = TypeVar("R")


F = TypeVar("F", bound=Callable[..., Any])


CONFLICTS = frozenset({"40001", "40P01"})
"""A serialization failure, and a deadlock that this transaction was chosen to end."""


LOCKED = "55P03"
"""A row that another transaction has locked, where the statement does not wait, or no longer."""

TRIES = 6


PAUSE_S = 0.01
"""Seconds before the second try; doubled before each further one."""


def is_conflict(error: BaseException | None) -> bool:
    """Return whether `error`, or what it was raised from, is a database's conflict."""
    return error is not None and sqlstate(error) in CONFLICTS


def met_another(error: BaseException) -> bool:
    """Return whether a worker's transaction failed only because another one was in its way.

    That is a conflict, a lock that was not waited for, or a row of the ORM's that has another
    version by now, wherever in the chain of errors: a worker may have raised its own in place of
    it.
    """
    for each in chain(error):
        driver = getattr(each, "orig", None) or each
        state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
        if isinstance(each, StaleDataError) or state in CONFLICTS or state == LOCKED:
            return True
    return False


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, and each error that it was raised from or while it was handled."""
    met: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in met:
            continue
        met.add(id(each))
        yield each
        if each.__cause__ is not None:
            left.append(each.__cause__)
        if each.__context__ is not None and not each.__suppress_context__:
            left.append(each.__context__)


def again(tx: object, work: Callable[[], R]) -> R:
    """Return what `work` returns; on an Engine, whose transaction it begins, try it again.

    A Session's or Connection's transaction is the host's, and so is what to do about a conflict.

    Args:
        tx: Whose transaction it is, as for a verb.
        work: Does all of it, from the beginning each time.

    Raises:
        sqlalchemy.exc.DBAPIError: If the last try meets a conflict, too, or on any other error.
    """
    if not isinstance(tx, Engine):
        return work()
    for number in range(TRIES - 1):
        try:
            return work()
        except DBAPIError as error:
            if not is_conflict(error):
                raise
        # Not all at once: what conflicted would only meet again.
        pause_s = PAUSE_S * 2**number * (0.5 + random.random())
        threading.Event().wait(pause_s)
    return work()


def tried_again(verb: F) -> F:
    """Have a verb, whose first argument says whose transaction, be tried as `again` does."""

    @wraps(verb)
    def call(tx: object, *args: Any, **kwargs: Any) -> Any:
        return again(tx, lambda: verb(tx, *args, **kwargs))

    return cast("F", call)
