"""The methods of a client that insert or change any number of jobs by one statement."""

from datetime import datetime
from typing import Any, Unpack

from sqlalchemy import SQLColumnExpression

from riverrun.client.inserter import Inserter
from riverrun.clock import Duration
from riverrun.config import ClientConfig
from riverrun.db.async_sessions import AsyncTx, run_in, run_in_batches
from riverrun.db.transactions import Tx
from riverrun.jobs.options import InsertOptions, InsertOpts, with_options
from riverrun.verbs.cancel import cancel_where
from riverrun.verbs.chosen import Changed
from riverrun.verbs.delete import delete_where
from riverrun.verbs.reschedule import reschedule_chosen
from riverrun.verbs.retry import retry_chosen


class SetBased:
    """The part of a client that acts on any number of jobs at once."""

    schema: str | None
    _inserter: Inserter
    config: ClientConfig

    def insert_from(
        self,
        tx: Tx,
        source: Any,
        args_type: Any,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> int:
        """Insert a job for each row of a select, by one statement; return their number.

            client.insert_from(session, select(User.id.label("user_id")), SendDigest, queue="mail")

        See `riverrun.verbs.insert_from`.

        Args:
            tx: The transaction, as for `insert`.
            source: A select whose columns are labelled with the names of the args' fields.
            args_type: The class of the args.
            opts: The options of all jobs.
            **options: The same as keywords, as for `insert`.

        Raises:
            InvalidArgs: If the columns do not fit the fields, or a row's value does not.
            InvalidOption: If an option or a plugin does not support rows of a select.
            RiverrunError: As for `insert`.
        """
        return self._inserter.insert_from(tx, source, args_type, with_options(opts, options))

    async def insert_from_async(
        self,
        tx: AsyncTx,
        source: Any,
        args_type: Any,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> int:
        """As `insert_from`, from async code."""
        return await run_in(
            tx, self._inserter.insert_from, source, args_type, with_options(opts, options)
        )

    def cancel_where(self, tx: Tx, *criteria: Any, dry_run: bool = False) -> int:
        """Cancel all jobs that match some criteria; see `riverrun.verbs.cancel_where`."""
        now = self.config.clock.database_now()
        return cancel_where(tx, *criteria, dry_run=dry_run, schema=self.schema, now=now)

    def retry_where(self, tx: Tx, *criteria: Any, dry_run: bool = False) -> int:
        """Make all jobs that match some criteria available; see `riverrun.verbs.retry_where`."""
        now = self.config.clock.database_now()
        changed = retry_chosen(tx, criteria, dry_run=dry_run, schema=self.schema, now=now)
        return self._announced(tx, changed)

    def delete_where(self, tx: Tx, *criteria: Any, dry_run: bool = False) -> int:
        """Delete jobs that match, except running ones; see `riverrun.verbs.delete_where`."""
        return delete_where(tx, *criteria, dry_run=dry_run, schema=self.schema)

    def reschedule_where(
        self,
        tx: Tx,
        *criteria: Any,
        scheduled_at: datetime | SQLColumnExpression[datetime] | None = None,
        delay: Duration | None = None,
        dry_run: bool = False,
    ) -> int:
        """Give all waiting jobs that match another time; see `verbs.reschedule_where`."""
        changed = reschedule_chosen(
            tx,
            criteria,
            scheduled_at=scheduled_at,
            delay=delay,
            dry_run=dry_run,
            schema=self.schema,
            now=self.config.clock.database_now(),
        )
        return self._announced(tx, changed)

    async def cancel_where_async(self, tx: AsyncTx, *criteria: Any, dry_run: bool = False) -> int:
        """As `cancel_where`, from async code."""
        return await run_in_batches(tx, self.cancel_where, *criteria, dry_run=dry_run)

    async def retry_where_async(self, tx: AsyncTx, *criteria: Any, dry_run: bool = False) -> int:
        """As `retry_where`, from async code."""
        return await run_in_batches(tx, self.retry_where, *criteria, dry_run=dry_run)

    async def delete_where_async(self, tx: AsyncTx, *criteria: Any, dry_run: bool = False) -> int:
        """As `delete_where`, from async code."""
        return await run_in_batches(tx, self.delete_where, *criteria, dry_run=dry_run)

    async def reschedule_where_async(
        self,
        tx: AsyncTx,
        *criteria: Any,
        scheduled_at: datetime | SQLColumnExpression[datetime] | None = None,
        delay: Duration | None = None,
        dry_run: bool = False,
    ) -> int:
        """As `reschedule_where`, from async code."""
        return await run_in_batches(
            tx,
            self.reschedule_where,
            *criteria,
            scheduled_at=scheduled_at,
            delay=delay,
            dry_run=dry_run,
        )

    def _announced(self, tx: Tx, changed: Changed) -> int:
        if changed.queues:
            self._inserter.announce(tx, set(changed.queues))
        return changed.count
