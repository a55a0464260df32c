"""Halves: do something to many rows although the database refuses it for some of them."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from riverrun.db.refusals import Fault, fault_of
from riverrun.logs.text import reason

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

TRIES_MAX = 2_000
"""Most statements for one batch; what is not sorted by then is left for the next."""

FRUITLESS = 24
"""Refusals in a row, with nothing done, by which it is the moment's fault and not the rows'."""


@attrs.frozen(kw_only=True)
class Halves(Generic[T, R]):
    """What became of a batch.

    Attributes:
        results: What was returned for each part that was taken.
        refused: What was refused alone, and why.
    """

    results: Sequence[R]
    refused: Sequence[tuple[T, Exception]]


def by_halves(
    items: Sequence[T], act: Callable[[Sequence[T]], R], *, tries: int = TRIES_MAX
) -> Halves[T, R]:
    """Call `act` with `items`; where that is refused with each half, and so on down to one.

    Args:
        items: What to act upon.
        act: Acts in a transaction of its own, for it is called again.
        tries: Most calls.

    Raises:
        Exception: What `act` raises, if it is no item's fault: the connection's, or the same for
            many parts in a row.
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
    """Log how many were refused, by reason, with some of their names.

    Args:
        what: What could not be done, such as `not deleted`.
        refused: What was refused alone, and why.
    """
    for why, number in Counter(reason(error) for _, error in refused).items():
        names = [name for name, error in refused if reason(error) == why][:10]
        logger.warning("%s: %s, such as %s: %s", what, number, names, why)
