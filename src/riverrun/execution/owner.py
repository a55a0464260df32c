"""Owner: what an executor asks and tells of the attempts that it was handed."""

from typing import Protocol

from riverrun.execution.attempt import Attempt
from riverrun.execution.result import AttemptResult


class Owner(Protocol):
    """Who handed the attempts over. Called from slots, in any thread; only `begins` may be slow."""

    def begins(self, attempt: Attempt) -> bool:
        """Return whether `attempt` may begin; if not, the owner has taken it back."""

    def done(self, attempt: Attempt, ended: AttemptResult) -> None:
        """Take what came of `attempt`, whose slot is not free yet."""

    def broken(self, attempt: Attempt, error: BaseException) -> None:
        """Take `attempt`, of which `error` is all that came. Raises nothing."""

    def freed(self) -> None:
        """Take note that a slot is free. Raises nothing."""
