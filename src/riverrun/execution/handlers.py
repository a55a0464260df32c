"""The handlers by which an application decides about failed and stuck jobs, and their results."""

from collections.abc import Callable

import attrs

from riverrun.jobs.row import JobRow


@attrs.frozen(kw_only=True)
class ErrorHandlerResult:
    """The decision of an error handler.

    Attributes:
        set_cancelled: Whether the job is cancelled instead of tried again. Its error is recorded.
            Default: False.
    """

    set_cancelled: bool = False


ErrorHandler = Callable[[JobRow, BaseException], ErrorHandlerResult | None]


@attrs.frozen(kw_only=True)
class JobStuckHandlerResult:
    """The decision of a handler of stuck jobs.

    Attributes:
        add_worker_slot: Whether a slot is opened in place of the stuck one, until that is free.
            Default: False.
    """

    add_worker_slot: bool = False


JobStuckHandler = Callable[[JobRow], JobStuckHandlerResult | None]
