"""`riverrun work`: a client, worked until a signal says stop."""

import logging
import os
import signal
import sys
import threading
from types import FrameType

import click
from sqlalchemy.exc import OperationalError

from riverrun.cli.app import CommandError, ExitCode, load_client
from riverrun.client import Client
from riverrun.errors import ClientNotReady, SchemaMissing, StopTimeout

logger = logging.getLogger(__name__)


@click.command
@click.argument("app", envvar="RIVERRUN_APP", metavar="MODULE:CLIENT")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    envvar="RIVERRUN_STOP_TIMEOUT",
    help="Seconds that running jobs have to end after the first signal.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="RIVERRUN_LOG_LEVEL",
    help="What to log, on stderr.",
)
def work(app: str, stop_timeout: float, log_level: str) -> None:
    """Work the jobs of MODULE:CLIENT until SIGTERM or SIGINT.

    The first signal lets running jobs end, the second cancels them. Exit codes: 0 stopped, 1 jobs
    were cut off, 2 no such client, 3 database not reachable, 4 tables missing, 130 second Ctrl-C.
    """
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    client = load_client(app)
    signals = Signals()
    try:
        client.start()
    except ClientNotReady as error:
        raise CommandError(f"{app}: {error}", ExitCode.usage) from error
    except SchemaMissing as error:
        raise CommandError(str(error), ExitCode.schema_behind) from error
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0]
        raise CommandError(f"cannot reach the database: {reason}", ExitCode.unreachable) from error
    signals.wait()
    logger.info("stopping in %g s at most; a second signal cancels what runs", stop_timeout)
    code = _stop(client, signals, stop_timeout)
    logging.shutdown()
    sys.stdout.flush()
    if code is ExitCode.cut_off:
        # A worker that ignores its cancellation would keep the interpreter from ending.
        os._exit(code)
    sys.exit(code)


class Signals:
    """SIGTERM and SIGINT, counted; a handler only counts, and never raises.

    psycopg's commit is Python code: an exception out of a handler could cut it in two. An Event's
    lock may be held by the very code that the handler interrupts. And a handler runs only once the
    main thread is back in Python; so what ends its wait is a byte that the interpreter itself
    writes to a pipe when the signal comes.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGTERM
        self._told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def wait(self) -> None:
        """Wait for a signal that was not waited for yet."""
        os.read(self._told, 1)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.last = signal.Signals(number)


def _stop(client: Client, signals: Signals, timeout: float) -> ExitCode:
    left: list[StopTimeout] = []

    def stop() -> None:
        try:
            client.stop(timeout=timeout)
        except StopTimeout as error:
            left.append(error)

    stopper = threading.Thread(target=stop, name="riverrun.stop")
    stopper.start()
    while stopper.is_alive():
        # In steps: Python runs signal handlers only between bytecodes of the main thread.
        stopper.join(0.1)
        if signals.count > 1:
            client.hurry()
    if left:
        click.echo(str(left[0]), err=True)
        return ExitCode.cut_off
    if signals.count > 1 and signals.last is signal.SIGINT:
        return ExitCode.interrupted
    return ExitCode.ok
