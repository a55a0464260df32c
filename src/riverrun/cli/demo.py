"""`riverrun demo`: run a sign-up service with its jobs, and audit what they did."""

import importlib.util
import json
import sys

import click

from riverrun.cli.app import CommandError, ExitCode, option

NEEDED = {"flask": "Flask", "fpdf": "fpdf2", "aiosmtpd": "aiosmtpd"}

ROWS = {
    "requests": "requests",
    "request_p50_ms": "request latency p50, ms",
    "request_p99_ms": "request latency p99, ms",
    "inserted": "jobs inserted",
    "rolled_back": "jobs rolled back",
    "completed": "jobs completed",
    "retried": "attempts retried",
    "duplicates_skipped": "duplicates skipped",
    "lost": "jobs lost",
    "ran_after_rollback": "ran after rollback",
    "worked_twice": "worked twice",
    "rescued": "jobs rescued from the killed worker",
    "rescue_p50_s": "at work again after p50, s",
    "seconds": "seconds in all",
}
COMPLAINTS_SHOWN = 20


@click.command
@option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")
@option(
    "--signups",
    type=click.IntRange(min=1, max=100_000),
    default=300,
    show_default=True,
    help="How many people sign up.",
)
@option(
    "--database-url",
    envvar=["RIVERRUN_DATABASE_URL", "DATABASE_URL"],
    help="A PostgreSQL database to make a temporary schema in. Default: a temporary server.",
)
@option(
    "--dashboard",
    is_flag=True,
    help="Go on under a steady load until Ctrl-C, and print the address of the dashboard.",
)
def demo(as_json: bool, signups: int, database_url: str | None, dashboard: bool) -> None:
    """Run a sign-up service, its jobs and two workers, and audit what they did.

    People sign up at a Flask service. In the transaction that adds a user, the service inserts four
    jobs: an e-mail, a PDF, a call to a CRM that fails one time in five, and a credit. One sign-up
    in ten is rolled back, some people click twice, and one worker is killed with SIGKILL while it
    works. Afterwards the mails, the files, the CRM's log and the database are checked: each job
    must have run once. Only a rescued job may send its mail, file or call a second time.

    With --dashboard people sign up until Ctrl-C, further jobs fail for good, take long or recur,
    and a worker is killed every 90 s. There is no audit then.

    Exit codes: 0 each job ran once, or the dashboard was stopped; 1 not.
    """
    needed = {**NEEDED, "jinja2": "Jinja2"} if dashboard else NEEDED
    missing = [name for module, name in needed.items() if not importlib.util.find_spec(module)]
    if missing:
        problem = f"the demo needs {', '.join(missing)}: pip install 'riverrun[demo]'"
        raise CommandError(problem, ExitCode.usage)
    # Imported here so that the other commands need not load Flask.
    from sqlalchemy.exc import DBAPIError

    from riverrun.demo import stage, story
    from riverrun.demo.processes import PartFailed
    from riverrun.embedded import PostgresNotFound, PostgresNotStarted
    from riverrun.errors import UnsupportedDatabase

    progress = Progress()
    try:
        if dashboard:
            stage.run(database_url=database_url, show=progress.show)
        verdict = story.play(signups=signups, database_url=database_url, show=progress.show)
    except story.Interrupted as error:
        progress.end()
        text = "stopped" if dashboard else "interrupted"
        click.echo(f"{text}; everything was ended and removed", err=True)
        sys.exit(ExitCode.ok if dashboard else 128 + error.number)
    except UnsupportedDatabase as error:
        progress.end()
        raise CommandError(f"--database-url: {error}", ExitCode.usage) from error
    except (PostgresNotFound, DBAPIError) as error:
        progress.end()
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise CommandError(f"the database: {reason}", ExitCode.unreachable) from error
    except (PartFailed, PostgresNotStarted) as error:
        progress.end()
        raise CommandError(str(error), ExitCode.cut_off) from error
    progress.end()
    for complaint in verdict.complaints[:COMPLAINTS_SHOWN]:
        click.echo(complaint, err=True)
    if (more := len(verdict.complaints) - COMPLAINTS_SHOWN) > 0:
        click.echo(f"and {more} more", err=True)
    figures = verdict.figures()
    if as_json:
        click.echo(json.dumps(figures))
    else:
        width = max(map(len, ROWS.values()))
        for name, title in ROWS.items():
            click.echo(f"{title:<{width}}  {figures[name]:>8}")
    sys.exit(ExitCode.ok if verdict.good else ExitCode.cut_off)


class Progress:
    """Prints progress to stderr; on a terminal, in one line that is overwritten."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._open = 0  # length of the line that the next one overwrites

    def show(self, line: str, passing: bool) -> None:
        """Print a line. A passing line is overwritten by the next, and only shown on a terminal."""
        if passing and not self._terminal:
            return
        start = "\r" if self._terminal else ""
        click.echo(f"{start}{line:<{self._open}}", err=True, nl=not passing)
        self._open = len(line) if passing else 0

    def end(self) -> None:
        """Keep the current line, and go to the next."""
        if self._open:
            click.echo(err=True)
            self._open = 0
