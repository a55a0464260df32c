"""Clients of a test that are stopped when it ends."""

from typing import Any

import pytest
from sqlalchemy import Engine

from riverrun import Client, QueueConfig, Workers
from riverrun.errors import StopTimeout


class Started:
    """Makes clients on one engine and schema, and stops them at the end."""

    def __init__(self, engine: Engine, schema: str) -> None:
        self.engine = engine
        self.schema = schema
        self._clients: list[Client] = []

    def make(self, own: Workers, *, slots: int = 4, **options: Any) -> Client:
        """Return a client, not started, with workers `own` and one queue by default."""
        options.setdefault("workers", own)
        options.setdefault("queues", {"default": QueueConfig(max_workers=slots)})
        options.setdefault("soft_stop_timeout", 10)
        client = Client(options.pop("engine", self.engine), schema=self.schema, **options)
        self._clients.append(client)
        return client

    def stop(self) -> None:
        """Stop every client and cancel the jobs it is running."""
        for client in self._clients:
            try:
                client.stop(cancel=True)
            except StopTimeout as error:
                pytest.fail(f"a test left a worker running: {error}")
