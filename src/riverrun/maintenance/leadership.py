"""Leadership: the term for which a client leads, as the elector knows it."""

from riverrun.clock import Clock
from riverrun.verbs.elect import Term


class Leadership:
    """The term of this client; only the elector changes it.

    Attributes:
        term: The term; None while the client does not lead.
        trusted_until: Until when the term may be trusted, by the process's monotonic clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.term: Term | None = None
        self.trusted_until = 0.0

    def leads(self) -> bool:
        """Return whether the client leads, as far as it may trust its term."""
        return self.term is not None and self._clock.monotonic() < self.trusted_until
