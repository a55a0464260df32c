"""Periodic jobs: a job with its schedule, and a client's collection of them."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import Any, cast

import attrs

from riverrun.errors import InvalidOption
from riverrun.jobs.args import encode
from riverrun.jobs.checks import check_aware, check_callable, check_flag, check_kind
from riverrun.policies.schedule import Schedule

GRACE = timedelta(seconds=60)
"""A run that is late by no more than this is not missed: a change of leaders takes as long."""

EACH_MAX = 1_000
"""Maximum number of missed runs of one job that are inserted in one transaction."""


class Missed(StrEnum):
    """What to do about runs missed while no client led.

    `skip`: nothing. `once`: make up for one of them. `each`: make up for each of them.
    """

    skip = "skip"
    once = "once"
    each = "each"


def _id(value: object) -> str | None:
    try:
        return None if value is None else check_kind(value)
    except InvalidOption as error:
        raise InvalidOption("id", value, error.args[2]) from None


def _missed(value: Missed | str) -> Missed:
    try:
        return Missed(value)
    except ValueError:
        raise InvalidOption("missed", value, f"one of {', '.join(Missed)}") from None


@attrs.frozen
class _Same:
    """A constructor that returns the same args for each run."""

    args: object

    def __call__(self) -> object:
        return self.args


def _constructor(value: object) -> Any:
    args = value[0] if isinstance(value, tuple) and len(value) == 2 else value
    if isinstance(args, type) or not hasattr(type(args), "kind"):
        return value
    encode(args)  # raises here, not at the first run, if the args cannot be inserted
    return _Same(value)


@attrs.frozen
class PeriodicJob:
    """A job that is inserted again and again, on a schedule.

    The next run of a job with an id is kept in the database, so that no run is lost or repeated
    when the leader changes. The next run of a job without an id is kept in the leader's memory, as
    in River.

    Attributes:
        schedule: Takes a time and returns the next run after it: an Interval, a Cron, or any
            function. Both times are aware.
        constructor: A function that returns args, a pair of args and InsertOpts, or None to skip
            this run. Or the args themselves, which are then the same for each run.
        id: The job's name, the same in all clients. The rules for kinds apply.
        run_on_start: Whether the job also runs whenever a client becomes leader.
        missed: What to do about runs that were due more than 60 s ago, while no client led: skip
            them, make up for one, or make up for each. Needs an id. Default: skip.

    Raises:
        InvalidOption: If a value is out of range.
    """

    schedule: Schedule
    constructor: Callable[[], object] = attrs.field(converter=_constructor)
    id: str | None = attrs.field(default=None, converter=_id, kw_only=True)
    run_on_start: bool = attrs.field(default=False, kw_only=True)
    missed: Missed = attrs.field(default=Missed.skip, converter=_missed, kw_only=True)

    def __attrs_post_init__(self) -> None:
        schedule, constructor = cast("object", self.schedule), cast("object", self.constructor)
        check_callable("schedule", schedule, "a function, such as Cron(...)")
        check_flag("run_on_start", self.run_on_start)
        if not callable(constructor):
            raise InvalidOption("constructor", constructor, "args, or a function that returns them")
        if self.missed is not Missed.skip and self.id is None:
            raise InvalidOption("id", self.id, f"an id: without one, missed={self.missed} is lost")

    @property
    def is_constant(self) -> bool:
        """Whether the args are the same for each run."""
        return isinstance(self.constructor, _Same)

    def after(self, moment: datetime) -> datetime:
        """Return the next run after `moment`.

        Raises:
            InvalidOption: If the schedule does not return an aware time after `moment`.
        """
        following = check_aware("schedule", self.schedule(moment))
        if following <= moment:
            raise InvalidOption("schedule", following, f"a time after {moment.isoformat()}")
        return following

    def due(
        self,
        planned: datetime,
        now: datetime,
        after: Callable[[datetime], datetime | None] | None = None,
    ) -> tuple[list[datetime], datetime | None]:
        """Return the runs that are due now, and the next run after them.

        Args:
            planned: The time planned for the next run.
            now: The database's time.
            after: Used in place of `self.after`. If it returns None, the runs before are still
                due, and the next run after them is None.
        """
        ask = after or self.after
        if planned > now:
            return [], planned
        if self.missed is Missed.skip and now - planned > GRACE:
            return [], ask(now)
        runs = [planned]
        following = ask(planned)
        if self.missed is Missed.each:
            while following is not None and following <= now and len(runs) < EACH_MAX:
                runs.append(following)
                following = ask(following)
        elif following is not None and following <= now:
            following = ask(now)
        return runs, following


class PeriodicJobs:
    """A client's periodic jobs, by handle; they may change while it runs.

    Attributes:
        changed: Set when jobs were added. The PeriodicJobInserter clears it.
    """

    def __init__(
        self,
        jobs: Iterable[PeriodicJob],
        *,
        leader_election_disabled: bool = False,
    ) -> None:
        self._lock = threading.Lock()  # guards _jobs
        self._jobs: dict[int, PeriodicJob] = {}
        self._handles = count(1)
        self._leader_election_disabled = leader_election_disabled
        self.changed = threading.Event()
        self.add_many(jobs)

    def forked(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may have held the old one."""
        self._lock = threading.Lock()
        self.changed = threading.Event()

    def add(self, job: PeriodicJob) -> int:
        """Add `job`, and return a handle for `remove`.

        Raises:
            InvalidOption: If another job has the same id, or the client never leads.
        """
        return self.add_many([job])[0]

    def add_many(self, jobs: Iterable[PeriodicJob]) -> list[int]:
        """Add all of `jobs`, and return a handle for each. If one is refused, none is added."""
        added: dict[int, PeriodicJob] = {}
        with self._lock:
            taken = {job.id for job in self._jobs.values() if job.id is not None}
            if not isinstance(jobs, Iterable):
                raise InvalidOption("periodic_jobs", jobs, "a list of PeriodicJobs")
            for job in jobs:
                if not isinstance(job, PeriodicJob):
                    raise InvalidOption("periodic_jobs", job, "a PeriodicJob")
                if self._leader_election_disabled:
                    expected = "none: a client with leader_election_disabled never inserts them"
                    raise InvalidOption("periodic_jobs", job, expected)
                if job.id in taken:
                    raise InvalidOption("id", job.id, "an id that no other periodic job has")
                if job.id is not None:
                    taken.add(job.id)
                added[next(self._handles)] = job
            self._jobs.update(added)
        self.changed.set()
        return list(added)

    def remove(self, handle: int) -> None:
        """Remove the job for which `add` returned `handle`, if it is still there."""
        with self._lock:
            self._jobs.pop(handle, None)

    def remove_by_id(self, job_id: str) -> bool:
        """Remove the job with the id `job_id`; return whether there was one."""
        with self._lock:
            kept = {handle: job for handle, job in self._jobs.items() if job.id != job_id}
            removed, self._jobs = len(kept) < len(self._jobs), kept
        return removed

    def clear(self) -> None:
        """Remove all jobs."""
        with self._lock:
            self._jobs.clear()

    def by_handle(self) -> Mapping[int, PeriodicJob]:
        """Return the current jobs, by handle."""
        with self._lock:
            return dict(self._jobs)

    def __iter__(self) -> Iterator[PeriodicJob]:
        return iter(self.by_handle().values())

    def __len__(self) -> int:
        return len(self._jobs)
