"""Ways to wait for what must come, and how long any of them waits."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

DEADLINE_S = 100.0
"""Less than the `timeout` of a test, so that a failure says what did not come."""

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    what: str,
    deadline_s: float = DEADLINE_S,
    why: Callable[[], object] = lambda: "",
) -> T:
    """Wait until `condition` holds, and return what it returned.

    Args:
        condition: Returns something true once it holds.
        what: What did not come, for the failure's message.
        deadline_s: Seconds to wait.
        why: Returns what stands in the way, for the failure's message.
    """
    end = monotonic() + deadline_s
    pause = threading.Event()
    while not (found := condition()):
        assert monotonic() < end, f"{what}: not within {deadline_s:g} s; {why()}"
        pause.wait(0.02)
    return found
