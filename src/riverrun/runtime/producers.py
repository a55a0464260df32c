"""The producers of a client, one for each queue that it works, and calls that concern them all."""

import threading
from collections.abc import Iterator, Mapping, Sequence

from riverrun.clock import Clock
from riverrun.errors import AttemptInterrupted, ClientNotReady, JobCancelledRemotely
from riverrun.events import Hub, QueuePaused, QueueResumed
from riverrun.execution.attempt import Attempt
from riverrun.jobs.row import JobRow
from riverrun.logs.loggers import logger_of
from riverrun.runtime.producer import Producer
from riverrun.verbs.give_back import Claim
from riverrun.verbs.queues import ALL, QueueRow

logger = logger_of(__name__)


class Producers:
    """The producers by queue. Iterating yields the current ones."""

    def __init__(self, *, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        self._lock = threading.Lock()  # guards the next three
        self._by_queue: Mapping[str, Producer] = {}  # replaced, never changed
        self._left: list[Producer] = []  # of removed queues, with attempts that have not finished
        self._closed = False
        self._pausing = threading.Lock()  # held to pause or resume, and guards the next
        self._paused_at: dict[str, float] = {}  # when this process last paused or resumed a queue

    def __iter__(self) -> Iterator[Producer]:
        return iter(self._by_queue.values())

    def __getitem__(self, queue: str) -> Producer:
        return self._by_queue[queue]

    def get(self, queue: object) -> Producer | None:
        """Return the producer of `queue`, if the client works it."""
        return self._by_queue.get(queue) if isinstance(queue, str) else None

    @property
    def names(self) -> list[str]:
        """The queues."""
        return list(self._by_queue)

    @property
    def slots(self) -> int:
        """The slots of all queues."""
        return sum(producer.config.max_workers for producer in self)

    def add(self, producer: Producer, *, start: bool = False) -> None:
        """Add a producer.

        Args:
            producer: The producer of a queue that has none yet.
            start: Whether to start it, too.

        Raises:
            ClientNotReady: If the client is being stopped, or has lost its name.
            RuntimeError: If the process may have no more threads.
        """
        with self._lock:
            if self._closed:
                problem = "the client claims no more: it is being stopped, or has lost its name"
                raise ClientNotReady(f"{problem}; add queues before or after")
            if start:
                producer.start()
            self._by_queue = {**self._by_queue, producer.queue: producer}

    def remove(self, producer: Producer) -> None:
        """Remove a producer that has stopped. Its unfinished jobs stay claimed."""
        with self._lock:
            self._left.append(producer)
            kept = {name: other for name, other in self._by_queue.items() if other is not producer}
            self._by_queue = kept

    def close(self) -> list[Producer]:
        """Accept no more producers; return the present ones."""
        with self._lock:
            self._closed = True
        return list(self)

    @property
    def with_left(self) -> list[Producer]:
        """The producers, and those of removed queues whose attempts have not finished."""
        with self._lock:
            self._left = [producer for producer in self._left if producer.claimed()]
            return [*self, *self._left]

    def claimed(self) -> list[Claim]:
        """Return the jobs that were claimed here and have not finished."""
        return [job for producer in self.with_left for job in producer.claimed()]

    def running(self) -> list[Attempt]:
        """Return the attempts that run now."""
        return [attempt for producer in self for attempt in producer.executor.running()]

    def running_jobs(self) -> list[JobRow]:
        """Return the jobs that run now."""
        return [attempt.job for attempt in self.running()]

    def may_have(self, job_id: int) -> bool:
        """Return whether the job is here, or may be among what is being claimed."""
        return any(producer.may_have(job_id) for producer in self)

    def wake(self, queue: str) -> bool:
        """Look for jobs of `queue` now; return whether the client works it."""
        producer = self.get(queue)
        if producer is not None:
            producer.wake()
        return producer is not None

    def expect(self, queue: str, due_monotonic: float) -> None:
        """Look for jobs of `queue` at that time, by the process's monotonic clock."""
        producer = self.get(queue)
        if producer is not None:
            producer.expect(due_monotonic)

    def cancel(self, job_id: int) -> None:
        """Cancel the attempt at `job_id`, if it is here."""
        for producer in self:
            if producer.cancel(job_id, JobCancelledRemotely()):
                return

    def claim_no_more(self) -> None:
        """Let no producer claim any more, for good, and accept no others."""
        for producer in self.close():
            producer.stopping.set()
            producer.interrupt()

    def cancel_all(self, reason: AttemptInterrupted) -> None:
        """Cancel every attempt."""
        for producer in self:
            producer.cancel_all(reason)

    def replace(self, attempt: Attempt) -> None:
        """Open a slot in place of the one that a stuck attempt occupies."""
        producer = self.get(attempt.claimed.queue)
        if producer is not None and producer.replace(attempt):
            logger.info(
                "opened a slot of queue %s in place of one whose job is stuck", producer.queue
            )

    def lose_loop(self) -> None:
        """End the attempts that ran in an event loop that cannot run on."""
        for producer in self:
            producer.executor.lose_loop()

    def owns(self, thread: threading.Thread, queue: str | None = None) -> bool:
        """Return whether `thread` belongs to a slot.

        Args:
            thread: The thread.
            queue: The queue whose slots count; None for all.
        """
        return any(
            producer.executor.owns(thread) for producer in self if queue in {None, producer.queue}
        )

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop or resume claiming from `queue`; "*" means every queue."""
        with self._pausing:
            if queue == ALL or queue in self._by_queue:
                self._paused_at[queue] = self._clock.monotonic()
            self._set_paused(queue, paused=paused)

    def follow(self, rows: Sequence[QueueRow], began: float) -> None:
        """Pause and resume queues according to their rows.

        Args:
            rows: The rows.
            began: When they were read, by the process's monotonic clock. If this process has paused
                or resumed a queue since then, its row is ignored.
        """
        for row in rows:
            with self._pausing:
                before = began - 1
                changed_at = max(
                    self._paused_at.get(row.name, before), self._paused_at.get(ALL, before)
                )
                if changed_at < began:
                    self._set_paused(row.name, paused=row.paused_at is not None)

    def _set_paused(self, queue: str, *, paused: bool) -> None:
        for producer in self:
            # Not called where nothing changes: pause() waits for a claim under way.
            change = queue in (ALL, producer.queue) and producer.paused != paused
            if change and producer.pause(paused):
                logger.info("%s queue %s", "paused" if paused else "resumed", producer.queue)
                event = (QueuePaused if paused else QueueResumed)(queue=producer.queue)
                self._hub.publish(event)
