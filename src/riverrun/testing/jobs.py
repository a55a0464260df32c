"""The functions of `riverrun.testing`, bound to a session and a client: the pytest fixtures."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from riverrun.client.client import Client
from riverrun.db.transactions import Tx
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.row import JobRow
from riverrun.testing.look import require_inserted, require_many_inserted, require_not_inserted
from riverrun.testing.work import drain, drain_async, work_one, work_one_async
from riverrun.testing.workbench import Worked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


class Jobs:
    """The functions of `riverrun.testing`, bound to one session and client: a pytest fixture.

    Attributes:
        session: The test's Session.
        client: The client.
    """

    def __init__(self, session: Tx, client: Client) -> None:
        self.session = session
        self.client = client

    def require_inserted(self, expected: object, **conditions: object) -> JobRow:
        """See the function `require_inserted`."""
        return require_inserted(self.session, expected, schema=self.client.schema, **conditions)

    def require_many_inserted(self, expected: Sequence[object]) -> list[JobRow]:
        """See the function `require_many_inserted`."""
        return require_many_inserted(self.session, expected, schema=self.client.schema)

    def require_not_inserted(self, expected: object, **conditions: object) -> None:
        """See the function `require_not_inserted`."""
        require_not_inserted(self.session, expected, schema=self.client.schema, **conditions)

    def work_one(
        self, job: AnyArgs, opts: InsertOpts | None = None, *, reraise: bool = True
    ) -> Worked:
        """See the function `work_one`."""
        return work_one(self.session, self.client, job, opts, reraise=reraise)

    def drain(
        self,
        queue: str | None = None,
        *,
        until: datetime | None = None,
        limit: int = 1_000,
        reraise: bool = True,
    ) -> list[Worked]:
        """See the function `drain`."""
        return drain(self.session, self.client, queue, until=until, limit=limit, reraise=reraise)


class AsyncJobs:
    """Like `Jobs`, with coroutines, on an AsyncSession or AsyncConnection.

    Attributes:
        session: The test's AsyncSession.
        client: The client.
    """

    def __init__(self, session: "AsyncSession | AsyncConnection", client: Client) -> None:
        self.session = session
        self.client = client

    async def require_inserted(self, expected: object, **conditions: object) -> JobRow:
        """See the function `require_inserted`."""
        schema = self.client.schema
        return await self.session.run_sync(
            lambda session: require_inserted(session, expected, schema=schema, **conditions)
        )

    async def require_many_inserted(self, expected: Sequence[object]) -> list[JobRow]:
        """See the function `require_many_inserted`."""
        schema = self.client.schema
        return await self.session.run_sync(
            lambda session: require_many_inserted(session, expected, schema=schema)
        )

    async def require_not_inserted(self, expected: object, **conditions: object) -> None:
        """See the function `require_not_inserted`."""
        schema = self.client.schema
        await self.session.run_sync(
            lambda session: require_not_inserted(session, expected, schema=schema, **conditions)
        )

    async def work_one(
        self, job: AnyArgs, opts: InsertOpts | None = None, *, reraise: bool = True
    ) -> Worked:
        """See the function `work_one_async`."""
        return await work_one_async(self.session, self.client, job, opts, reraise=reraise)

    async def drain(
        self,
        queue: str | None = None,
        *,
        until: datetime | None = None,
        limit: int = 1_000,
        reraise: bool = True,
    ) -> list[Worked]:
        """See the function `drain_async`."""
        return await drain_async(
            self.session, self.client, queue, until=until, limit=limit, reraise=reraise
        )
