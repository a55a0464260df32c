"""What the dashboard answers when it does not answer with a page."""

from http import HTTPStatus
from typing import NamedTuple

from markupsafe import escape
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from riverrun.db.reading import CANCELED
from riverrun.db.refusals import sqlstate
from riverrun.errors import (
    InvalidOption,
    JobNotFound,
    JobRunning,
    PeriodicJobNotFound,
    QueueNotFound,
    SchemaMissing,
    UniqueKeyTaken,
)
from riverrun.web.errors import BadRequest, NotAllowed, NotFound
from riverrun.web.responses import Response
from riverrun.web.words import WORDS


class Problem(NamedTuple):
    """Why there is no page.

    Attributes:
        status: The response's status.
        name: The name of the problem's words.
        detail: What the words cannot know.
    """

    status: HTTPStatus
    name: str
    detail: str = ""


def problem_of(error: Exception) -> Problem | None:
    """Return what an error means for the request; None if it was not expected."""
    match error:
        case BadRequest():
            detail = " ".join(filter(None, (WORDS[f"bad_{error.problem}"], error.detail)))
            return Problem(HTTPStatus.BAD_REQUEST, "bad_request", detail)
        case InvalidOption():
            # A verb refuses a value of the request, such as a name with a NUL.
            detail = f"{WORDS['bad_filter']} {error}"
            return Problem(HTTPStatus.BAD_REQUEST, "bad_request", detail)
        case NotAllowed():
            detail = WORDS["lacks_right"].format(right=error.args[0])
            return Problem(HTTPStatus.FORBIDDEN, "lacking", detail)
        case JobNotFound() | QueueNotFound() | PeriodicJobNotFound():
            return Problem(HTTPStatus.NOT_FOUND, "missing", str(error))
        case NotFound():
            return Problem(HTTPStatus.NOT_FOUND, "not_found")
        case JobRunning() | UniqueKeyTaken():
            return Problem(HTTPStatus.CONFLICT, "conflict", str(error))
        case SchemaMissing():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no_schema", str(error))
        case PoolTimeout():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no_database")
        case DBAPIError():
            return _of_database(error)
    return None


def _of_database(error: DBAPIError) -> Problem | None:
    state = sqlstate(error)
    if state == CANCELED:
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_slow")
    if state is not None and state.startswith("22"):
        # A value that the database's encoding or types cannot have, so no row has it.
        return Problem(HTTPStatus.BAD_REQUEST, "bad_request", WORDS["bad_value"])
    if isinstance(error, OperationalError | InterfaceError):
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no_database")
    return None


def bare(status: HTTPStatus, problem: str) -> Response:
    """Return a page that shows nothing of the dashboard, for those who may not see it."""
    title, text = escape(WORDS[problem]), escape(WORDS[f"{problem}_text"])
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{text}</p></html>\n"
    )
    return Response(body=page.encode(), status=status)
