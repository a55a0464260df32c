"""Owner: what an executor of attempts calls; the Producer implements it."""

from typing import Protocol

from riverrun.execution.attempt import Attempt
from riverrun.execution.result import AttemptResult


class Owner(Protocol):
    """The object that hands attempts to an executor.

    Its methods are called from slots, in any thread. Only `begins` may be slow.
    """

    def begins(self, attempt: Attempt) -> bool:
        """Return whether `attempt` may begin. If not, the owner has taken it back."""

    def done(self, attempt: Attempt, result: AttemptResult) -> None:
        """Take the result of `attempt`, whose slot is not free yet."""

    def broken(self, attempt: Attempt, error: BaseException) -> None:
        """Take an `attempt` that has no result, only an `error`. It must not raise."""

    def freed(self) -> None:
        """Notice that a slot is free. It must not raise."""
