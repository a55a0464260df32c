"""The command `riverrun`."""

import click

from riverrun import __version__
from riverrun.cli.shell import HOST_COMMANDS, Shell


@click.group(cls=Shell, names={*HOST_COMMANDS, "bench", "completion", "demo"})
@click.version_option(__version__, prog_name="riverrun")
def main() -> None:
    """Background jobs for SQLAlchemy applications, on River's tables."""
