"""Give back running jobs that no thread executes: they are available again, without the attempt."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs
from sqlalchemy import Engine

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.jobs.states import JobState, state_of
from riverrun.queries import give_back as queries
from riverrun.verbs.halves import by_halves, log_refused
from riverrun.verbs.notify import notify_in
from riverrun.wire.topics import Topic, insert_payload


class Claim(Protocol):
    """A claimed job, such as a JobRow."""

    @property
    def id(self) -> int:
        """The job's id."""

    @property
    def attempt(self) -> int:
        """The attempt at which it was claimed."""

    @property
    def queue(self) -> str:
        """The name of its queue."""


@attrs.frozen(kw_only=True)
class RunningRow:
    """A job that is running for a client, according to its row.

    Attributes:
        id: The job's id.
        queue: The name of its queue.
        version: The version of the row, which each change of the row changes.
    """

    id: int
    queue: str
    version: str


@tried_again
def give_back(
    tx: Tx, claims: Sequence[Claim], *, client_id: str, schema: str | None = None
) -> dict[int, JobState]:
    """Make claimed jobs that have not begun available again, and notify clients of their queues.

    Rows that another transaction has locked are skipped.

    Args:
        tx: The transaction, as for `insert`.
        claims: The jobs as they were claimed.
        client_id: The client that claimed them.
        schema: The schema of River's tables. Default: the search path's.

    Returns:
        The state of each job that was given back, by id.
    """
    with joined(tx, schema) as transaction:
        rows = transaction.rows(queries.give_back_jobs(), _params(claims, client_id))
        states = {job_id: state_of(state) for job_id, state in rows}
        _notify(transaction, {claim.queue for claim in claims if claim.id in states}, schema)
    return states


@tried_again
def read_running(
    tx: Tx, *, client_id: str, instance: str | None = None, schema: str | None = None
) -> list[RunningRow]:
    """Return all jobs that are running for the client `client_id`, according to their rows.

    Args:
        tx: The transaction, as for `insert`.
        client_id: The client's id.
        instance: What `sign_on` got. Default: None, which may be any instance.
        schema: The schema of River's tables. Default: the search path's.
    """
    params = {"client_id": client_id, "instance": instance}
    with joined(tx, schema) as transaction:
        rows = transaction.rows(queries.running_jobs(), params)
        return [RunningRow(id=row[0], queue=row[1], version=row[2]) for row in rows]


@tried_again
def give_back_unchanged(
    tx: Tx,
    rows: Sequence[RunningRow],
    *,
    client_id: str,
    schema: str | None = None,
) -> dict[int, JobState]:
    """Give back jobs that `read_running` returned, if their rows have not changed since.

    On an Engine, rows that the database refuses to change are logged and skipped.

    Args:
        tx: The transaction, as for `insert`.
        rows: The rows as they were read.
        client_id: The client that claimed them.
        schema: The schema of River's tables. Default: the search path's.

    Returns:
        The state of each job that was given back, by id.
    """
    ordered = sorted(rows, key=lambda row: row.id)

    def act(part: Sequence[RunningRow]) -> dict[int, JobState]:
        params = {
            "ids": _array(row.id for row in part),
            "versions": _array(row.version for row in part),
            "client_id": client_id,
        }
        with joined(tx, schema) as transaction:
            found = transaction.rows(queries.give_back_unchanged(), params)
            states = {job_id: state_of(state) for job_id, state in found}
            _notify(transaction, {row.queue for row in part if row.id in states}, schema)
        return states

    if not isinstance(tx, Engine):
        return act(ordered)
    done = by_halves(ordered, act)
    log_refused("jobs not given back", [(row.id, why) for row, why in done.refused])
    return {job_id: state for part in done.results for job_id, state in part.items()}


def _params(claims: Sequence[Claim], client_id: str) -> dict[str, str]:
    ordered = sorted(claims, key=lambda claim: claim.id)
    return {
        "ids": _array(claim.id for claim in ordered),
        "attempts": _array(claim.attempt for claim in ordered),
        "client_id": client_id,
    }


def _notify(transaction: Transaction, names: Iterable[str], schema: str | None) -> None:
    if payloads := [insert_payload(name) for name in sorted(names)]:
        notify_in(transaction, Topic.insert, payloads, schema=schema)


def _array(items: Iterable[int | str]) -> str:
    return "{" + ",".join(map(str, items)) + "}"
