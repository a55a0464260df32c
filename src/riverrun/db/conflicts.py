"""Retry transactions that PostgreSQL rolled back because of a conflict with another one."""

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
"""The SQLSTATEs of a serialization failure and of a deadlock."""


LOCKED = "55P03"
"""The SQLSTATE of NOWAIT or a `lock_timeout` where another transaction has locked the row."""


TRIES = 6


PAUSE_S = 0.01
"""Seconds before the second try; doubled before each further try."""


def is_conflict(error: BaseException | None) -> bool:
    """Return whether `error` or one of its causes is a conflict between transactions."""
    return error is not None and sqlstate(error) in CONFLICTS


def met_another(error: BaseException) -> bool:
    """Return whether a worker's transaction failed only because of another transaction.

    That is so after a conflict, a lock for which a statement did not wait, or an ORM object whose
    version has changed. The whole chain of errors counts, because a worker may have raised its own
    error from such a one.
    """
    for link in chain(error):
        driver = getattr(link, "orig", None) or link
        state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
        if isinstance(link, StaleDataError) or state in CONFLICTS or state == LOCKED:
            return True
    return False


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its causes, and the errors during whose handling they were raised."""
    seen: set[int] = set()
    left = [error]
    while left:
        link = left.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        if link.__cause__ is not None:
            left.append(link.__cause__)
        if link.__context__ is not None and not link.__suppress_context__:
            left.append(link.__context__)


def again(tx: object, work: Callable[[], R]) -> R:
    """Return the result of `work`. On an Engine, try it again after a conflict.

    The transaction of a Session or Connection belongs to the application, which must decide itself
    what to do after a conflict.

    Args:
        tx: The transaction, as for a verb.
        work: A function that begins and commits the whole transaction.

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
        # Wait for a random time, or the same transactions would conflict again.
        pause_s = PAUSE_S * 2**number * (0.5 + random.random())
        threading.Event().wait(pause_s)
    return work()


def tried_again(verb: F) -> F:
    """Decorate a verb, whose first argument is its transaction, so that `again` calls it."""

    @wraps(verb)
    def call(tx: object, *args: Any, **kwargs: Any) -> Any:
        return again(tx, lambda: verb(tx, *args, **kwargs))

    return cast("F", call)
