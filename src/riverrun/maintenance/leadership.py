"""The term for which this client leads, according to its elector."""

from riverrun.clock import Clock
from riverrun.verbs.elect import Term


class Leadership:
    """The term of this client. Only the elector changes it.

    Attributes:
        term: The term; None while the client does not lead.
        trusted_until: The time until which the term can be trusted, by the process's monotonic
            clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.term: Term | None = None
        self.trusted_until = 0.0

    def leads(self) -> bool:
        """Return whether the client leads and can still trust its term."""
        return self.term is not None and self._clock.monotonic() < self.trusted_until
