"""A client's own connections, so that its heartbeats never wait for its workers.

Workers share the host engine's pool. If heartbeats took their connection from there, they would
stop whenever workers hold the whole pool, and other clients would rescue the client's jobs.
"""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, NullPool, Pool, QueuePool, event
from sqlalchemy.engine.base import OptionEngine

from riverrun.db.engines import CONNECT_S, connecting_within
from riverrun.db.kept import KEPT, Kept
from riverrun.runtime.outage import OUTAGE, Outage

SIGNS = 5
"""Connections for the heartbeat, the election, completions, outcomes written apart from the others,
and looks at queues' rows. Each needs one."""

CLAIMS = 4
"""Connections for all producers and the poller. A claim needs one for milliseconds."""

MAINTENANCE = 1
"""Connections that a leader keeps for its maintenance."""

MAINTENANCE_MORE = 4
"""Connections that it opens beyond that while several of its services work at once."""

WAIT_S = 30.0
"""Seconds that a claim or a batch of maintenance waits for one of these connections."""


class OwnEngine(OptionEngine):
    """The host's engine with a pool of its own.

    Connections are made as the host's are, by its `creator` or `connect_args`. The host's listeners
    see these connections and their statements, too.

    Args:
        host: The host's engine.
        outage: The record of whether its database can be reached.
        size: How many connections to keep at most; 0 opens one for each use and closes it after.
        more: How many connections beyond that may be open. They are closed after use. Default: 0.

    Attributes:
        connect_s: Seconds that one try to connect may take.
    """

    def __init__(self, host: Engine, outage: Outage, *, size: int, more: int = 0) -> None:
        self._kept = Kept()
        super().__init__(host, {OUTAGE: outage, KEPT: self._kept})
        self._host = host
        self.connect_s = CONNECT_S
        self._own_pool = self._pool_like(host.pool, size, more)
        event.listen(self._own_pool, "invalidate", self._on_invalidate)

    if not TYPE_CHECKING:  # there it is an attribute, which a property may not replace

        @property
        def pool(self) -> Pool:
            """The engine's own pool, not the host's."""
            return self._own_pool

        @pool.setter
        def pool(self, pool: Pool) -> None:
            # Set by dispose(): the server was lost, or is read-only now. So is the host's pool's.
            self._own_pool = pool
            self._host.dispose()

    def close(self) -> None:
        """Close every idle connection. Those in use are closed when they are returned."""
        self._kept.close()
        self._own_pool.dispose()
        self._own_pool = self._own_pool.recreate()

    def _on_invalidate(self, _connection: object, _record: object, error: object) -> None:
        if error is not None:
            # This connection was cut. The host's pool is disposed of, so that workers do not each
            # lose an attempt to find out that theirs are cut, too.
            self._host.dispose()

    def _pool_like(self, host: Pool, size: int, more: int) -> Pool:
        """Return a pool that connects as `host` does and whose listeners are those it has now."""

        def connect(connection_record: Any = None) -> Any:
            with connecting_within(self.connect_s):
                return host._invoke_creator(connection_record)

        # As Pool.recreate() does it. No public function makes a pool of the same connections.
        like: dict[str, Any] = {
            "recycle": host._recycle,
            "pre_ping": host._pre_ping,
            "reset_on_return": host._reset_on_return,
            "echo": host.echo,
            "dialect": host._dialect,
            "_dispatch": host.dispatch,
        }
        if size == 0 or isinstance(host, NullPool):
            return NullPool(connect, **like)
        # The connection used last is used next: a quiet client keeps no more than it uses at once.
        return QueuePool(
            connect, pool_size=size, max_overflow=more, timeout=WAIT_S, use_lifo=True, **like
        )


class Connections:
    """The engines of a working client. None has a connection before it is first needed.

    Attributes:
        signs: For heartbeats, the election, completions, and looks at the rows that notifications
            are about.
        claims: For producers and the poller.
        maintenance: For the leader's services.
        sessions: For listening and rebuilding indexes, which need a session to themselves. Each
            connection is opened for one of them and closed after it.
    """

    def __init__(self, host: Engine, listen: Engine) -> None:
        outage = Outage()
        self.signs = OwnEngine(host, outage, size=SIGNS)
        self.claims = OwnEngine(host, outage, size=CLAIMS)
        self.maintenance = OwnEngine(host, outage, size=MAINTENANCE, more=MAINTENANCE_MORE)
        # By another way the database may be out of reach although the client works.
        listens = outage if listen is host else Outage("listen_engine")
        self.sessions = OwnEngine(listen, listens, size=0)

    def limit_connects(self, limit_s: int) -> None:
        """Let each try to connect take at most `limit_s` seconds from now on, at least 2."""
        for engine in self._engines:
            engine.connect_s = limit_s

    def close(self) -> None:
        """Close all idle connections."""
        for engine in self._engines:
            engine.close()

    @property
    def _engines(self) -> tuple[OwnEngine, ...]:
        return self.signs, self.claims, self.maintenance, self.sessions
