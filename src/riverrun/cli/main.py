"""The command `riverrun`."""

import click

from riverrun import __version__
from riverrun.cli.app import Shell
from riverrun.cli.bench import bench
from riverrun.cli.completion import completion
from riverrun.cli.dashboard import dashboard
from riverrun.cli.demo import demo
from riverrun.cli.health import health
from riverrun.cli.insert import insert
from riverrun.cli.jobs import jobs
from riverrun.cli.migrate import migrate
from riverrun.cli.periodic import periodic
from riverrun.cli.queues import queues
from riverrun.cli.top import top
from riverrun.cli.work import work

HOST_COMMANDS = (dashboard, health, insert, jobs, migrate, periodic, queues, top, work)
"""The commands that a host application's command group has too."""


@click.group(cls=Shell)
@click.version_option(__version__, prog_name="riverrun")
def main() -> None:
    """Background jobs for SQLAlchemy applications, on River's tables."""


for command in (*HOST_COMMANDS, bench, completion, demo):
    main.add_command(command)
