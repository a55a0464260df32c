"""What an adapter process holds: its engine, clients, transactions, barriers and running client."""

import threading
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, make_url

from riverrun import Client
from riverrun.db.transactions import Tx

from .protocol import NOT_FOUND, REJECTED, Failure, exact

if TYPE_CHECKING:
    from .work import Running

ANSWER_S = 20.0
"""Less than a test waits for an answer, so that the answer says what did not come."""


class State:
    """One adapter process."""

    def __init__(self, url: str, application: str) -> None:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        self.application = application
        options = {"connect_args": {"application_name": application}}
        # As the contract bounds it; a connection that a test has cut must not fail the next call.
        self.engine = create_engine(
            parsed, pool_size=8, max_overflow=2, pool_pre_ping=True, **options
        )
        self.exact_engine = create_engine(parsed, json_deserializer=exact, pool_size=1, **options)
        self.barriers: dict[str, threading.Event] = {}
        self.transactions: dict[str, Connection] = {}
        self.running: Running | None = None
        self.now: datetime | None = None
        self.seed = 0
        self._clients: dict[str | None, Client] = {}

    def client(self, schema: str = "") -> Client:
        """Return the running client, or one that only inserts, on a schema."""
        place = schema or None
        if self.running is not None and self.running.client.schema == place:
            return self.running.client
        if place not in self._clients:
            self._clients[place] = Client(self.engine, schema=place)
        return self._clients[place]

    def transaction(self, handle: str) -> Connection:
        """Return the open transaction `handle`."""
        try:
            return self.transactions[handle]
        except KeyError:
            raise Failure(NOT_FOUND, f"no transaction {handle!r} is open") from None

    def announced(self, client: Client, tx: Tx) -> None:
        """Wait until workers are told of what was committed: an answer speaks for all of it."""
        if isinstance(tx, Engine):
            client.flush_announcements(ANSWER_S)

    def check_idle(self) -> None:
        """Refuse what needs the tables for itself."""
        if self.running is not None or self.transactions:
            raise Failure(REJECTED, "a client is running or a transaction is open")

    def close(self) -> None:
        """End everything."""
        for barrier in self.barriers.values():
            barrier.set()
        if self.running is not None:
            self.running.stop(cancel=True)
        for connection in self.transactions.values():
            connection.close()
        self.engine.dispose()
        self.exact_engine.dispose()
