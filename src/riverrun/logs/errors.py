"""Errors of listeners, handlers and riverrun itself, as they reach a log: without their texts.

The logger `riverrun.tracebacks` is the switch for texts. It is off until its level is set, as
`riverrun work --tracebacks` does.
"""

import logging

from riverrun.logs.text import printable_lines, reason
from riverrun.logs.traces import folded, outline, trace_of

tracebacks = logging.getLogger("riverrun.tracebacks")


tracebacks.setLevel(logging.CRITICAL + 1)


def log_error(
    to: logging.Logger,
    error: BaseException,
    message: str,
    *args: object,
    level: int = logging.ERROR,
) -> None:
    """Log an error that nobody expected, with the frames that lead to it.

    Args:
        to: Where to.
        error: What was raised.
        message: What did not work, with the places of `args`.
        *args: The values of `message`.
        level: The level.
    """
    if tracebacks.isEnabledFor(level):
        text = printable_lines(folded(trace_of(error)))
    else:
        text = f"{reason(error)}\n{outline(error)}"
    to.log(level, f"{message}: %s", *args, text)
