"""`riverrun top`: show queues, rates, slots, failures and clients, and keep them current."""

from datetime import UTC, datetime
from typing import Any

import attrs
import click

from riverrun.cli.app import Target, option, target, target_options
from riverrun.cli.output import show, show_json, text_of, watched
from riverrun.cli.queues import COLUMNS, queue_rows
from riverrun.jobs.listing import JobListParams, JobOrder
from riverrun.jobs.states import JobState
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.verbs.read import list_briefs
from riverrun.verbs.status import finish_rates, get_leader, list_clients

_FAILED = JobListParams(
    states=[JobState.discarded, JobState.cancelled],
    order_by=JobOrder.finalized_at,
    descending=True,
    limit=5,
)
_CLIENT = ("id", "host", "queues", "slots", "heartbeat_at", "problems")
_FAILURE = ("id", "kind", "queue", "state", "attempt", "max_attempts", "last_error")
_RETRYABLE = JobListParams(states=[JobState.retryable], descending=True, limit=5)


@click.command
@option(
    "--interval",
    type=click.FloatRange(0.2, 3_600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two updates.",
)
@option("--once", is_flag=True, help="Show it once and exit.")
@target_options
def top(
    interval: float,
    once: bool,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Show queues, rates, failures and clients, updated until Ctrl-C.

    With --json each update is one line.
    """
    with target(app, database_url, schema) as on:
        for _ in watched(None if once else interval, clear=not as_json):
            view = _read(on)
            if as_json:
                show_json(view)
            else:
                _show(view)


def _read(on: Target) -> dict[str, Any]:
    clients = list_clients(on.engine, schema=on.schema)
    failures = [
        job
        for params in (_RETRYABLE, _FAILED)
        for job in list_briefs(on.engine, params, errors=True, schema=on.schema).jobs
    ]
    return {
        "at": datetime.now(UTC),
        "per_second": finish_rates(on.engine, schema=on.schema),
        "queues": queue_rows(on),
        "clients": [attrs.asdict(client) for client in clients if client.silent_s <= DEAD_S],
        "leader": get_leader(on.engine, schema=on.schema),
        "failures": [attrs.asdict(job) for job in failures],
    }


def _show(view: dict[str, Any]) -> None:
    rates = ", ".join(f"{rate:.1f} {state}" for state, rate in view["per_second"].items())
    leader = text_of(view["leader"])
    click.echo(f"{view['at']:%H:%M:%S} UTC  per second: {rates}  leader: {leader}\n")
    for queue in view["queues"]:
        queue["clients"] = len(queue["clients"])
    show(view["queues"], COLUMNS, as_json=False, nothing="no queue was ever worked, no job waits")
    click.echo()
    for client in view["clients"]:
        client["slots"] = f"{client['running']} of {sum(client['slots'].values())}"
        client["queues"] = ", ".join(client["queues"])
        client["problems"] = "; ".join(client["problems"])
        client["host"] = f"{client['hostname']} {client['pid']}"
    show(view["clients"], _CLIENT, as_json=False, nothing="no client of riverrun lives")
    click.echo()
    for job in view["failures"]:
        job["last_error"] = (job["last_error"] or "").partition("\n")[0]
    show(view["failures"], _FAILURE, as_json=False, nothing="no failed job is kept")
