"""The methods of a client that switch periodic jobs, and that act for a user and record it."""

from collections.abc import Iterable

from riverrun.config import ClientConfig
from riverrun.db.transactions import Tx
from riverrun.events import Hub
from riverrun.jobs.listing import JobListParams
from riverrun.verbs.act import (
    BATCH,
    Acted,
    JobAction,
    act_on,
    act_on_listed,
)
from riverrun.verbs.act_switch import act_on_periodic, act_on_queue
from riverrun.verbs.periodic import (
    PeriodicRow,
    list_periodic,
    pause_periodic,
    resume_periodic,
    run_periodic_now,
)
from riverrun.verbs.queues import QueueRow


class Acting:
    """The part of a client that acts for a user. Each action is recorded, logged and an event."""

    schema: str | None
    config: ClientConfig
    hub: Hub

    def act_on(
        self, tx: Tx, action: JobAction | str, job_ids: Iterable[int], *, user: str
    ) -> Acted:
        """Retry, cancel or delete jobs for a user; see `riverrun.verbs.act_on`.

        A UserActed event follows once the transaction has committed.
        """
        return act_on(
            tx,
            action,
            job_ids,
            user=user,
            schema=self.schema,
            now=self.config.clock.database_now(),
            on_done=self.hub.publish,
        )

    def act_on_listed(
        self,
        tx: Tx,
        action: JobAction | str,
        params: JobListParams,
        *,
        newest_id: int,
        user: str,
        after: int | None = None,
        limit: int = BATCH,
        dry_run: bool = False,
    ) -> Acted:
        """Act on a batch of the jobs that filters select; see `riverrun.verbs.act_on_listed`.

        A UserActed event follows once the transaction has committed.
        """
        return act_on_listed(
            tx,
            action,
            params,
            newest_id=newest_id,
            user=user,
            after=after,
            limit=limit,
            dry_run=dry_run,
            schema=self.schema,
            now=self.config.clock.database_now(),
            on_done=self.hub.publish,
        )

    def act_on_queue(self, tx: Tx, action: str, name: str, *, user: str) -> list[QueueRow]:
        """Pause or resume a queue for a user; see `riverrun.verbs.act_on_queue`.

        A UserActed event follows once the transaction has committed.
        """
        return act_on_queue(
            tx,
            action,
            name,
            user=user,
            schema=self.schema,
            now=self.config.clock.database_now(),
            on_done=self.hub.publish,
        )

    def act_on_periodic(self, tx: Tx, action: str, periodic_id: str, *, user: str) -> PeriodicRow:
        """Pause, resume or run a periodic job for a user; see `riverrun.verbs.act_on_periodic`.

        A UserActed event follows once the transaction has committed.
        """
        return act_on_periodic(
            tx,
            action,
            periodic_id,
            user=user,
            schema=self.schema,
            now=self.config.clock.database_now(),
            on_done=self.hub.publish,
        )

    def list_periodic(self, tx: Tx, *, limit: int = 100) -> list[PeriodicRow]:
        """Return the periodic jobs with an id; see `riverrun.verbs.list_periodic`."""
        now = self.config.clock.database_now()
        return list_periodic(tx, limit=limit, schema=self.schema, now=now)

    def pause_periodic(self, tx: Tx, periodic_id: str) -> PeriodicRow:
        """Skip the runs of a periodic job; see `riverrun.verbs.pause_periodic`."""
        now = self.config.clock.database_now()
        return pause_periodic(tx, periodic_id, schema=self.schema, now=now)

    def resume_periodic(self, tx: Tx, periodic_id: str) -> PeriodicRow:
        """Let a paused periodic job run again; see `riverrun.verbs.resume_periodic`."""
        now = self.config.clock.database_now()
        return resume_periodic(tx, periodic_id, schema=self.schema, now=now)

    def run_periodic_now(self, tx: Tx, periodic_id: str) -> PeriodicRow:
        """Ask the leader for a run of a periodic job; see `riverrun.verbs.run_periodic_now`."""
        now = self.config.clock.database_now()
        return run_periodic_now(tx, periodic_id, schema=self.schema, now=now)
