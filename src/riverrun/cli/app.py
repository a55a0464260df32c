"""What the commands share: finding the application's client, and what an exit code means."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from riverrun.client import Client
from riverrun.errors import RiverrunError


class ExitCode(IntEnum):
    """What a command's exit code says."""

    ok = 0
    cut_off = 1
    usage = 2
    unreachable = 3
    schema_behind = 4
    interrupted = 130


class CommandError(click.ClickException):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click declares what it lets one set


def load_client(app: str) -> Client:
    """Return the client that `app`, `module:attribute`, names.

    Raises:
        CommandError: If there is none; exit code 2.
    """
    module_name, _, attribute = app.partition(":")
    if not module_name or not attribute:
        raise CommandError(f"{app!r} is not module:client, such as jobs:client", ExitCode.usage)
    # As `python -m` would: the application's modules stand in the current folder.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        problem = f"cannot import {app!r}: {error}. Is its folder the current one?"
        raise CommandError(problem, ExitCode.usage) from error
    except Exception as error:
        # Its text may hold whatever the application was given, a password too; its place does not.
        problem = f"cannot import {app!r}: {module_name} raises {type(error).__name__}"
        advice = f"python -c 'import {module_name}' shows where"
        raise CommandError(f"{problem}; {advice}", ExitCode.usage) from error
    if not isinstance(found, Client):
        problem = f"{app!r} is of type {type(found).__name__}; expected a riverrun.Client"
        raise CommandError(problem, ExitCode.usage)
    return found


@contextmanager
def database_engine(database_url: str) -> Iterator[Engine]:
    """Yield an engine on a PostgreSQL by psycopg 3, for the while of a command.

    Raises:
        CommandError: If there is none to be had, or what was done with it failed.
    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise CommandError("the database URL cannot be read", ExitCode.usage) from error
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername != "postgresql+psycopg":
        problem = f"{url.drivername} is no database for riverrun; expected postgresql://..."
        raise CommandError(problem, ExitCode.usage)
    engine = create_engine(url)
    try:
        yield engine
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0]
        raise CommandError(f"cannot reach the database: {reason}", ExitCode.unreachable) from error
    except RiverrunError as error:
        raise CommandError(str(error), ExitCode.usage) from error
    finally:
        engine.dispose()
