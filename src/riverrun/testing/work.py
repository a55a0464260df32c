"""Functions that work jobs at once, in the test's own transaction."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from riverrun.client.client import Client
from riverrun.db.transactions import Tx
from riverrun.execution.attempt import Attempt
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.options import InsertOpts
from riverrun.testing.workbench import Workbench, Worked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


def work_one(
    tx: Tx,
    client: Client,
    job: AnyArgs,
    opts: InsertOpts | None = None,
    *,
    reraise: bool = True,
) -> Worked:
    """Work one job at once, in the test's transaction, as the client would.

    The worker's `ctx.transaction()` is a savepoint in that transaction. The Session is flushed
    before, and its objects are expired afterwards, because the worker has a Session of its own.

    Args:
        tx: The test's Session or Connection; an Engine for jobs that were committed.
        client: The client whose workers, plugins and policies apply. It need not run.
        job: A JobRow that waits, due or not; or args, which are inserted first.
        opts: The options to insert args with.
        reraise: Whether to raise the worker's exception here too, once it is recorded. JobCancel
            and JobSnooze are outcomes, and never raised.

    Raises:
        ClientNotReady: If the client has no workers, or an event loop runs and the worker is an
            `async def`: use `work_one_async`.
        JobNotWaiting: If the job runs or is final.
    """
    bench = Workbench(tx, client)
    return bench.work(bench.claim_one(job, opts), reraise=reraise)


def drain(
    tx: Tx,
    client: Client,
    queue: str | None = None,
    *,
    until: datetime | None = None,
    limit: int = 1_000,
    reraise: bool = True,
) -> list[Worked]:
    """Work every due job, and the jobs that these insert, in the test's transaction.

    Jobs that were in the database before are left alone, unless the test's transaction has changed
    them, for example by a retry: effects of their workers outside it could not be undone.

    Args:
        tx: The test's Session or Connection, for jobs that its transaction has inserted or
            changed; an Engine for all jobs that are committed.
        client: The client whose workers, plugins and policies apply. It need not run.
        queue: The queue to work. Default: all that the client works, or "default" if none.
        until: The time to use as now, aware: jobs scheduled or retryable by then are worked too.
            Default: the client's clock if it is frozen, else the database's.
        limit: Maximum number of attempts, so that jobs that insert themselves again come to an end.
        reraise: Whether to raise a worker's exception here too, once it is recorded. The jobs after
            it are then left waiting.

    Returns:
        The attempts, in order.

    Raises:
        ClientNotReady: As for `work_one`.
        AssertionError: If jobs are left after `limit` attempts.
    """
    bench = Workbench(tx, client, until)
    return [bench.work(attempt, reraise=reraise) for attempt in bench.claim_all(queue, limit)]


async def work_one_async(
    tx: "AsyncSession | AsyncConnection",
    client: Client,
    job: AnyArgs,
    opts: InsertOpts | None = None,
    *,
    reraise: bool = True,
) -> Worked:
    """As `work_one`, with an AsyncSession; workers may be sync or `async def`."""

    def claimed(session: Any) -> tuple["Workbench", Attempt]:
        bench = Workbench(session, client)
        return bench, bench.claim_one(job, opts)

    bench, attempt = await tx.run_sync(claimed)
    return await bench.work_async(tx, attempt, reraise=reraise)


async def drain_async(
    tx: "AsyncSession | AsyncConnection",
    client: Client,
    queue: str | None = None,
    *,
    until: datetime | None = None,
    limit: int = 1_000,
    reraise: bool = True,
) -> list[Worked]:
    """As `drain`, with an AsyncSession; workers may be sync or `async def`."""
    worked: list[Worked] = []
    attempts: Iterator[Attempt] | None = None
    bench: Workbench | None = None

    def claimed(session: Any) -> Attempt | None:
        nonlocal attempts, bench
        if attempts is None:
            bench = Workbench(session, client, until)
            attempts = bench.claim_all(queue, limit)
        return next(attempts, None)

    while (attempt := await tx.run_sync(claimed)) is not None:
        assert bench is not None  # noqa: S101  made with the first attempt
        worked.append(await bench.work_async(tx, attempt, reraise=reraise))
    return worked
