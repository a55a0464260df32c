"""Find out whether a connection leads to a hot standby, a read-only copy of another server."""

from typing import Any

import psycopg
from sqlalchemy import Connection, text

_PARAMETER = "in_hot_standby"
"""The setting that PostgreSQL 14 and newer report on each connection without a query."""


def is_standby(connection: Connection) -> bool:
    """Return whether `connection` leads to a hot standby.

    On a standby unlogged tables such as River's `river_leader` cannot be read: it refuses every
    statement that names one.
    """
    driver: Any = connection.connection.driver_connection
    reported = None
    if isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        reported = driver.info.parameter_status(_PARAMETER)
    elif hasattr(driver, "get_parameter_status"):  # psycopg2
        reported = driver.get_parameter_status(_PARAMETER)
    if reported is not None:
        return bool(reported == "on")
    # The server is older, or the driver or a pooler does not pass the setting on.
    return bool(connection.scalar(text("SELECT pg_is_in_recovery()")))
