"""Hot standbys: which connections lead to a server that only follows another one."""

from typing import Any

import psycopg
from sqlalchemy import Connection, text

_PARAMETER = "in_hot_standby"
"""The setting that PostgreSQL 14 and newer report to each connection, without being asked."""


def is_standby(connection: Connection) -> bool:
    """Return whether `connection` leads to a hot standby.

    There tables that are not logged, as River's `river_leader`, cannot be read: a statement that
    names one is refused before it begins.
    """
    driver: Any = connection.connection.driver_connection
    reported = None
    if isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        reported = driver.info.parameter_status(_PARAMETER)
    elif hasattr(driver, "get_parameter_status"):  # psycopg2
        reported = driver.get_parameter_status(_PARAMETER)
    if reported is not None:
        return bool(reported == "on")
    # A driver, or a pooler, that does not pass it on.
    return bool(connection.scalar(text("SELECT pg_is_in_recovery()")))
