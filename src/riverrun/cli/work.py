"""`riverrun work`: a client, worked until a signal says stop."""

import logging
import os
import signal
import sys
import threading

import click

from riverrun.cli import systemd
from riverrun.cli.app import (
    CommandError,
    ExitCode,
    app_argument,
    host_client,
    load_client,
    option,
    reported,
)
from riverrun.cli.logs import configure
from riverrun.cli.probes import Probes
from riverrun.cli.signals import Signals
from riverrun.cli.supervisor import Supervisor, say_ready, supervised
from riverrun.client import Client
from riverrun.errors import StopTimeout
from riverrun.options import QueueConfig

logger = logging.getLogger(__name__)


@click.command
@app_argument(required=False)
@option(
    "--queue",
    "-q",
    "queues",
    multiple=True,
    metavar="NAME[:SLOTS]",
    help="Work this queue, in place of the client's own; may be given several times.",
)
@option(
    "--processes",
    "-p",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="How many processes work, each with all slots; one that dies is started again.",
)
@option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that running jobs have to end after the first signal.",
)
@option(
    "--health-port",
    type=click.IntRange(0, 65_535),
    help="Answer /livez, /readyz and /metrics there; of several processes the next ones on the "
    "ports after it.",
)
@option(
    "--health-host",
    default="127.0.0.1",
    show_default=True,
    help="The address to answer on; 0.0.0.0 in a container.",
)
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log, on stderr.",
)
@option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or JSON for machines.",
)
@option("--reload", is_flag=True, help="Start anew when a Python file changes; for development.")
def work(
    app: str | None,
    queues: tuple[str, ...],
    processes: int,
    stop_timeout: float,
    health_port: int | None,
    health_host: str,
    log_level: str,
    log_format: str,
    reload: bool,
) -> None:
    """Work the jobs of MODULE:CLIENT until SIGTERM or SIGINT.

    The first signal lets running jobs end, the second, or SIGQUIT, cancels them. Exit codes: 0
    stopped, 1 jobs were cut off, 2 no such client, 3 database not reachable, 4 tables missing, 130
    second Ctrl-C.
    """
    configure(log_level, as_json=log_format == "json")
    number = supervised()
    if number is None and (processes > 1 or reload):
        sys.exit(Supervisor(processes, stop_timeout=stop_timeout, reload=reload).run())
    client = _client(app, queues)
    probes = None
    if health_port is not None:
        port = health_port + (number or 0) if health_port else 0
        probes = Probes(client, health_host, port)
    signals = Signals()
    with reported():
        client.start()
    if probes is not None:
        probes.start()
    if number is None:
        systemd.notify("READY=1")
    else:
        say_ready()
    while not signals.wait(systemd.watchdog_s() if number is None else None):
        systemd.notify("WATCHDOG=1")
    if number is None:
        systemd.notify("STOPPING=1")
    logger.info("stopping in %g s at most; a second signal cancels what runs", stop_timeout)
    code = _stop(client, signals, stop_timeout)
    if probes is not None:
        probes.stop()
    logging.shutdown()
    sys.stdout.flush()
    if code is ExitCode.cut_off:
        # A worker that ignores its cancellation would keep the interpreter from ending.
        os._exit(code)
    sys.exit(code)


def _client(app: str | None, queues: tuple[str, ...]) -> Client:
    client = host_client()
    if client is None:
        if app is None:
            problem = "which client? riverrun work MODULE:CLIENT, or set RIVERRUN_APP"
            raise CommandError(problem, ExitCode.usage)
        client = load_client(app)
    if not queues:
        return client
    with reported():
        configs = dict(map(_queue, queues))
        for name in list(client.queues):
            client.queues.remove(name)
        for name, config in configs.items():
            client.queues.add(name, config)
    return client


def _queue(said: str) -> tuple[str, QueueConfig]:
    name, colon, slots = said.partition(":")
    if not colon:
        return name, QueueConfig()
    if not slots.isdigit():
        problem = f"--queue is {said!r}; expected NAME or NAME:SLOTS, such as mail:20"
        raise CommandError(problem, ExitCode.usage)
    return name, QueueConfig(max_workers=int(slots))


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
