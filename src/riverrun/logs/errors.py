"""Log unexpected errors of listeners, handlers and riverrun itself, without their texts.

Setting the level of the logger `riverrun.tracebacks` turns the texts on, as
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
    """Log an unexpected error, with the frames that lead to it.

    Args:
        to: The logger.
        error: The error.
        message: What failed, with a `%s` for each of `args`.
        *args: The values for `message`.
        level: The level of the log line. Default: ERROR.
    """
    if tracebacks.isEnabledFor(level):
        text = printable_lines(folded(trace_of(error)))
    else:
        text = f"{reason(error)}\n{outline(error)}"
    to.log(level, f"{message}: %s", *args, text)
