"""Events of a client, as frozen classes, and the hub that passes them to subscribers."""

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import attrs

from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_callable
from riverrun.jobs.row import JobRow
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)

BUFFER = 1_000
"""Maximum number of events that wait for one subscriber. Further ones are dropped.

Source: River 0.51.
"""


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened in a client."""


@attrs.frozen(kw_only=True)
class JobEvent(Event):
    """An attempt has ended, and its outcome is in the database.

    Attributes:
        job: The job as claimed, in the state it now has.
        error: What the worker raised; None if it returned.
        queue_wait_s: Seconds from the time at which the job was due to its claim.
        run_s: Seconds that its worker took.
        complete_s: Seconds from the end of the worker until the outcome was in the database.
    """

    job: JobRow
    error: BaseException | None = None
    queue_wait_s: float
    run_s: float
    complete_s: float


class JobCompleted(JobEvent):
    """A worker returned, and its job is completed."""


class JobFailed(JobEvent):
    """A worker raised; the job will be tried again, or is discarded."""


class JobCancelled(JobEvent):
    """A job was cancelled, by its worker or from outside."""


class JobSnoozed(JobEvent):
    """A worker snoozed its job: it runs again later, and the attempt is not counted."""


class JobInterrupted(JobEvent):
    """An attempt was interrupted, such as by a stop. It is not counted; the job is available."""


class JobConflicted(JobInterrupted):
    """An attempt's transaction met a conflict or lost its connection; the job is available again.

    The attempt is not counted. The job's metadata counts these events as `riverrun:conflicts`.
    """


class JobDeferred(JobInterrupted):
    """A worker was not called, because another one works on the object of its `serialize_by`.

    The job becomes available again soon, and the attempt is not counted.
    """


@attrs.frozen(kw_only=True)
class JobsClaimed(Event):
    """A claim took jobs from a queue.

    Attributes:
        queue: The queue's name.
        count: How many jobs.
        claim_s: Seconds that the statement and its commit took.
    """

    queue: str
    count: int
    claim_s: float


@attrs.frozen(kw_only=True)
class QueueEvent(Event):
    """A client paused a queue, or resumed it.

    Attributes:
        queue: The queue's name.
    """

    queue: str


class QueuePaused(QueueEvent):
    """The client no longer claims jobs from the queue."""


class QueueResumed(QueueEvent):
    """The client claims jobs from the queue again."""


@attrs.frozen(kw_only=True)
class UserActed(Event):
    """A user has changed jobs, a queue or a periodic job by a method that records it.

    Attributes:
        user: The user's name.
        action: What was done, such as "retry" or "pause_queue".
        count: How many jobs, queues or periodic jobs were changed.
        job_ids: Which jobs were changed, in ascending order.
    """

    user: str
    action: str
    count: int
    job_ids: tuple[int, ...] = ()


class Listener:
    """Calls a function with each event, in the thread that publishes it."""

    def __init__(self, call: Callable[[Event], object], kinds: tuple[type[Event], ...]) -> None:
        self._call = call
        self._kinds = kinds

    def offer(self, event: Event) -> None:
        """Call the function with `event`. An error that it raises is only logged."""
        if isinstance(event, self._kinds):
            try:
                self._call(event)
            except BaseException as error:  # one that exits must not end the client's thread
                pressed = isinstance(error, KeyboardInterrupt)
                if pressed and threading.current_thread() is threading.main_thread():
                    raise  # Ctrl-C is not the listener's
                name = type(event).__name__
                log_error(logger, error, "ignored a listener that failed at %s", name)


class Subscription:
    """A subscriber's queue of events. It is a context manager, which closes it on exit."""

    def __init__(self, hub: "Hub", kinds: tuple[type[Event], ...]) -> None:
        self._hub = hub
        self._kinds = kinds
        self._events: queue.Queue[Event] = queue.Queue(BUFFER)
        self._dropping = False

    def get(self, timeout: float | None = None) -> Event:
        """Return the next event.

        Args:
            timeout: Seconds to wait. Default: None, without a limit.

        Raises:
            TimeoutError: If no event came in time.
        """
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            names = ", ".join(kind.__name__ for kind in self._kinds)
            raise TimeoutError(f"no event of {names} within {timeout:g} s") from None

    def close(self) -> None:
        """End the subscription."""
        self._hub.remove(self)

    def offer(self, event: Event) -> None:
        """Queue `event`, or drop it if the subscriber is too far behind; the first drop warns."""
        if not isinstance(event, self._kinds):
            return
        try:
            self._events.put_nowait(event)
            self._dropping = False
        except queue.Full:
            if not self._dropping:
                logger.warning("dropping events: a subscriber is %s behind", BUFFER)
            self._dropping = True

    def __iter__(self) -> Iterator[Event]:
        while True:
            yield self.get()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Hub:
    """Passes events to subscribers. A slow subscriber delays no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _subscriptions, which is replaced, never changed
        self._subscriptions: tuple[Subscription | Listener, ...] = ()

    def forked(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may have held the old one."""
        self._lock = threading.Lock()

    def subscribe(self, *kinds: type[Event]) -> Subscription:
        """Return a subscription to events of `kinds`. Default: all events."""
        subscription = Subscription(self, _checked(kinds))
        with self._lock:
            self._subscriptions += (subscription,)
        return subscription

    def listen(self, call: Callable[[Event], object], *kinds: type[Event]) -> Listener:
        """Call `call` with each event of `kinds`. Default: all events."""
        check_callable("call", call, "a function that takes an event")
        listener = Listener(call, _checked(kinds))
        with self._lock:
            self._subscriptions += (listener,)
        return listener

    def remove(self, subscription: Subscription | Listener) -> None:
        """Remove `subscription`."""
        with self._lock:
            kept = (other for other in self._subscriptions if other is not subscription)
            self._subscriptions = tuple(kept)

    @property
    def has_subscribers(self) -> bool:
        """Whether there is a subscriber. If not, events need not be made."""
        return bool(self._subscriptions)

    def publish(self, event: Event) -> None:
        """Offer `event` to every subscriber."""
        for subscription in self._subscriptions:
            subscription.offer(event)


def _checked(kinds: tuple[type[Event], ...]) -> tuple[type[Event], ...]:
    """Return `kinds`, or all if there are none.

    Raises:
        InvalidOption: If one is no class of events. Each event would raise where it is published.
    """
    for kind in kinds:
        if not isinstance(kind, type) or not issubclass(kind, Event):
            raise InvalidOption("kinds", kind, "classes of events, such as JobCompleted, JobFailed")
    return kinds or (Event,)
