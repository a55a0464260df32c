"""List the kinds of jobs, and how long their jobs take and how often they fail."""

from collections import Counter
from collections.abc import Mapping

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.checks import check_int
from riverrun.queries import kinds as queries


@attrs.frozen(kw_only=True)
class KindStats:
    """The figures of one kind, of its jobs among the last ones that ended or failed.

    Attributes:
        kind: The kind.
        count: How many jobs are completed, cancelled, discarded or retryable.
        failed: How many of them are discarded or retryable.
        run_p50_s: The median of seconds between the start of the last attempt and the end of the
            job, of completed and discarded jobs; None without such jobs.
        run_p95_s: The 95th percentile of the same.
        wait_p50_s: The median of seconds between the time at which they were due and the start of
            their last attempt; None without such jobs.
        wait_p95_s: The 95th percentile of the same.
        attempts: How many jobs have had how many attempts.
    """

    kind: str
    count: int
    failed: int
    run_p50_s: float | None
    run_p95_s: float | None
    wait_p50_s: float | None
    wait_p95_s: float | None
    attempts: Mapping[int, int]


@tried_again
def kind_stats(tx: Tx, *, window: int = 1_000, schema: str | None = None) -> list[KindStats]:
    """Return figures of each kind that is among the last jobs, those with most jobs first.

    The last jobs are those that were completed, cancelled or discarded last, and those that failed
    last and will be tried again. Each queue and priority has an equal share of the jobs to be tried
    again.

    Args:
        tx: The transaction, as for `insert`.
        window: How many of the last jobs to read, of all kinds, 1 to 100,000. Default: 1,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("window", window, 1, 100_000)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.kind_stats(), {"window": window})
        return [
            KindStats(
                kind=row.kind,
                count=row.ended,
                failed=row.failed,
                run_p50_s=row.run_p50_s,
                run_p95_s=row.run_p95_s,
                wait_p50_s=row.wait_p50_s,
                wait_p95_s=row.wait_p95_s,
                attempts=dict(sorted(Counter(row.attempts).items())),
            )
            for row in rows
        ]


@tried_again
def list_kinds(tx: Tx, *, limit: int = 1_000, schema: str | None = None) -> list[str]:
    """Return the kinds of all jobs in the table, in the database's order of text.

    It takes one look-up in the index for each kind, however many jobs there are.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of kinds, 1 to 10,000. Default: 1,000.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    with joined(tx, schema) as transaction:
        return list(transaction.execute(queries.list_kinds(), {"limit": limit}).scalars())
