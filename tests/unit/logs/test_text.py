"""What reaches a log line: nothing of a row's values, and nothing that forges a line."""

from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from riverrun.logs.text import printable, printable_lines, reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("send_email", "send_email"),
        ("kk\nCRITICAL root: forged", r"kk\nCRITICAL root: forged"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\u2028b\u202ec\ud800", r"a\u2028b\u202ec\ud800"),
        ("größe", "größe"),
        (7, "7"),
        ("x" * 201, "x" * 200 + "..."),
    ],
)
def test_one_line_without_control_characters(given: object, expected: str) -> None:
    """Line breaks, escape sequences and marks that reverse text are escaped; the rest is kept."""
    assert printable(given) == expected


def test_lines_are_kept() -> None:
    """Text of several lines keeps its line breaks and tabs, and no other control character."""
    assert printable_lines("a\n\tb\x1b[31m\r") == "a\n\tb\\x1b[31m\\r"


class Refused(psycopg.errors.UniqueViolation):
    """An error with details as a server sends them."""

    def __init__(self, **diag: str) -> None:
        super().__init__("duplicate key value ... DETAIL: Key (card)=(4111-SECRET)")
        self._diag = diag

    @property
    def diag(self) -> Any:
        return SimpleNamespace(
            **{"message_primary": None, "table_name": None, "constraint_name": None, **self._diag}
        )


def wrapped(error_type: type[DBAPIError], orig: Exception) -> DBAPIError:
    """Return a database's error as SQLAlchemy raises it, with a secret among its parameters."""
    return error_type("INSERT ...", {"args": "4111-SECRET"}, orig)


def test_an_error_is_named_without_its_values() -> None:
    """A refused row is named by SQLSTATE, table and constraint, never by its values."""
    refused = Refused(table_name="river_job", constraint_name="no\ncards")
    text = reason(wrapped(IntegrityError, refused))
    assert text == r"IntegrityError 23505 (table river_job, constraint no\ncards)"


def test_a_missing_right_is_named() -> None:
    """An error that can name only objects and rights gives its first line."""
    denied = psycopg.errors.InsufficientPrivilege("permission denied for table riverrun_periodic")
    assert reason(wrapped(ProgrammingError, denied)) == (
        "ProgrammingError 42501: permission denied for table riverrun_periodic"
    )


def test_a_message_of_a_trigger_is_left_out() -> None:
    """A trigger's RAISE is named by its SQLSTATE: its message may hold values of the row."""
    raised = SimpleNamespace(
        sqlstate="54000",
        diag=SimpleNamespace(message_primary="4111-SECRET", source_function="exec_stmt_raise"),
    )
    assert reason(wrapped(OperationalError, cast("Exception", raised))) == (
        "OperationalError 54000 ProgramLimitExceeded"
    )
    own = SimpleNamespace(sqlstate="MY001", diag=raised.diag)
    assert reason(wrapped(OperationalError, cast("Exception", own))) == "OperationalError MY001"


def test_an_outage_is_logged_with_its_cause() -> None:
    """A connection that cannot be made says why; so does an error of the operating system."""
    gone = psycopg.OperationalError('connection to server at "::1" failed: refused\nIs it up?')
    assert reason(wrapped(OperationalError, gone)) == (
        'OperationalError: connection to server at "::1" failed: refused'
    )
    assert reason(OSError(28, "No space left on device")) == (
        "OSError: [Errno 28] No space left on device"
    )


def test_an_application_s_error_is_its_class() -> None:
    """Any other exception gives only its class, because its text may hold args."""
    assert reason(ValueError("card 4111-SECRET")) == "ValueError"
