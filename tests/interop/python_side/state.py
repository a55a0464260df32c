"""The state of an adapter process: engine, clients, transactions and barriers."""

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
"""Seconds. Less than a test waits for a response, so that the response names what is missing."""


class State:
    """The state of one adapter process."""

    def __init__(self, url: str, application: str) -> None:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        self.application = application
        options = {"connect_args": {"application_name": application}}
        # The pool has the contract's size; with pre-ping a cut connection fails no later call.
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
        """Return the running client on a schema, or one that only inserts."""
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
        """Wait until committed jobs are announced: a response must cover its call's effects."""
        if isinstance(tx, Engine):
            client.flush_announcements(ANSWER_S)

    def check_idle(self) -> None:
        """Refuse a call that needs the tables for itself while others use them."""
        if self.running is not None or self.transactions:
            raise Failure(REJECTED, "a client is running or a transaction is open")

    def close(self) -> None:
        """Close everything."""
        for barrier in self.barriers.values():
            barrier.set()
        if self.running is not None:
            self.running.stop(cancel=True)
        for connection in self.transactions.values():
            connection.close()
        self.engine.dispose()
        self.exact_engine.dispose()
