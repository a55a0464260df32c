"""What the commands share: options, finding the client or database, and exit codes."""

import importlib
import io
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import PurePath
from typing import Any, TypeVar

import attrs
import click
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from riverrun.client.client import Client
from riverrun.db.engines import engine_at
from riverrun.errors import (
    JobNotFound,
    PeriodicJobNotFound,
    QueueNotFound,
    RiverrunError,
    SchemaMissing,
    StartTimeout,
)
from riverrun.logs.text import printable_lines
from riverrun.logs.traces import folded

F = TypeVar("F", bound=Callable[..., Any])

HOST_CLIENT = "riverrun.host_client"
"""The key in click's `Context.meta` of a function that returns the host application's client."""


class ExitCode(IntEnum):
    """Exit codes of the commands.

    Code 1 also means not found, not healthy, or failed.
    """

    ok = 0
    cut_off = 1
    usage = 2
    unreachable = 3
    schema_behind = 4
    broken = 5
    interrupted = 130


class CommandError(click.ClickException):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click's class attribute


def load_client(app: str) -> Client:
    """Import and return the application's client.

    Args:
        app: Where the client is, as `module:attribute`.

    Raises:
        CommandError: If there is no such client; exit code 2.
    """
    module_name, _, attribute = app.partition(":")
    path = PurePath(module_name)
    if path.suffix == ".py" or len(path.parts) > 1:
        inside = not path.is_absolute() and ".." not in path.parts
        module = ".".join(path.with_suffix("").parts if inside else [path.stem])
        meant = f"{module}:{attribute or 'client'}"
        problem = f"{app!r} names a file; expected module:client, such as {meant}"
        raise CommandError(problem, ExitCode.usage)
    if not module_name or module_name.startswith(".") or not attribute:
        raise CommandError(f"{app!r} is not module:client, such as jobs:client", ExitCode.usage)
    # As `python -m` does: the application's modules are in the current folder.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _part_of(module_name, error.name):
            place = f"in {os.getcwd()} or elsewhere on sys.path"
            problem = f"cannot import {app!r}: no module {error.name!r} {place}"
            raise CommandError(problem, ExitCode.usage) from error
        # The error is in the application's own code, so its author needs the traceback.
        text = "".join(traceback.format_exception(error, limit=-50))
        click.echo(printable_lines(folded(text)), err=True)
        problem = f"cannot import {app!r}: {type(error).__name__} in {module_name}"
        raise CommandError(problem, ExitCode.usage) from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            problem = f"{module_name} has no {attribute!r}{_clients_in(found)}"
            raise CommandError(problem, ExitCode.usage) from error
    if not isinstance(found, Client):
        problem = f"{app!r} is of type {type(found).__name__}; expected a riverrun.Client"
        raise CommandError(problem, ExitCode.usage)
    return found


def _part_of(module_name: str, missing: str | None) -> bool:
    """Return whether `missing` is `module_name` or one of its parent packages.

    Otherwise the module was found, and something that it imports was not.
    """
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _clients_in(module: object) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Client)]
    return f"; it has the client {', '.join(map(repr, names))}" if names else ""


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Declare an option that the variable `RIVERRUN_<OPTION>` also sets; its help names it."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    variable = "RIVERRUN_" + long.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, **{"envvar": variable, "show_envvar": True, **settings})


class Seconds(click.FloatRange):
    """A number of seconds, at most 1e9 (thirty years), which timedelta and waits accept; no NaN."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0, max=1e9)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number of seconds."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class JobId(click.IntRange):
    """The id of a job."""

    name = "job id"


JOB_ID = JobId(1, 2**63 - 1)
app_option = option("--app", "-A", metavar="MODULE:CLIENT", help="The application's client.")


def database_option(*, required: bool = True) -> Callable[[F], F]:
    """Declare `--database-url`."""
    return option(
        "--database-url",
        envvar=["RIVERRUN_DATABASE_URL", "DATABASE_URL"],
        required=required,
        metavar="URL",
        help="Such as postgresql://localhost/app.",
    )


schema_option = option(
    "--schema", help="The schema of riverrun's tables. Default: found by the search path."
)
json_option = option("--json", "as_json", is_flag=True, help="Print JSON.")


watch_option = option(
    "--watch",
    type=click.FloatRange(0.2, 3_600),
    metavar="SECONDS",
    help="Repeat after this many seconds, until Ctrl-C.",
)


def target_options(command: F) -> F:
    """Declare `--app`, `--database-url` and `--schema`, for what to act on, and `--json`."""
    for declare in (
        json_option,
        schema_option,
        database_option(required=False),
        app_option,
    ):
        command = declare(command)
    return command


@attrs.frozen
class Target:
    """What a command acts on.

    Attributes:
        client: The application's client, or a client made for the command that only inserts.
        is_application: Whether the client is the application's.
        engine: The client's engine.
        schema: The schema of the client's tables.
    """

    client: Client
    is_application: bool = True

    @property
    def engine(self) -> Engine:
        """The client's engine."""
        return self.client.engine

    @property
    def schema(self) -> str | None:
        """The client's schema."""
        return self.client.schema


