"""Elect the client that does maintenance for a term. River's clients compete for the same row."""

from datetime import datetime

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.queries import elect as queries
from riverrun.verbs.notify import notify_in
from riverrun.wire.topics import Topic, request_resign_payload, resigned_payload


@attrs.frozen
class Term:
    """A term of leadership.

    Attributes:
        leader_id: The id of the client that leads.
        since: When the term began, by the database's clock. Both together identify the term.
    """

    leader_id: str
    since: datetime


@tried_again
def elect(
    tx: Tx,
    client_id: str,
    *,
    ttl_s: float,
    schema: str | None = None,
    now: datetime | None = None,
) -> Term | None:
    """Begin a term of `ttl_s` seconds for `client_id`; None if another client leads."""
    params = {"client_id": client_id, "ttl_s": ttl_s, "now": now}
    with joined(tx, schema) as transaction:
        transaction.execute(queries.expire_leader(), {"now": now})
        since = transaction.execute(queries.elect_leader(), params).scalar_one_or_none()
    return None if since is None else Term(client_id, since)


@tried_again
def reelect(
    tx: Tx,
    term: Term,
    *,
    ttl_s: float,
    schema: str | None = None,
    now: datetime | None = None,
) -> bool:
    """Extend `term` to `ttl_s` seconds from now. Return False if it has expired."""
    params = {"client_id": term.leader_id, "since": term.since, "ttl_s": ttl_s, "now": now}
    with joined(tx, schema) as transaction:
        return transaction.execute(queries.reelect_leader(), params).first() is not None


@tried_again
def resign(tx: Tx, term: Term, *, schema: str | None = None) -> bool:
    """End `term` and notify the other clients. Return False if it had expired."""
    params = {"client_id": term.leader_id, "since": term.since}
    with joined(tx, schema) as transaction:
        if transaction.execute(queries.resign_leader(), params).first() is None:
            return False
        payload = resigned_payload(term.leader_id)
        notify_in(transaction, Topic.leadership, [payload], schema=schema)
        return True


@tried_again
def request_resign(tx: Tx, *, schema: str | None = None) -> None:
    """Ask the leader to resign, when the transaction commits. River's clients obey, too."""
    with joined(tx, schema) as transaction:
        notify_in(transaction, Topic.leadership, [request_resign_payload()], schema=schema)
