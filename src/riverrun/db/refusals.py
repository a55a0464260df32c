"""Refusals: whose fault it is that the database did not take a statement."""

from enum import Enum

from psycopg.errors import lookup
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class Fault(Enum):
    """What must change before a statement that was refused can succeed.

    `connection`: there was no connection, or it is lost. No row can help that.
    `moment`: it may be the server, a lock, a privilege, or one large row; other rows will show.
    `disk`: as `moment`, but the server has no room: what waits is never to blame.
    `row`: the row, or what a trigger, a constraint or an index makes of it.
    `value`: the value itself; tried again unchanged, it is refused again.
    """

    connection = "connection"
    moment = "moment"
    disk = "disk"
    row = "row"
    value = "value"


class NoAnswer(Exception):
    """The answer took longer than it may, and its connection was given up."""


_DISK_FULL = "53100"


# Data exceptions, cardinality violations, and limits of the program such as jsonb's 256 MB.
_VALUE = ("21", "22", "54")


# Connection exceptions, authorization, no such database, transaction states such as a read-only
# one, rollbacks, syntax and access rules, resources, object states, interventions, system errors.
_MOMENT = ("08", "0B", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX000")


def fault_of(error: BaseException) -> Fault:
    """Return whose fault it is that a statement failed with `error`."""
    if isinstance(error, NoAnswer):
        return Fault.moment
    state = sqlstate(error)
    if _is_of_connection(error, state):
        return Fault.connection
    if state is None:
        is_value = isinstance(error, TypeError | ValueError | RecursionError)
        # Without a SQLSTATE the driver could not send it, as text with a NUL.
        return Fault.value if is_value or isinstance(error, DBAPIError) else Fault.row
    if state == _DISK_FULL:
        return Fault.disk
    if state.startswith(_VALUE):
        return Fault.value
    return Fault.moment if state.startswith(_MOMENT) else Fault.row


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE that `error` or its cause has from the server, if any."""
    each: BaseException | None = error
    while each is not None:
        driver = getattr(each, "orig", None) or each
        state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
        if isinstance(state, str):
            return state
        each = each.__cause__
    return None


def describe(error: BaseException) -> str:
    """Return what a log may say of `error`: its SQLSTATE and class, and no value of any row."""
    state = sqlstate(error)
    if state is None:
        return type(error).__name__
    try:
        return f"{state} {lookup(state).__name__}"
    except KeyError:  # an application's own
        return f"{state} {type(error).__name__}"


def _is_of_connection(error: BaseException, state: str | None) -> bool:
    if isinstance(error, PoolTimeoutError | OSError):
        return True
    if isinstance(error, DBAPIError):
        # A trigger may raise any SQLSTATE, those of connections too; its connection lives on.
        if error.connection_invalidated or error.statement is None:
            return True
        return state is None and isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, SQLAlchemyError) and not hasattr(error, "orig") and state is None
