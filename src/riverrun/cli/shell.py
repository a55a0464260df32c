"""Shell: the group of the commands, each of which is imported when it is used."""

import errno
import importlib
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import click

HOST_COMMANDS = frozenset(
    {"dashboard", "health", "insert", "jobs", "migrate", "periodic", "queues", "top", "work"}
)
"""The names of the commands that a host application's command group has too."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def open_standard_files() -> None:
    """Open the null device for each of stdin, stdout and stderr that was closed at the start.

    Otherwise a connection could get the number of one, and what is written there would go to the
    database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # this number: the lowest that is free
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


class Shell(click.Group):
    """A group of commands that prints errors as JSON under `--json`, and takes `-h` for help.

    Each command is imported when it is used: workers and web servers do not load Alembic.

    Args:
        names: The commands' names. Each is in the module of `riverrun.cli` with its name.
    """

    def __init__(self, *args: Any, names: Iterable[str], **attributes: Any) -> None:
        attributes.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **attributes)
        self._names = frozenset(names)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return sorted(self._names.union(super().list_commands(ctx)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of that name."""
        if cmd_name in self._names and cmd_name not in self.commands:
            self.add_command(getattr(importlib.import_module(f"riverrun.cli.{cmd_name}"), cmd_name))
        return super().get_command(ctx, cmd_name)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run as a command of its own."""
        open_standard_files()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command that the arguments name."""
        as_json = "--json" in ctx.args or _is_true(os.environ.get("RIVERRUN_JSON", ""))
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if not as_json:
                raise
            report = {"error": error.format_message(), "exit_code": error.exit_code}
            click.echo(json.dumps(report), err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            reason = os.strerror(error.errno)
            raise click.ClickException(f"the output could not be written: {reason}") from None


def _is_true(text: str) -> bool:
    """Return whether click takes the text of a variable for a flag that is set."""
    try:
        return bool(text) and click.BOOL.convert(text, None, None)
    except click.BadParameter:
        return False
