"""The status of queues and clients: waiting jobs, live clients, the leader and rates."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.standby import is_standby
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.checks import check_duration, check_int
from riverrun.jobs.states import JobState
from riverrun.queries import status as queries
from riverrun.verbs.read import json_object


@attrs.frozen(kw_only=True)
class JobCount:
    """The number of jobs in one queue and one state.

    Attributes:
        queue: The queue's name.
        state: The state, which is not a final one.
        count: How many jobs.
        oldest_at: The earliest `scheduled_at` of them.
        age_s: Seconds since `oldest_at`, by the database's clock; negative if it is in the future.
    """

    queue: str
    state: JobState
    count: int
    oldest_at: datetime
    age_s: float


@attrs.frozen(kw_only=True)
class ClientRow:
    """A client that is live, or was until a short time ago.

    Attributes:
        id: The client's id.
        hostname: The name of its host.
        pid: The id of its process.
        queues: The names of its queues.
        created_at: When it started.
        heartbeat_at: When it wrote its last heartbeat.
        silent_s: Seconds since `heartbeat_at`, by the database's clock.
        slots: How many jobs of each queue it runs at once, as of its last heartbeat.
        running: How many jobs were running in it then.
        problems: Why it was not healthy then, a sentence for each problem.
        version: The version of riverrun in it; None for a release that does not write it, as with
            all below.
        python: The version of Python.
        executors: What its workers run in: "thread", "coroutine" and "process".
        claim_ahead: Maximum number of jobs of each queue that it claims ahead of free slots.
        ahead: How many jobs it had claimed that had not begun.
        looked_s: Seconds since it had last looked for jobs, of the queue with room where that was
            longest. None if no queue had room.
        loop_s: For how many seconds the event loop of its coroutines had not turned, at least. 0
            if it turns, None if there is none.
        memory_bytes: The resident memory of its process, on Linux.
    """

    id: str
    hostname: str
    pid: int
    queues: Sequence[str]
    created_at: datetime
    heartbeat_at: datetime
    silent_s: float
    slots: Mapping[str, int] = attrs.field(factory=dict)
    running: int = 0
    problems: Sequence[str] = ()
    version: str | None = None
    python: str | None = None
    executors: Sequence[str] = ()
    claim_ahead: Mapping[str, int] = attrs.field(factory=dict)
    ahead: int | None = None
    looked_s: float | None = None
    loop_s: float | None = None
    memory_bytes: int | None = None


@attrs.frozen(kw_only=True)
class FinishedCount:
    """The number of jobs that reached a final state in a step of time.

    Attributes:
        at: When the step begins: a multiple of its length since 1970.
        state: The final state.
        count: How many jobs, at least 1.
    """

    at: datetime
    state: JobState
    count: int


@attrs.frozen(kw_only=True)
class RunningOn:
    """The number of running jobs of one kind and queue that one client has claimed.

    Attributes:
        client_id: The client's id; None if the jobs were not claimed by a client.
        kind: The kind.
        queue: The queue.
        count: How many jobs.
        oldest_at: When the first of them was claimed; None if that is not known. A client renews
            this time for attempts that take long.
        age_s: Seconds since `oldest_at`, by the database's clock.
    """

    client_id: str | None
    kind: str
    queue: str
    count: int
    oldest_at: datetime | None
    age_s: float | None


@tried_again
def count_jobs(tx: Tx, *, schema: str | None = None) -> list[JobCount]:
    """Return how many jobs there are by queue and state, without final jobs.

    Args:
        tx: The transaction, as for `insert`.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.count_jobs(), {})
        return [JobCount(**{**row._mapping, "state": JobState(row.state)}) for row in rows]


