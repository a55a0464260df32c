"""A raw LISTEN, which shows what clients announce."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

Payloads = Callable[[], list[str]]
"""Returns the payloads that were received since its last call, in order."""


@contextmanager
def listening(url: URL | str, schema: str) -> Iterator[Payloads]:
    """Listen to the inserts in a schema.

    Each look sends a mark and reads until that arrives, so nothing sent before can be missing.
    """
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    received: list[str] = []
    with psycopg.connect(address, autocommit=True) as driver:
        channel = f"{schema!s}.river_insert"
        driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        driver.add_notify_handler(lambda note: received.append(note.payload))

        def read() -> list[str]:
            driver.execute("SELECT pg_notify(%s, 'mark')", [channel])
            driver.execute("SELECT 1")
            payloads, received[:] = [each for each in received if each != "mark"], []
            return payloads

        yield read
