"""`/clients` and `/clients/ID`: who works, who is silent, who leads, and what each runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from riverrun.jobs.listing import JobBrief, JobListParams
from riverrun.jobs.states import JobState
from riverrun.runtime.heartbeat import DEAD_S, INTERVAL_S
from riverrun.verbs.read import list_briefs
from riverrun.verbs.status import ClientRow, get_leader, list_clients
from riverrun.web.context import Context
from riverrun.web.page import Page, Table
from riverrun.web.request import Request

LATE_S = 2.5 * INTERVAL_S
"""Seconds without a heartbeat after which a client is shown as silent."""


@attrs.frozen(kw_only=True)
class ClientData:
    """A client.

    Attributes:
        id, hostname, pid, queues, created_at, heartbeat_at, silent_s: The same as in ClientRow.
        slots, running, ahead, problems, version, python, executors: The same as in ClientRow.
        loop_s, looked_s, memory_bytes: The same as in ClientRow.
        state: live, silent, or gone: after that others may rescue its jobs.
        leads: Whether it leads.
        rescue_at: When others may rescue its jobs, if it stays silent.
    """

    id: str
    hostname: str
    pid: int
    queues: Sequence[str]
    created_at: datetime
    heartbeat_at: datetime
    silent_s: float
    slots: Mapping[str, int]
    running: int
    ahead: int | None
    problems: Sequence[str]
    version: str | None
    python: str | None
    executors: Sequence[str]
    looked_s: float | None
    loop_s: float | None
    memory_bytes: int | None
    state: str
    leads: bool
    rescue_at: datetime

    @property
    def slots_sum(self) -> int:
        """How many jobs it runs at once."""
        return sum(value for value in self.slots.values() if isinstance(value, int))


@attrs.frozen(kw_only=True)
class ClientsData:
    """The data of the page of all clients.

    Attributes:
        clients: riverrun's clients, the leader first.
        leader: The id of the client that leads, riverrun's or River's; None if none does.
        leader_is_known: Whether the leader is one of `clients`.
    """

    clients: Sequence[ClientData]
    leader: str | None
    leader_is_known: bool


@attrs.frozen(kw_only=True)
class OneClientData:
    """The data of the page of one client.

    Attributes:
        id: The client's id.
        client: What it has recorded; None if it is River's, or gone for long.
        leads: Whether it leads.
        running: Jobs that it runs, or has claimed ahead.
        last: The last jobs that it has attempted, among those inserted last.
    """

    id: str
    client: ClientData | None
    leads: bool
    running: Sequence[JobBrief]
    last: Sequence[JobBrief]


def clients(_: Request, context: Context) -> Page:
    """Make the page of all clients."""
    found, leader = read_clients(context)
    data = ClientsData(
        clients=found, leader=leader, leader_is_known=any(each.leads for each in found)
    )
    return Page(
        name="clients",
        title=context.words["clients"],
        data=data,
        table=Table(columns=[field.name for field in attrs.fields(ClientData)], rows=found),
        refresh_s=5.0,
        view={"dead_s": DEAD_S},
    )


def client(request: Request, context: Context, name: str) -> Page:
    """Make the page of the client with the id `name`."""
    found, leader = read_clients(context)
    running = JobListParams(client=name, states=[JobState.running], limit=50)
    latest = JobListParams(client=name, descending=True, limit=20)
    lists = [
        [context.brief(request.user, job) for job in context.read(list_briefs, params).jobs]
        for params in (running, latest)
    ]
    data = OneClientData(
        id=name,
        client=next((each for each in found if each.id == name), None),
        leads=leader == name,
        running=lists[0],
        last=lists[1],
    )
    return Page(
        name="client",
        title=name,
        data=data,
        section="clients",
        refresh_s=5.0,
        view={"dead_s": DEAD_S},
    )


def read_clients(context: Context) -> tuple[list[ClientData], str | None]:
    """Return riverrun's clients, the leader first, and the id of the leader."""
    leader = context.read.shared(get_leader)
    rows = context.read.shared(list_clients)
    found = [_client(row, leads=row.id == leader) for row in rows]
    return sorted(found, key=lambda each: (not each.leads, each.id)), leader


_SAME = (
    "id",
    "hostname",
    "pid",
    "queues",
    "created_at",
    "heartbeat_at",
    "silent_s",
    "slots",
    "running",
    "ahead",
    "problems",
    "version",
    "python",
    "executors",
    "looked_s",
    "loop_s",
    "memory_bytes",
)


def _client(row: ClientRow, *, leads: bool) -> ClientData:
    state = "live" if row.silent_s <= LATE_S else "silent" if row.silent_s <= DEAD_S else "gone"
    return ClientData(
        **{name: getattr(row, name) for name in _SAME},
        state=state,
        leads=leads,
        rescue_at=row.heartbeat_at + timedelta(seconds=DEAD_S),
    )
