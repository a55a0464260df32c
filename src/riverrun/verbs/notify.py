"""Step 2 of 5: notify. Before: insert, committed or about to be. After: claim."""

from collections.abc import Iterable, Sequence

from riverrun.again import tried_again
from riverrun.queries import postgresql as queries
from riverrun.sessions import Transaction, Where, joined
from riverrun.topics import Topic, insert_payload


@tried_again
def notify_inserted(where: Where, names: Iterable[str], *, schema: str | None = None) -> None:
    """Tell whoever works the queues `names` to look, when the transaction commits."""
    with joined(where, schema) as transaction:
        notify_in(
            transaction, Topic.insert, [insert_payload(name) for name in names], schema=schema
        )


def notify_in(
    transaction: Transaction, topic: Topic, payloads: Sequence[str], *, schema: str | None
) -> None:
    """Send `payloads` on `topic` when `transaction` commits."""
    params = {"topic": topic.value, "payloads": list(payloads), "schema": schema}
    transaction.rows(queries.notify(), params)
