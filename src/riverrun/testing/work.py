"""Jobs worked here and now, in the test's own transaction."""

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
    """Work one job here and now, in the test's transaction, as the client would.

    The worker's `ctx.transaction()` is a savepoint in it. What the Session has not flushed is
    flushed before, and what it has loaded is expired after: the worker has a Session of its own.

    Args:
        tx: The test's Session or Connection; an Engine for jobs that were committed.
        client: The client whose workers, plugins and policies count; it needs not run.
        job: A JobRow that waits, whenever it is due, or args, which are inserted first.
        opts: How they are inserted.
        reraise: Whether what the worker raises is raised here too, once it is recorded; JobCancel
            and JobSnooze are not: they are outcomes.

    Raises:
        ClientNotReady: If the client has no workers, or an `async def` worker is called from a
            running event loop, where `work_one_async` is to be used.
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
    """Work every job that is due, and those that they insert, in the test's transaction.

    Jobs that were in the database before are left alone, unless the test's transaction has changed
    them, as by a retry: what their workers do elsewhere could not be undone.

    Args:
        tx: The test's Session or Connection, for jobs that its transaction has inserted or
            changed; an Engine for all jobs that are committed.
        client: The client whose workers, plugins and policies count; it needs not run.
        queue: Which queue; all that the client works unless said, or "default" if it works none.
        until: The time to take for now, aware: what is scheduled or to be retried by then is worked
            too. The client's clock, if it is frozen, or the database's, unless said.
        limit: Most attempts, so that a job that inserts itself ends.
        reraise: Whether what a worker raises is raised here too, once it is recorded, the jobs
            after it left waiting.

    Returns:
        The attempts, in their order.

    Raises:
        ClientNotReady: As for `work_one`.
        AssertionError: If `limit` attempts were not enough.
    """
    bench = Workbench(tx, client, until)
    return [bench.work(each, reraise=reraise) for each in bench.claim_all(queue, limit)]


async def work_one_async(
    tx: "AsyncSession | AsyncConnection",
    client: Client,
    job: AnyArgs,
    opts: InsertOpts | None = None,
    *,
    reraise: bool = True,
) -> Worked:
    """As `work_one`, with an AsyncSession, for workers of either sort."""

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
    """As `drain`, with an AsyncSession, for workers of either sort."""
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