@tried_again
def list_clients(tx: Tx, *, limit: int = 1_000, schema: str | None = None) -> list[ClientRow]:
    """Return riverrun's clients by id. River's clients are not included.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of clients, 1 to 10,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.list_clients(), {"limit": limit})
        return [_client(row) for row in rows]


def _client(row: Any) -> ClientRow:
    state = json_object(row.metadata)
    problems, executors = state.get("problems"), state.get("executors")
    return ClientRow(
        **{key: value for key, value in row._mapping.items() if key not in {"metadata", "queues"}},
        queues=tuple(row.queues),
        slots=_of(state, "slots", dict) or {},
        running=_of(state, "running", int) or 0,
        problems=tuple(map(str, problems)) if isinstance(problems, list) else (),
        version=_of(state, "version", str),
        python=_of(state, "python", str),
        executors=tuple(map(str, executors)) if isinstance(executors, list) else (),
        claim_ahead=_of(state, "claim_ahead", dict) or {},
        ahead=_of(state, "ahead", int),
        looked_s=_of(state, "looked_s", float, int),
        loop_s=_of(state, "loop_s", float, int),
        memory_bytes=_of(state, "memory_bytes", int),
    )


def _of(state: Mapping[str, Any], key: str, *types: type) -> Any:
    """Return a value of a client's metadata; None if it is of another type, as from other code."""
    value = state.get(key)
    return value if isinstance(value, types) and not isinstance(value, bool) else None


@tried_again
def get_leader(tx: Tx, *, schema: str | None = None) -> str | None:
    """Return the id of the client that leads, riverrun's or River's; None if no client does.

    On a hot standby this is always None, because the leader cannot be read there.

    Args:
        tx: The transaction, as for `insert`.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        if is_standby(transaction.connection):
            return None
        leader: str | None = transaction.execute(queries.get_leader(), {}).scalar_one_or_none()
        return leader


@tried_again
def last_worked(
    tx: Tx, names: Iterable[str], *, schema: str | None = None
) -> dict[str, datetime | None]:
    """Return when a job of each queue was last attempted; None if that is not known.

    Args:
        tx: The transaction, as for `insert`.
        names: The names of the queues.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.last_worked(), {"names": sorted(set(names))})
        return {row.name: row.at for row in rows}


@tried_again
def unworked_queues(
    tx: Tx, *, dead_s: float, limit: int = 100, schema: str | None = None
) -> list[str]:
    """Return queues with due jobs that are not paused and that no live client works, by name.

    On a hot standby a queue is left out if any client has worked it in the last 11 minutes.

    Args:
        tx: The transaction, as for `insert`.
        dead_s: Seconds without a heartbeat after which a client is gone.
        limit: Maximum number of queues.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        params = {"dead_s": dead_s, "limit": limit}
        statement = queries.unworked_queues(standby=is_standby(transaction.connection))
        return list(transaction.execute(statement, params).scalars())


@tried_again
def finish_rates(
    tx: Tx, *, window_s: float = 60.0, schema: str | None = None
) -> dict[JobState, float]:
    """Return how many jobs per second reach each final state, based on the last 1,000 of each.

    Args:
        tx: The transaction, as for `insert`.
        window_s: Seconds to look back at most.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.finish_rates(), {"window_s": window_s})
        return {JobState(row.state): row.count / max(row.seconds, 0.001) for row in rows}


@tried_again
def finished_by_time(
    tx: Tx,
    *,
    window_s: float = 900.0,
    step_s: float = 15.0,
    most: int = 200_000,
    schema: str | None = None,
) -> list[FinishedCount]:
    """Return how many jobs reached each final state in each step of time, the earliest step first.

    A step in which no job reached a state is left out. Jobs that were deleted meanwhile are not
    counted.

    Args:
        tx: The transaction, as for `insert`.
        window_s: Seconds to look back. Default: 900 s.
        step_s: Seconds of a step. Default: 15 s.
        most: How many jobs of each state to read, the last ones first, 1 to 10,000,000. If a state
            has more jobs, the earlier ones are not counted. Default: 200,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    params = {
        # A century, because PostgreSQL refuses an interval of some hundred thousand years.
        "window_s": min(check_duration("window_s", window_s, 0.001), 3e9),
        "step_s": check_duration("step_s", step_s, 0.001),
        "most": check_int("most", most, 1, 10_000_000),
    }
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.finished_by_time(), params)
        return [
            FinishedCount(at=row.at, state=JobState(row.state), count=row.finished) for row in rows
        ]


@tried_again
def running_on(tx: Tx, *, schema: str | None = None) -> list[RunningOn]:
    """Return how many jobs are running, by client, kind and queue.

    River's clients are included. It reads every running job, also those that a client has claimed
    ahead and not begun.

    Args:
        tx: The transaction, as for `insert`.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.running_on(), {})
        return [
            RunningOn(
                client_id=row.client_id,
                kind=row.kind,
                queue=row.queue,
                count=row.running,
                oldest_at=row.oldest_at,
                age_s=row.age_s,
            )
            for row in rows
        ]
