"""Classify the errors of statements by what is at fault and what can still succeed."""

from enum import Enum

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class Fault(Enum):
    """What must change before a refused statement can succeed.

    `connection`: there was no connection, or it was lost. No row is at fault.
    `moment`: the server, a lock, a privilege, or one large row. Writing other rows shows which.
    `disk`: as `moment`, but the server's disk is full, so that no row is ever at fault.
    `row`: the row, or a trigger, a constraint or an index that refuses it.
    `value`: the value itself; without a change it is refused again.
    """

    connection = "connection"
    moment = "moment"
    disk = "disk"
    row = "row"
    value = "value"


class NoAnswer(Exception):
    """The server did not answer in time, and the connection was closed."""


class UpdateIgnored(Exception):
    """A row was free, but its update changed nothing, because of a trigger or a policy."""


_DISK_FULL = "53100"


# Data exceptions, cardinality violations, and limits of the program such as jsonb's 256 MB.
_VALUE = ("21", "22", "54")


# Connection exceptions, authorization, no such database, transaction states such as a read-only
# one, rollbacks, syntax and access rules, resources, object states, interventions, system errors.
_MOMENT = ("08", "0B", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX000")


def fault_of(error: BaseException) -> Fault:
    """Return what is at fault when a statement fails with `error`."""
    if isinstance(error, NoAnswer):
        return Fault.moment
    state = sqlstate(error)
    if _is_of_connection(error, state):
        return Fault.connection
    if state is None:
        is_value = isinstance(error, TypeError | ValueError | RecursionError)
        # Without a SQLSTATE it was the driver that refused the value, such as text with a NUL.
        return Fault.value if is_value or isinstance(error, DBAPIError) else Fault.row
    if state == _DISK_FULL:
        return Fault.disk
    if state.startswith(_VALUE):
        return Fault.value
    return Fault.moment if state.startswith(_MOMENT) else Fault.row


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of `error` or of its causes; None if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        driver = getattr(cause, "orig", None) or cause
        state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
        if isinstance(state, str):
            return state
        cause = cause.__cause__
    return None


def _is_of_connection(error: BaseException, state: str | None) -> bool:
    if isinstance(error, PoolTimeoutError | OSError):
        return True
    if isinstance(error, DBAPIError):
        # A trigger may raise any SQLSTATE, even a connection error's, and the connection lives on.
        if error.connection_invalidated or error.statement is None:
            return True
        return state is None and isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, SQLAlchemyError) and not hasattr(error, "orig") and state is None
