"""Change many rows although the database refuses some, which are found by halving the batch."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from riverrun.db.refusals import Fault, fault_of
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason

logger = logger_of(__name__)

T = TypeVar("T")
R = TypeVar("R")

TRIES_MAX = 2_000
"""Maximum number of statements for one batch. Rows that are left then wait for the next batch."""

FRUITLESS = 24
"""Refusals in a row, with nothing done, after which the rows are not considered at fault."""


@attrs.frozen(kw_only=True)
class Halves(Generic[T, R]):
    """The result of a batch.

    Attributes:
        results: The result for each part that the database accepted.
        refused: Each item that was refused by itself, with the error.
    """

    results: Sequence[R]
    refused: Sequence[tuple[T, Exception]]


def by_halves(
    items: Sequence[T], act: Callable[[Sequence[T]], R], *, tries: int = TRIES_MAX
) -> Halves[T, R]:
    """Call `act` with `items`. If it raises, call it with each half, and so on down to one item.

    Args:
        items: The items.
        act: A function that acts in a transaction of its own, because it is called again.
        tries: Maximum number of calls.

    Raises:
        Exception: An error of `act` for which no item is at fault: the connection was lost, or many
            parts in a row were refused.
    """
    results: list[R] = []
    refused: list[tuple[T, Exception]] = []
    parts = [items] if items else []
    fruitless = 0
    while parts and tries > 0:
        part = parts.pop()
        tries -= 1
        try:
            results.append(act(part))
            fruitless = 0
        except Exception as error:
            fault = fault_of(error)
            fruitless += fault in (Fault.moment, Fault.disk)
            if fault is Fault.connection or fruitless >= FRUITLESS:
                raise
            if len(part) == 1:
                refused.append((part[0], error))
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
    return Halves(results=results, refused=refused)


def log_refused(what: str, refused: Sequence[tuple[object, Exception]]) -> None:
    """Log how many items were refused, by reason, with some of their names.

    Args:
        what: What could not be done, such as `jobs not deleted`.
        refused: The items, each with its error.
    """
    for why, number in Counter(reason(error) for _, error in refused).items():
        names = [name for name, error in refused if reason(error) == why][:10]
        logger.warning("%s: %s, such as %s: %s", what, number, names, why)
