"""Connections of a client's own, so that what it says about itself never waits for its workers.

Workers share the host engine's pool. A client that took its heartbeat's connection from there would
fall silent whenever they hold all of it, and be given up.
"""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, NullPool, Pool, QueuePool, event
from sqlalchemy.engine.base import OptionEngine

from riverrun.runtime.outage import OUTAGE, Outage

SIGNS = 5
"""Connections for heartbeat, election, completions, outcomes written apart from the others, and
words to check: one for each, never more."""

CLAIMS = 4
"""Connections for all producers and the poller; a claim has one for milliseconds."""

MAINTENANCE = 1
"""Connections that a leader keeps for its maintenance."""

MAINTENANCE_MORE = 4
"""Connections it opens beyond that while several of its services work at once."""

WAIT_S = 30.0
"""Seconds that a claim or a batch of maintenance waits for one of these connections."""


class OwnEngine(OptionEngine):
    """The host's engine with a pool of its own.

    Connections are made as the host's are: by its `creator` or `connect_args`, past its listeners,
    which see these connections and their statements too.

    Args:
        host: The host's engine.
        outage: Whether its database can be reached.
        size: Most connections kept.
        more: Most connections beyond that, closed after use; 0 keeps none and opens each anew
            where `size` is 0.
    """

    def __init__(self, host: Engine, outage: Outage, *, size: int, more: int = 0) -> None:
        super().__init__(host, {OUTAGE: outage})
        self._host = host
        self._own_pool = _pool_like(host.pool, size, more)
        event.listen(self._own_pool, "invalidate", self._on_invalidate)

    if not TYPE_CHECKING:  # there it is an attribute, which a property may not replace

        @property
        def pool(self) -> Pool:
            """The pool, the host's being another."""
            return self._own_pool

        @pool.setter
        def pool(self, pool: Pool) -> None:
            # By dispose(): the server was lost, or writes no more. The host's pool leads there too.
            self._own_pool = pool
            self._host.dispose()

    def close(self) -> None:
        """Close every connection that is idle; those in use are closed when they come back."""
        self._own_pool.dispose()
        self._own_pool = self._own_pool.recreate()

    def _on_invalidate(self, _connection: object, _record: object, error: object) -> None:
        if error is not None:
            # This one was cut. Workers shall not find out by an attempt each that theirs are.
            self._host.dispose()


class Connections:
    """The engines of a working client; none has a connection before somebody needs one.

    Attributes:
        signs: For what the client says about itself: heartbeats, election, completions, and looks
            whether words heard are true.
        claims: For producers and the poller.
        maintenance: For the leader's services.
        sessions: For what needs a session to itself, listening and rebuilding indexes; each
            connection is opened for it and closed after it.
    """

    def __init__(self, host: Engine, listen: Engine) -> None:
        outage = Outage()
        self.signs = OwnEngine(host, outage, size=SIGNS)
        self.claims = OwnEngine(host, outage, size=CLAIMS)
        self.maintenance = OwnEngine(host, outage, size=MAINTENANCE, more=MAINTENANCE_MORE)
        self.sessions = OwnEngine(listen, outage, size=0)

    def close(self) -> None:
        """Close all that is idle."""
        for engine in self._engines:
            engine.close()

    @property
    def _engines(self) -> tuple[OwnEngine, ...]:
        return self.signs, self.claims, self.maintenance, self.sessions


def _pool_like(host: Pool, size: int, more: int) -> Pool:
    """Return a pool that connects as `host` does and whose listeners are those `host` has now."""
    # As Pool.recreate() does it; nothing public makes a pool of the same connections.
    like: dict[str, Any] = {
        "recycle": host._recycle,
        "pre_ping": host._pre_ping,
        "reset_on_return": host._reset_on_return,
        "echo": host.echo,
        "dialect": host._dialect,
        "_dispatch": host.dispatch,
    }
    if size == 0 or isinstance(host, NullPool):
        return NullPool(host._creator, **like)
    # The one used last is used next: an idle client keeps no more than it uses at once.
    return QueuePool(
        host._creator, pool_size=size, max_overflow=more, timeout=WAIT_S, use_lifo=True, **like
    )