@contextmanager
def target(app: str | None, database_url: str | None, schema: str | None) -> Iterator[Target]:
    """Yield what a command acts on, and turn errors inside into one line and an exit code.

    A `--database-url` on the command line comes first, then the application, then the URL in the
    environment. Inside Flask's or Pyramid's command group, the application is the host.

    Args:
        app: Where the application's client is, as `module:attribute`.
        database_url: A database to use without an application.
        schema: The schema of the tables.

    Raises:
        CommandError: If neither an application nor a database is given, or the command failed.
    """
    _escape_what_the_terminal_lacks()
    with reported():
        host = host_client(app)
        if host is None and app:
            host = load_client(app)
        context = click.get_current_context()
        source = context.get_parameter_source("database_url")
        named = database_url and (host is None or source is click.core.ParameterSource.COMMANDLINE)
        if named and database_url:
            with database_engine(database_url) as engine:
                yield Target(Client(engine, schema=schema), is_application=False)
            return
        if host is None:
            problem = "which database? Pass --app MODULE:CLIENT or --database-url URL"
            raise CommandError(f"{problem}, or set RIVERRUN_APP or DATABASE_URL", ExitCode.usage)
        if schema is not None and schema != host.schema:
            problem = f"--schema is {schema!r}, but the application's client has {host.schema!r}"
            raise CommandError(f"{problem}; leave one out", ExitCode.usage)
        yield Target(host)


def _escape_what_the_terminal_lacks() -> None:
    """Let stdout escape characters of a row that the locale's encoding, such as Latin-1, lacks."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def host_client(app: str | None) -> Client | None:
    """Return the client of the host application whose command group this is; else None.

    Args:
        app: Another client that the command was given; one in the environment is for `riverrun`.

    Raises:
        CommandError: If the command line names another client in the group of a host.
    """
    context = click.get_current_context()
    if HOST_CLIENT not in context.meta:
        return None
    sources = {context.get_parameter_source(name) for name in ("app", "client_named")}
    if click.core.ParameterSource.COMMANDLINE in sources:
        problem = f"{app!r} names another client than the application's; leave it out"
        raise CommandError(f"{problem}, or use the command riverrun", ExitCode.usage)
    client: Client = context.meta[HOST_CLIENT]()
    return client


@contextmanager
def reported() -> Iterator[None]:
    """Turn the errors that a command may raise into one line and an exit code.

    Raises:
        CommandError: In place of an error of riverrun or of the database.
    """
    try:
        yield
    except DBAPIError as error:
        raise CommandError(*_database_problem(error)) from error
    except PoolTimeout as error:
        raise CommandError("no connection to the database is free", ExitCode.unreachable) from error
    except UnicodeEncodeError as error:
        problem = "an argument is not valid UTF-8, so the database cannot search for it"
        raise CommandError(problem, ExitCode.usage) from error
    except StartTimeout as error:
        raise CommandError(str(error), ExitCode.unreachable) from error
    except SchemaMissing as error:
        raise CommandError(str(error), ExitCode.schema_behind) from error
    except (JobNotFound, PeriodicJobNotFound, QueueNotFound) as error:
        raise CommandError(str(error), ExitCode.cut_off) from error
    except RiverrunError as error:
        raise CommandError(str(error), ExitCode.usage) from error


@contextmanager
def database_engine(database_url: str) -> Iterator[Engine]:
    """Yield an engine for a PostgreSQL database; dispose of it at the end of the command.

    Raises:
        CommandError: If the URL is not one of PostgreSQL, or the command failed.
    """
    with reported():
        engine = engine_at(database_url)
        try:
            yield engine
        finally:
            engine.dispose()


# SQLSTATE classes: connection, authorization, no such database, insufficient resources, shutdown.
_UNREACHABLE = ("08", "28", "3D", "53", "57P")


def _database_problem(error: DBAPIError) -> tuple[str, ExitCode]:
    """Return a one-line message for a database error, and the exit code."""
    reason = (str(error.orig).splitlines() or [type(error.orig).__name__])[0]
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, OperationalError) and (state is None or state.startswith(_UNREACHABLE)):
        return f"cannot reach the database: {reason}", ExitCode.unreachable
    return f"the database: {reason}", ExitCode.cut_off


def json_object(name: str, text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in an argument of the command line.

    Args:
        name: The argument's name, for the error.
        text: The argument.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problem = f'{name}: expected a JSON object, such as \'{{"to": "alice@example.com"}}\''
        raise CommandError(problem, ExitCode.usage)
    return value
