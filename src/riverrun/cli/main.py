"""The command `riverrun`."""

import click

from riverrun import __version__
from riverrun.cli.bench import bench
from riverrun.cli.demo import demo
from riverrun.cli.migrate import migrate
from riverrun.cli.work import work


@click.group()
@click.version_option(__version__, prog_name="riverrun")
def main() -> None:
    """Background jobs for SQLAlchemy applications, on River's tables."""


main.add_command(bench)
main.add_command(demo)
main.add_command(migrate)
main.add_command(work)
