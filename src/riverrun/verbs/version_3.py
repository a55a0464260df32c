"""Whether version 3 of riverrun's line is there. A database at version 2 works without it."""

from riverrun.clock import Clock
from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.queries import version_3 as queries

AGAIN_S = 60.0
"""Seconds after which a client looks again for a version that was not there."""


@tried_again
def has_version_3(tx: Tx, *, schema: str | None = None) -> bool:
    """Return whether the database has samples, actions, and switches of periodic jobs.

    Without them, `list_samples` and `list_actions` return nothing, and the switches of periodic
    jobs raise SchemaMissing.

    Args:
        tx: The transaction, as for `insert`.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        return find_in(transaction, schema)


def find_in(transaction: Transaction, schema: str | None) -> bool:
    """Return whether version 3 is there, read in `transaction`."""
    found = transaction.execute(queries.find_table(), {"schema_name": schema})
    return bool(found.scalar_one())


class Version3:
    """What a client knows about version 3. While that is missing, it checks again each minute.

    Used by one thread.
    """

    def __init__(self, schema: str | None, clock: Clock) -> None:
        self._schema = schema
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Check again the next time, such as after a statement that failed."""
        self._there = False
        self._again_at: float | None = None

    def is_there(self, transaction: Transaction) -> bool:
        """Return whether version 3 is there; read in `transaction` if that is not known."""
        now = self._clock.monotonic()
        if not self._there and (self._again_at is None or now >= self._again_at):
            self._there = find_in(transaction, self._schema)
            self._again_at = now + AGAIN_S
        return self._there
