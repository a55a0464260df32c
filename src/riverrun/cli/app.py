"""What the commands share: finding the application's client, and what an exit code means."""

import importlib
import os
import sys
from enum import IntEnum

import click

from riverrun.client import Client


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
