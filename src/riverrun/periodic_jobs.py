"""Periodic jobs: what recurs, by which schedule, and a client's collection of them."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import Any, cast

import attrs

from riverrun.errors import InvalidOption
from riverrun.jobs.args import encode
from riverrun.jobs.checks import check_aware, check_kind
from riverrun.policies.schedule import Schedule

GRACE = timedelta(seconds=60)
"""A run that is no later than this was not missed: leaders change in the meantime."""

EACH_MAX = 1_000
"""Most runs of one job that are caught up in one transaction."""


class Missed(StrEnum):
    """What happens with runs that were due while no leader lived: of one, or of all, or nothing."""

    skip = "skip"
    once = "once"
    each = "each"


def _id(value: object) -> str | None:
    try:
        return None if value is None else check_kind(value)
    except InvalidOption as error:
        raise InvalidOption("id", value, error.args[2]) from None


@attrs.frozen
class _Same:
    """Returns the same args for each run."""

    args: object

    def __call__(self) -> object:
        return self.args


def _constructor(value: object) -> Any:
    args = value[0] if isinstance(value, tuple) and len(value) == 2 else value
    if isinstance(args, type) or not hasattr(type(args), "kind"):
        return value
    encode(args)  # what cannot be inserted is refused here, not at the first run
    return _Same(value)


@attrs.frozen
class PeriodicJob:
    """A job that recurs.

    With an id, when it runs next is kept in the database, so that it runs neither twice nor never
    when leaders change. Without one it is kept in the leader's memory, as River keeps it.

    Attributes:
        schedule: From a time to the next run: Interval, Cron, or any function; both aware.
        constructor: Returns args, a pair of args and InsertOpts, or None to leave this run out; or
            args, the same for each run.
        id: Names it among all clients, by the rules for kinds.
        run_on_start: Whether it also runs whenever a client becomes leader.
        missed: With an id: whether runs that were due more than 60 s ago, while no leader lived,
            are left out, made up for once, or made up for each.

    Raises:
        InvalidOption: If a value is out of range.
    """

    schedule: Schedule
    constructor: Callable[[], object] = attrs.field(converter=_constructor)
    id: str | None = attrs.field(default=None, converter=_id, kw_only=True)
    run_on_start: bool = attrs.field(default=False, kw_only=True)
    missed: Missed = attrs.field(default=Missed.skip, converter=Missed, kw_only=True)

    def __attrs_post_init__(self) -> None:
        schedule, constructor = cast("object", self.schedule), cast("object", self.constructor)
        if not callable(schedule):
            raise InvalidOption("schedule", schedule, "a function, such as Cron(...)")
        if not callable(constructor):
            raise InvalidOption("constructor", constructor, "args, or a function that returns them")
        if self.missed is not Missed.skip and self.id is None:
            raise InvalidOption("id", self.id, f"an id: without one, missed={self.missed} is lost")

    def after(self, moment: datetime) -> datetime:
        """Return the next run after `moment`.

        Raises:
            InvalidOption: If the schedule returns none.
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
        """Return which runs are to happen now, and the one after them.

        Args:
            planned: The next run as it was planned.
            now: The database's time.
            after: Used in place of `self.after`. Where it returns None the runs before still
                happen, and the one after them is None.
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
    """A client's periodic jobs, by handle; they may change while it runs."""

    def __init__(
        self,
        jobs: Iterable[PeriodicJob],
        *,
        on_change: Callable[[], None],
        leader_election_disabled: bool = False,
    ) -> None:
        self._lock = threading.Lock()  # guards _jobs
        self._jobs: dict[int, PeriodicJob] = {}
        self._handles = count(1)
        self._leader_election_disabled = leader_election_disabled
        self._on_change: Callable[[], None] = lambda: None
        self.add_many(jobs)
        self._on_change = on_change

    def forked(self) -> None:
        """Be a forked child's: its lock may have been held by a thread of the parent's."""
        self._lock = threading.Lock()

    def add(self, job: PeriodicJob) -> int:
        """Add `job`; return a handle to remove it by.

        Raises:
            InvalidOption: If there is one with its id already, or the client never leads.
        """
        return self.add_many([job])[0]

    def add_many(self, jobs: Iterable[PeriodicJob]) -> list[int]:
        """Add all of `jobs`, or, if one is refused, none; return a handle for each."""
        added: dict[int, PeriodicJob] = {}
        with self._lock:
            taken = {job.id for job in self._jobs.values() if job.id is not None}
            if not isinstance(jobs, Iterable):
                raise InvalidOption("periodic_jobs", jobs, "a list of PeriodicJobs")
            for job in jobs:
                if not isinstance(job, PeriodicJob):
                    raise InvalidOption("periodic_jobs", job, "a PeriodicJob")
                if self._leader_election_disabled:
                    expected = "none: with leader_election_disabled nobody would insert them"
                    raise InvalidOption("periodic_jobs", job, expected)
                if job.id in taken:
                    raise InvalidOption("id", job.id, "an id that no other periodic job has")
                if job.id is not None:
                    taken.add(job.id)
                added[next(self._handles)] = job
            self._jobs.update(added)
        self._on_change()
        return list(added)

    def remove(self, handle: int) -> None:
        """Remove the job that `add` returned `handle` for; nothing if it is gone."""
        with self._lock:
            self._jobs.pop(handle, None)

    def remove_by_id(self, job_id: str) -> bool:
        """Remove the job with the id `job_id`; return whether there was one."""
        with self._lock:
            kept = {handle: job for handle, job in self._jobs.items() if job.id != job_id}
            removed, self._jobs = len(kept) < len(self._jobs), kept
        return removed

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._jobs.clear()

    def by_handle(self) -> Mapping[int, PeriodicJob]:
        """Return the jobs as they are now, by handle."""
        with self._lock:
            return dict(self._jobs)

    def __iter__(self) -> Iterator[PeriodicJob]:
        return iter(self.by_handle().values())

    def __len__(self) -> int:
        return len(self._jobs)
