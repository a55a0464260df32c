"""The queues that a client works, and what operators do with queues."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Engine

from riverrun.client.launcher import Launcher
from riverrun.clock import Duration
from riverrun.config import QueueConfig, check_queue_config
from riverrun.db.transactions import Tx
from riverrun.errors import StopTimeout
from riverrun.jobs.checks import check_duration, check_queue
from riverrun.verbs import queues as verbs
from riverrun.verbs.queues import QueueRow


class Queues:
    """A client's queues; iterating yields the names of those it works."""

    def __init__(
        self,
        launcher: Launcher,
        *,
        soft_stop_timeout_s: float | None,
        schema: str | None,
    ) -> None:
        self._launcher = launcher
        self._soft_stop_timeout_s = soft_stop_timeout_s
        self._schema = schema

    @property
    def configs(self) -> Mapping[str, QueueConfig]:
        """How each queue is worked, by name."""
        return dict(self._launcher.queues)

    def add(self, name: str, config: QueueConfig | int | None = None) -> None:
        """Work the queue `name`, too; from now on if the client runs.

        Args:
            name: The queue.
            config: A QueueConfig, or the number of slots. Default: a QueueConfig's defaults.

        Raises:
            ClientNotReady: If the client is being stopped.
            InvalidOption: If the client works it already, or a value is out of range.
        """
        name = check_queue(name)
        self._launcher.add(name, check_queue_config(QueueConfig() if config is None else config))

    def remove(self, name: str, *, timeout: Duration | None = None) -> None:
        """Stop working the queue `name`, after its running jobs have finished.

        Args:
            name: The queue.
            timeout: Seconds or a timedelta that they may take before they are cancelled. Default:
                the client's `soft_stop_timeout`.

        Raises:
            ClientNotReady: If one of the queue's own workers calls it, or it is being removed
                already.
            InvalidOption: If the client does not work it.
            StopTimeout: If jobs run on although cancelled; the error names them.
        """
        name = check_queue(name)
        soft_s = self._soft_stop_timeout_s
        if timeout is not None:
            soft_s = check_duration("timeout", timeout, 0.0)
        if left := self._launcher.remove(name, soft_s):
            raise StopTimeout([(job.id, job.kind) for job in left])

    def get(self, tx: Tx, name: str) -> QueueRow:
        """Return the queue `name`; see `riverrun.verbs.get_queue`."""
        return verbs.get_queue(tx, name, schema=self._schema)

    def pause(self, tx: Tx, name: str) -> list[QueueRow]:
        """Stop all clients from claiming from a queue; see `riverrun.verbs.pause_queue`."""
        rows = verbs.pause_queue(tx, name, schema=self._schema)
        self._apply(tx, name, paused=True)
        return rows

    def resume(self, tx: Tx, name: str) -> list[QueueRow]:
        """Let all clients claim from a queue again; see `riverrun.verbs.resume_queue`."""
        rows = verbs.resume_queue(tx, name, schema=self._schema)
        self._apply(tx, name, paused=False)
        return rows

    def update(self, tx: Tx, name: str, *, metadata: Mapping[str, Any]) -> QueueRow:
        """Replace a queue's metadata; see `riverrun.verbs.update_queue`."""
        return verbs.update_queue(tx, name, metadata=metadata, schema=self._schema)

    def __contains__(self, name: object) -> bool:
        return name in self._launcher.queues

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._launcher.queues))

    def __len__(self) -> int:
        return len(self._launcher.queues)

    def list(self, tx: Tx, *, limit: int = 100) -> list[QueueRow]:
        """Return the queues that any client works; see `riverrun.verbs.list_queues`."""
        return verbs.list_queues(tx, limit=limit, schema=self._schema)

    def _apply(self, tx: Tx, name: str, *, paused: bool) -> None:
        # An engine's transaction has committed, so apply it to this process at once: the client
        # may not listen for notifications.
        services = self._launcher.services
        if services is not None and isinstance(tx, Engine):
            services.producers.pause(name, paused=paused)
