"""What a request may be refused for. The words for each are in `words`."""

from riverrun.errors import RiverrunError


class BadRequest(RiverrunError, ValueError):
    """A request has a form, a field or a value that the dashboard cannot use.

    Args:
        problem: The name of the problem, of which `words` has the text.
        detail: What was wrong, if that depends on the request.
    """

    def __init__(self, problem: str, detail: str = "") -> None:
        super().__init__(problem, detail)

    @property
    def problem(self) -> str:
        """The name of the problem."""
        return str(self.args[0])

    @property
    def detail(self) -> str:
        """What was wrong."""
        return str(self.args[1])


class NotAllowed(RiverrunError, PermissionError):
    """The user lacks a right.

    Args:
        right: The right.
    """

    def __init__(self, right: str) -> None:
        super().__init__(right)


class NotFound(RiverrunError, LookupError):
    """There is nothing at this address."""
