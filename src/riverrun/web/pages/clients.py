"""`/clients` and `/clients/ID`: which clients are live, silent or leading, and what each runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from riverrun.jobs.listing import JobBrief, JobListParams
from riverrun.jobs.states import JobState
from riverrun.runtime.heartbeat import DEAD_S, INTERVAL_S
from riverrun.verbs.read import list_briefs
from riverrun.verbs.rescues import RescuedJob, list_rescued
from riverrun.verbs.status import ClientRow, RunningOn, get_leader, list_clients, running_on
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
        works: How many jobs of each kind it runs or has claimed ahead.
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
    works: Mapping[str, int]
    rescue_at: datetime

    @property
    def slots_sum(self) -> int:
        """How many jobs it runs at once."""
        return sum(value for value in self.slots.values() if isinstance(value, int))


@attrs.frozen(kw_only=True)
class OtherClient:
    """A client that has no row, but has claimed running jobs.

    Attributes:
        id: Its id; None if the jobs do not have it.
        works: How many jobs of each kind it has claimed.
        oldest_at: When the first of them was claimed, if that is known.
    """

    id: str | None
    works: Mapping[str, int]
    oldest_at: datetime | None


@attrs.frozen(kw_only=True)
class ClientsData:
    """The data of the page of all clients.

    Attributes:
        clients: riverrun's clients, the leader first.
        leader: The id of the client that leads, riverrun's or River's; None if none does.
        leader_is_known: Whether the leader is one of `clients`.
        others: Clients that have claimed running jobs and have no row: River's, or those long gone.
    """

    clients: Sequence[ClientData]
    others: Sequence[OtherClient]
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
        rescued: Rescued jobs that it had claimed, among the last that were rescued.
    """

    id: str
    client: ClientData | None
    leads: bool
    running: Sequence[JobBrief]
    last: Sequence[JobBrief]
    rescued: Sequence[RescuedJob]


def clients(_: Request, context: Context) -> Page:
    """Make the page of all clients."""
    found, leader = read_clients(context)
    data = ClientsData(
        clients=found,
        leader=leader,
        leader_is_known=any(row.leads for row in found),
        others=_others({row.id for row in found}, context.read.shared(running_on)),
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
        client=next((row for row in found if row.id == name), None),
        leads=leader == name,
        running=lists[0],
        last=lists[1],
        rescued=[job for job in context.read.shared(list_rescued) if name in job.client_ids],
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
    works: dict[str | None, dict[str, int]] = defaultdict(dict)
    for group in context.read.shared(running_on):
        kinds = works[group.client_id]
        kinds[group.kind] = kinds.get(group.kind, 0) + group.count
    found = [_client(row, leads=row.id == leader, works=works[row.id]) for row in rows]
    return sorted(found, key=lambda row: (not row.leads, row.id)), leader


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


def _others(known: set[str], groups: Sequence[RunningOn]) -> list[OtherClient]:
    works: dict[str | None, dict[str, int]] = defaultdict(dict)
    oldest: dict[str | None, datetime] = {}
    for group in groups:
        if group.client_id in known:
            continue
        kinds = works[group.client_id]
        kinds[group.kind] = kinds.get(group.kind, 0) + group.count
        if group.oldest_at is not None:
            at = oldest.get(group.client_id, group.oldest_at)
            oldest[group.client_id] = min(at, group.oldest_at)
    return [
        OtherClient(id=client_id, works=kinds, oldest_at=oldest.get(client_id))
        for client_id, kinds in sorted(works.items(), key=lambda item: item[0] or "")
    ]


def _client(row: ClientRow, *, leads: bool, works: Mapping[str, int]) -> ClientData:
    state = "live" if row.silent_s <= LATE_S else "silent" if row.silent_s <= DEAD_S else "gone"
    return ClientData(
        **{name: getattr(row, name) for name in _SAME},
        state=state,
        leads=leads,
        works=works,
        rescue_at=row.heartbeat_at + timedelta(seconds=DEAD_S),
    )
