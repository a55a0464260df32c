"""What an application may be asked about a failed or a stuck job, and what it may answer."""

from collections.abc import Callable

import attrs

from riverrun.jobs.row import JobRow


@attrs.frozen(kw_only=True)
class ErrorHandlerResult:
    """What an error handler decides.

    Attributes:
        set_cancelled: Whether the job is cancelled, its error recorded, instead of tried again.
    """

    set_cancelled: bool = False


ErrorHandler = Callable[[JobRow, BaseException], ErrorHandlerResult | None]


@attrs.frozen(kw_only=True)
class JobStuckHandlerResult:
    """What a handler of stuck jobs decides.

    Attributes:
        add_worker_slot: Whether a slot is opened in place of the stuck one, until that is free.
    """

    add_worker_slot: bool = False


JobStuckHandler = Callable[[JobRow], JobStuckHandlerResult | None]
