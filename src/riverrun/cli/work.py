"""`riverrun work`: run a client until a signal asks it to stop."""

import functools
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

import attrs
import click

from riverrun.cli import systemd
from riverrun.cli.app import (
    CommandError,
    ExitCode,
    Seconds,
    app_option,
    host_client,
    load_client,
    option,
    reported,
)
from riverrun.cli.logs import configure
from riverrun.cli.probes import Probes
from riverrun.cli.signals import Signals
from riverrun.cli.supervisor import Supervisor, supervised
from riverrun.client.client import Client
from riverrun.config import QueueConfig
from riverrun.errors import StopTimeout
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)

TRY_AGAIN_S = 1.0
"""Seconds between two attempts to start while the database cannot be reached."""

CHILDREN_S = 2.0
"""Seconds that processes left behind by workers have to exit before they are killed."""

GIVE_UP_S = 1.0
"""Seconds that `Client.start` has to return after a signal."""

SLOW_S = 5.0
"""Seconds of a start after which the log says that it takes long."""

LOOK_S = 1.0
"""Seconds between two checks that the client can still do its work."""


@click.command
@click.argument("client_named", metavar="[MODULE:CLIENT]", required=False)
@app_option
@option(
    "--queue",
    "-q",
    "queues",
    multiple=True,
    metavar="NAME[:SLOTS]",
    help="Work this queue instead of the client's own queues; may be given several times. "
    "Default for SLOTS: the client's own for this queue, else 100.",
)
@option(
    "--processes",
    "-p",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="How many processes to run, each with all slots. One that dies is started again.",
)
@option(
    "--stop-timeout",
    type=Seconds(),
    default=30.0,
    show_default=True,
    help="Seconds that running jobs have to end after the first signal.",
)
@option(
    "--wait",
    "wait_s",
    type=Seconds(),
    default=60.0,
    show_default=True,
    help="At the start, seconds to wait for a database that cannot be reached.",
)
@option("--no-wait", is_flag=True, help="Do not wait for the database, like --wait 0.")
@option(
    "--health-port",
    type=click.IntRange(0, 65_535),
    help="Answer /livez, /readyz and /metrics on this port. With several processes, each further "
    "one uses the next port.",
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
@option(
    "--tracebacks/--no-tracebacks",
    default=None,
    help="Log the text and traceback of each failed attempt. Default: yes on a terminal or with "
    "--reload, else no: the text of an exception may contain args.",
)
@option("--reload", is_flag=True, help="Restart when a Python file changes; for development.")
def work(
    client_named: str | None,
    app: str | None,
    queues: tuple[str, ...],
    processes: int,
    stop_timeout: float,
    wait_s: float,
    no_wait: bool,
    health_port: int | None,
    health_host: str,
    log_level: str,
    log_format: str,
    tracebacks: bool | None,
    reload: bool,
) -> None:
    """Work the jobs of MODULE:CLIENT, or of --app, until SIGTERM or SIGINT.

    The first signal lets running jobs finish. A second one, or SIGQUIT, cancels them.

    Exit codes: 0 stopped; 1 jobs were cut off; 2 no such client; 3 database not reachable; 4 tables
    missing; 5 one of the client's own threads could not be kept alive; 130 second Ctrl-C.
    """
    context = click.get_current_context()
    sources = {context.get_parameter_source(name) for name in ("log_level", "log_format")}
    log = functools.partial(
        configure,
        log_level,
        as_json=log_format == "json",
        force=sources != {click.core.ParameterSource.DEFAULT},
        tracebacks=(reload or sys.stderr.isatty()) if tracebacks is None else tracebacks,
    )
    tie = supervised()
    if tie is None and (processes > 1 or reload):
        log()
        sys.exit(Supervisor(processes, stop_timeout=stop_timeout, reload=reload).run())
    client, own = _client(client_named or app, queues)
    log()  # After the import: the application may have configured logging.
    for name in client.queues:
        if own and name not in own:
            text = "--queue names %r, which is not a queue of the client; it has %s"
            logger.warning(text, name, ", ".join(map(repr, own)))
    probes = None
    if health_port is not None:
        port = health_port + (tie.number if tie and health_port else 0)
        probes = Probes(client, health_host, port)
    signals = Signals()
    if probes is not None:
        probes.start()
    try:
        _start(client, signals, wait_s=0.0 if no_wait else wait_s)
    except BaseException:
        if probes is not None:
            probes.stop()
        raise
    systemd.notify("READY=1")
    if tie is not None:
        tie.report_ready()
    while not signals.wait(min(systemd.watchdog_s() or LOOK_S, LOOK_S)):
        systemd.alive()
        if client.beyond_repair:
            break
    systemd.notify("STOPPING=1")
    logger.info("stopping in %g s at most; a second signal cancels running jobs", stop_timeout)
    if client.beyond_repair:
        logger.error(
            "stopping, because this process cannot work any more: %s", "; ".join(client.problems)
        )
        _stop_broken(client, signals, stop_timeout)
    code = _stop(client, signals, stop_timeout)
    if probes is not None:
        probes.stop()
    _end_children()
    _end(code)


def _client(app: str | None, queues: tuple[str, ...]) -> tuple[Client, list[str]]:
    """Return the client, and the names of its own queues; `queues` replace these if given."""
    with reported():
        client = host_client(app)
        if client is None:
            if app is None:
                problem = "which client? riverrun work MODULE:CLIENT, or set RIVERRUN_APP"
                raise CommandError(problem, ExitCode.usage)
            client = load_client(app)
        own = client.queues.configs
        if queues:
            configs = dict(_queue(text, own) for text in queues)
            for name in own:
                client.queues.remove(name)
            for name, config in configs.items():
                client.queues.add(name, config)
    return client, list(own)


def _queue(text: str, own: Mapping[str, QueueConfig]) -> tuple[str, QueueConfig]:
    """Return the name in NAME[:SLOTS], and the client's configuration for it with these slots."""
    name, colon, slots = text.partition(":")
    config = own.get(name, QueueConfig())
    if not colon:
        return name, config
    if not slots.isdigit():
        problem = f"--queue is {text!r}; expected NAME or NAME:SLOTS, such as mail:20"
        raise CommandError(problem, ExitCode.usage)
    return name, attrs.evolve(config, max_workers=int(slots))


def _start(client: Client, signals: Signals, *, wait_s: float) -> None:
    """Start `client`; wait for a database that cannot be reached yet.

    A signal ends the wait, and the process.

    Args:
        client: The client.
        signals: Where signals arrive.
        wait_s: Seconds to wait at most for the database.
    """
    began = time.monotonic()
    waiting = False
    while True:
        starting = _Call(client.start)
        slow_at = time.monotonic() + SLOW_S
        while starting.runs_after(0.1):
            if time.monotonic() >= slow_at:
                slow_at = math.inf
                logger.warning(
                    "the client is still starting after %g s: the database has not answered; a "
                    "lock on one of River's tables may be the cause",
                    SLOW_S,
                )
            if signals.wait(0) and starting.runs_after(GIVE_UP_S):
                logger.info("stopped while starting: the database does not answer")
                _end(ExitCode.ok, at_once=True)
        try:
            with reported():
                starting.result()
        except CommandError as error:
            passed_s = time.monotonic() - began
            if error.exit_code != ExitCode.unreachable or passed_s >= wait_s:
                raise
            if not waiting:
                waiting = True
                logger.warning("waiting for the database, %g s at most: %s", wait_s, error.message)
            if signals.wait(TRY_AGAIN_S):
                logger.info("stopped while waiting for the database")
                _end(ExitCode.ok)
        else:
            if waiting:
                logger.info("connected after %.0f s", time.monotonic() - began)
            return


def _stop(client: Client, signals: Signals, timeout: float) -> ExitCode:
    stopping = _Call(lambda: client.stop(timeout=timeout))
    while stopping.runs_after(0.1):
        systemd.alive()
        signals.wait(0)
        if signals.count > 1:
            client.hurry()
    try:
        stopping.result()
    except StopTimeout as error:
        click.echo(str(error), err=True)
        return ExitCode.cut_off
    if signals.count > 1 and signals.last is signal.SIGINT:
        return ExitCode.interrupted
    return ExitCode.ok


def _stop_broken(client: Client, signals: Signals, timeout: float) -> NoReturn:
    """Stop as far as possible, and exit, so that another process can take over."""
    try:
        _stop(client, signals, timeout)
    except Exception as error:
        log_error(logger, error, "the client could not stop cleanly; its jobs will be rescued")
    _end(ExitCode.broken, at_once=True)


def _end_children() -> None:
    """End processes that workers left behind: multiprocessing would wait for them at exit."""
    children = multiprocessing.active_children()
    if children:
        names = ", ".join(f"{child.name} (pid {child.pid})" for child in children)
        logger.warning("ending processes that workers left behind: %s", names)
    for child in children:
        child.terminate()
    deadline = time.monotonic() + CHILDREN_S
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()


def _end(code: ExitCode, *, at_once: bool = False) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    if at_once or code is ExitCode.cut_off:
        # A worker that ignores its cancellation would keep the interpreter from exiting.
        os._exit(code)
    sys.exit(code)


class _Call:
    """A function call in another thread, so that the main thread stays free to handle signals."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="riverrun.call")
        self._thread.start()

    def runs_after(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the call to end; return whether it still runs."""
        self._thread.join(timeout)
        return self._thread.is_alive()

    def result(self) -> None:
        """Raise the exception of the call, if there was one."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._error = error
