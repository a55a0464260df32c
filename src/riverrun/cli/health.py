"""`riverrun health`: report whether jobs are being worked, for people, probes and alarms."""

import sys

import click

from riverrun.cli.app import ExitCode, Seconds, option, target, target_options
from riverrun.cli.output import show_one
from riverrun.clock import span_text
from riverrun.db.standby import is_standby
from riverrun.jobs.states import JobState
from riverrun.migrations import validate
from riverrun.migrations.lines import OPTIONAL
from riverrun.migrations.run import of_schema
from riverrun.runtime.heartbeat import DEAD_S
from riverrun.runtime.queue_reporter import unworked_problem
from riverrun.verbs.status import (
    JobCount,
    count_jobs,
    get_leader,
    list_clients,
    unworked_queues,
)

LATE_S = 60.0
"""Seconds for which a scheduled or retryable job may be due. A leader looks every 5 s."""


@click.command
@option(
    "--max-age",
    type=Seconds(),
    help="Unhealthy if a job waits longer than this for a slot. Default: no limit.",
)
@option(
    "--min-clients",
    type=click.IntRange(0),
    default=0,
    help="Unhealthy if fewer clients live than this. Default: 0.",
)
@target_options
def health(
    max_age: float | None,
    min_clients: int,
    app: str | None,
    database_url: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Show how many jobs wait and run, which clients live, and which one leads.

    On a hot standby the leader is not known, and all figures are as of the last replayed change.

    Exit codes: 0 healthy; 1 jobs wait too long, clients are missing, a queue that is not paused has
    due jobs and no living client, or jobs stay scheduled or retryable although due for over 60 s; 3
    database not reachable; 4 schema too old to work with.
    """
    with target(app, database_url, schema) as on:
        with on.engine.connect() as connection:
            missing = validate(connection, on.schema)
            standby = is_standby(connection)
        listed = ", ".join(f"{step.line} {step.version:03}" for step in missing)
        lacks = f"schema lacks {listed}; run `riverrun migrate up{of_schema(on.schema)}`"
        if any((step.line, step.version) not in OPTIONAL for step in missing):
            show_one({"healthy": False, "problems": [lacks]}, as_json=as_json)
            sys.exit(ExitCode.schema_behind)
        counts = count_jobs(on.engine, schema=on.schema)
        known = list_clients(on.engine, schema=on.schema)
        leader = get_leader(on.engine, schema=on.schema)
        queues = unworked_queues(on.engine, dead_s=DEAD_S, schema=on.schema)
    clients = [client for client in known if client.silent_s <= DEAD_S]
    waiting = [group for group in counts if group.state is JobState.available]
    oldest = max(waiting, key=lambda group: group.age_s, default=None)
    problems = [unworked_problem(name) for name in queues]
    problems += _late(counts, "" if standby else _lead(leader))
    problems += [
        f"client {client.id}: {problem}" for client in clients for problem in client.problems
    ]
    if max_age is not None and oldest is not None and oldest.age_s > max_age:
        problem = f"a job of queue {oldest.queue} waits for {oldest.age_s:.0f} s"
        problems.append(f"{problem}, longer than {max_age:g} s")
    if len(clients) < min_clients:
        live = "1 client lives" if len(clients) == 1 else f"{len(clients)} clients live"
        problems.append(f"{live}; expected {min_clients} or more")
    show_one(
        {
            "healthy": not problems,
            "problems": problems,
            "notes": [lacks] if missing else [],
            "available": sum(group.count for group in waiting),
            "running": sum(group.count for group in counts if group.state is JobState.running),
            "oldest_available_s": None if oldest is None else round(oldest.age_s, 1),
            "clients": [client.id for client in clients],
            "leader": leader,
            "hot_standby": standby,
        },
        as_json=as_json,
    )
    sys.exit(ExitCode.cut_off if problems else ExitCode.ok)


def _late(counts: list[JobCount], lead: str) -> list[str]:
    """Return the problems of jobs that no leader has made available although they are due."""
    return [
        f"jobs of queue {group.queue!r} are {group.state} although due for "
        f"{span_text(group.age_s)}{lead}"
        for group in counts
        if group.state in (JobState.scheduled, JobState.retryable) and group.age_s > LATE_S
    ]


def _lead(leader: str | None) -> str:
    return ", as no client leads" if leader is None else f"; client {leader} leads"
