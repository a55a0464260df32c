"""Insert periodic jobs when they are due. The leader does this, as step 1 of 5."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.db.refusals import Fault, fault_of
from riverrun.db.transactions import Transaction, joined
from riverrun.execution.plugins import Plugin, around_insert, begin_inserts
from riverrun.jobs.states import JobState
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.maintenance.leadership import Leadership
from riverrun.maintenance.refused_periodic_jobs import find_refused
from riverrun.periodic_jobs import PeriodicJob, PeriodicJobs
from riverrun.policies.schedule import described as described_schedule
from riverrun.queries.expressions import FIRST_TIME, LAST_TIME
from riverrun.runtime.outage import log_failure
from riverrun.runtime.service import Pause, Service
from riverrun.verbs import periodic
from riverrun.verbs.draft import JobDraft, draft
from riverrun.verbs.halves import log_refused
from riverrun.verbs.insert import insert_drafts
from riverrun.verbs.notify import notify_in
from riverrun.verbs.periodic import About
from riverrun.verbs.version_3 import Version3
from riverrun.wire.topics import Topic, insert_payload

logger = logger_of(__name__)

REFUSED_S = 60.0
"""Seconds after which a job that could not be inserted is tried again."""

LONGEST_WAIT_S = 60.0
"""Longest wait between two looks, because clocks may be set and rows changed by hand."""

_BROKEN_AGAIN = timedelta(seconds=60)

HINTS_S = 1.0
"""Minimum seconds between two looks that notifications cause."""

TEXT_MAX = 200
"""Maximum number of characters of a schedule's text that are kept."""


@attrs.frozen(kw_only=True)
class Inserted:
    """The result of one turn.

    Attributes:
        jobs: How many jobs were inserted, without duplicates.
        wait_s: Seconds until the next run.
    """

    jobs: int
    wait_s: float


class PeriodicJobInserter(Service):
    """Inserts the jobs of due runs, in the transaction that plans the next runs."""

    def __init__(
        self,
        engine: Engine,
        *,
        jobs: PeriodicJobs,
        leadership: Leadership,
        plugins: Sequence[Plugin],
        max_attempts: int,
        schema: str | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        super().__init__("periodic_job_inserter")
        self._engine = engine
        self._jobs = jobs
        self._leadership = leadership
        self._plugins = plugins
        self._max_attempts = max_attempts
        self._schema = schema
        self._pause = Pause(rng.random, longest_s=LONGEST_WAIT_S)
        self._known: set[int] = set()  # handles whose first run is planned in this term
        self._in_memory: dict[int, datetime] = {}
        self._unanswered: dict[int, datetime] = {}  # when to try a failed schedule again
        self._drafts: Sequence[tuple[PeriodicJob, JobDraft]] = ()  # of the last turn
        self._refused: dict[int, float] = {}  # when to try jobs again that cannot be inserted
        self._version_3 = Version3(schema, clock)
        self._clock = clock
        self._described: dict[str, About] = {}  # the jobs as their rows describe them, by id
        self._hinted = False

    def interrupt(self) -> None:
        """Interrupt the wait."""
        self._jobs.changed.set()

    def hint(self) -> None:
        """Look soon, because a notification claims that a job is to run now. It may be wrong."""
        self._hinted = True
        self._jobs.changed.set()

    def failed(self) -> None:
        """Look again for version 3 after a turn that failed: it may have been taken down."""
        self._version_3.forget()

    def run(self) -> None:
        """Insert due jobs until stopped."""
        self._known, self._in_memory, self._unanswered = set(), {}, {}
        self._refused = {}
        self._described = {}
        for plugin in self._plugins:
            try:
                plugin.periodic_jobs_start()
            except BaseException as error:
                log_error(
                    logger,
                    error,
                    "periodic_jobs_start of the plugin %s failed, and is ignored",
                    type(plugin).__name__,
                )
        while not self.stopping.is_set():
            self._jobs.changed.clear()
            began = self._clock.monotonic()
            try:
                wait_s = self.run_once().wait_s
                self._pause.reset()
            except Exception as error:
                self.failed()
                wait_s = self._pause.next_s()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not insert periodic jobs; trying again in %.1f s",
                    wait_s,
                )
            if not self.stopping.is_set():
                self._jobs.changed.wait(wait_s)
            if self._hinted:
                # Any role may send many notifications.
                self._hinted = False
                self.stopping.wait(began + HINTS_S - self._clock.monotonic())

    def run_once(self, now: datetime | None = None) -> Inserted:
        """Plan new jobs and insert due ones.

        Args:
            now: For tests: used as the database's time, aware.
        """
        began = self._clock.monotonic()
        self._refused = {handle: at for handle, at in self._refused.items() if at > began}
        try:
            return self._turn(now)
        except Exception as error:
            if fault_of(error) is Fault.connection or not self._set_apart(began):
                raise
            return self._turn(now)

    def _turn(self, now: datetime | None) -> Inserted:
        every = self._jobs.by_handle()
        jobs = {handle: job for handle, job in every.items() if handle not in self._refused}
        if not jobs or not self._leadership.leads():
            return Inserted(jobs=0, wait_s=LONGEST_WAIT_S)
        known, memory, described = set(self._known), dict(self._in_memory), dict(self._described)
        unanswered = {key: at for key, at in self._unanswered.items() if key in every}
        with joined(self._engine, self._schema) as transaction:
            moment = now or periodic.clock(transaction)
            ids = {job.id for job in jobs.values() if job.id is not None}
            switches = bool(ids) and self._version_3.is_there(transaction)
            runs = self._plan(transaction, jobs, known, memory, unanswered, moment)
            runs = self._without_paused(transaction, runs, switches)
            runs += self._due(transaction, jobs, memory, unanswered, moment, switches)
            drafts = [
                (job, drafted) for job, at in runs if (drafted := self._draft(job, at)) is not None
            ]
            self._drafts = drafts
            inserted = self._insert(transaction, [drafted for _, drafted in drafts])
            if switches:
                self._describe(transaction, jobs, drafts, described)
            times = list(periodic.planned(transaction, ids).values()) if ids else []
            if not self._leadership.leads():
                # The term may have ended in the meantime. Runs that are planned only in memory are
                # the new leader's then.
                transaction.connection.rollback()
                return Inserted(jobs=0, wait_s=LONGEST_WAIT_S)
        self._known = known & set(every)
        self._in_memory = {handle: at for handle, at in memory.items() if handle in every}
        self._unanswered, self._described = unanswered, described
        for planned in (self._in_memory, unanswered):
            times += [at for handle, at in planned.items() if handle in jobs]
        first = min(times, default=moment + timedelta(seconds=LONGEST_WAIT_S))
        wait_s = min(max((first - moment).total_seconds(), 0.0), LONGEST_WAIT_S)
        return Inserted(jobs=inserted, wait_s=wait_s)

    def _set_apart(self, began: float) -> bool:
        """Leave jobs alone for a while if they, and not all, cannot be inserted; return whether."""
        drafts, self._drafts = self._drafts, ()
        refused = find_refused(self._engine, drafts, plugins=self._plugins, schema=self._schema)
        if not refused:
            return False
        names = [
            (job.id or getattr(job.constructor, "__qualname__", "?"), error)
            for job, error in refused
        ]
        log_refused(f"periodic jobs not inserted, and left alone for {REFUSED_S:g} s", names)
        jobs = [job for job, _ in refused]
        for handle, job in self._jobs.by_handle().items():
            if any(job is each for each in jobs):
                self._refused[handle] = began + REFUSED_S
        return True

    def _plan(
        self,
        transaction: Transaction,
        jobs: Mapping[int, PeriodicJob],
        known: set[int],
        memory: dict[int, datetime],
        unanswered: dict[int, datetime],
        now: datetime,
    ) -> list[tuple[PeriodicJob, datetime]]:
        """Plan the next run of each job that is new or has none; return the runs on start."""
        new = [(handle, job) for handle, job in jobs.items() if handle not in known]
        again = [
            (handle, jobs[handle])
            for handle, at in unanswered.items()
            if at <= now and handle in jobs
        ]
        durable = {}
        for handle, job in (*new, *again):
            following = _after(job, now)
            if following is None:
                unanswered[handle] = now + _BROKEN_AGAIN
                continue
            unanswered.pop(handle, None)
            if job.id is None:
                memory[handle] = following
            else:
                durable[job.id] = following
        if durable:
            periodic.plan(transaction, durable, now)
        known.update(handle for handle, _ in new)
        return [(job, now) for _, job in new if job.run_on_start]

    def _due(
        self,
        transaction: Transaction,
        jobs: Mapping[int, PeriodicJob],
        memory: dict[int, datetime],
        unanswered: dict[int, datetime],
        now: datetime,
        switches: bool,
    ) -> list[tuple[PeriodicJob, datetime]]:
        """Plan the next run of each due job, and return its due runs.

        They are returned even if the schedule fails to give a next run.
        """
        runs: list[tuple[PeriodicJob, datetime]] = []
        for handle, at in list(memory.items()):
            if handle in jobs:
                times, following = jobs[handle].due(at, now, partial(_after, jobs[handle]))
                runs += [(jobs[handle], time) for time in times]
                if following is not None:
                    memory[handle] = following
                else:
                    del memory[handle]
                    unanswered[handle] = now + _BROKEN_AGAIN
        by_id = {job.id: (handle, job) for handle, job in jobs.items() if job.id is not None}
        if by_id:
            advanced, asked = {}, []
            for job_id, due in periodic.due(transaction, by_id, now, switches=switches).items():
                handle, job = by_id[job_id]
                if due.run_now:
                    asked.append(job_id)
                    runs.append((job, now))
                if due.next_run_at > now:
                    continue
                times, following = job.due(due.next_run_at, now, partial(_after, job))
                since = due.resumed_at or FIRST_TIME
                runs += [(job, time) for time in times if not due.paused and time >= since]
                if following is None:
                    unanswered[handle] = now + _BROKEN_AGAIN
                # Without an answer, plan a time that is never reached. Any later answer is earlier
                # than that, and so replaces it.
                advanced[job_id] = following or LAST_TIME
            if advanced:
                periodic.advance(transaction, advanced, now)
            if asked:
                periodic.ran_now(transaction, asked, now)
        return runs

    def _without_paused(
        self,
        transaction: Transaction,
        runs: list[tuple[PeriodicJob, datetime]],
        switches: bool,
    ) -> list[tuple[PeriodicJob, datetime]]:
        """Return the runs on start of those jobs that are not paused."""
        ids = [job.id for job, _ in runs if job.id is not None]
        paused = periodic.paused(transaction, ids) if switches and ids else set()
        return [(job, at) for job, at in runs if job.id not in paused]

    def _describe(
        self,
        transaction: Transaction,
        jobs: Mapping[int, PeriodicJob],
        drafts: Sequence[tuple[PeriodicJob, JobDraft]],
        described: dict[str, About],
    ) -> None:
        """Write what each job with an id is, if its row has something else."""
        drafted_by_id = {job.id: drafted for job, drafted in drafts}
        news = {}
        for job in jobs.values():
            if job.id is None or (job.id in described and job.id not in drafted_by_id):
                continue
            drafted = drafted_by_id.get(job.id) or self._constant(job)
            text, zone = described_schedule(job.schedule)
            about = About(
                None if drafted is None else drafted.kind,
                None if drafted is None else drafted.queue,
                text[:TEXT_MAX],
                zone,
            )
            if described.get(job.id) != about:
                news[job.id] = described[job.id] = about
        if news:
            periodic.describe(transaction, news)

    def _constant(self, job: PeriodicJob) -> JobDraft | None:
        """Return a draft of a job whose args are the same for each run; None for other jobs."""
        if not job.is_constant:
            return None
        try:
            return self._drafted(job.constructor(), None)
        except BaseException:
            return None  # the failure is logged at its first run

    def _insert(self, transaction: Transaction, drafts: Sequence[JobDraft]) -> int:
        if not drafts:
            return 0
        results = around_insert(
            self._plugins,
            drafts,
            lambda: insert_drafts(transaction, drafts, schema=self._schema),
        )
        jobs = [result.job for result in results if not result.skipped_as_duplicate]
        names = {job.queue for job in jobs if job.state is JobState.available}
        if names:
            payloads = [insert_payload(name) for name in sorted(names)]
            notify_in(transaction, Topic.insert, payloads, schema=self._schema)
        for job in jobs:
            extra = {"job_id": job.id, "kind": job.kind, "queue": job.queue}
            logger.debug("inserted periodic job %s (%s)", job.id, job.kind, extra=extra)
        return len(jobs)

    def _draft(self, job: PeriodicJob, at: datetime) -> JobDraft | None:
        name = job.id or getattr(job.constructor, "__qualname__", "?")
        try:
            result = job.constructor()
            if result is None:
                return None
            drafted = self._drafted(result, at)
            # Source of the keys and of the time: River 0.51, internal/maintenance.
            marks: dict[str, object] = {"periodic": True}
            if job.id is not None:
                marks["river:periodic_job_id"] = job.id
            drafted = begin_inserts(self._plugins, [drafted.with_metadata(marks)])[0]
        except BaseException as error:
            # One job that fails must not keep the others from running, even by SystemExit.
            log_error(
                logger,
                error,
                "skipped a run of the periodic job %s, because its job could not be made",
                name,
            )
            return None
        if drafted.scheduled_at is None:
            drafted = attrs.evolve(drafted, scheduled_at=at)
        return drafted

    def _drafted(self, result: Any, at: datetime | None) -> JobDraft:
        args, opts = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        return draft(args, opts, max_attempts=self._max_attempts, now=at)


def _after(job: PeriodicJob, moment: datetime) -> datetime | None:
    """Return the next run after `moment`; if the schedule fails, log the error and return None."""
    try:
        return job.after(moment)
    except BaseException as error:
        log_error(
            logger, error, "the schedule of the periodic job %s failed", job.id or job.schedule
        )
        return None
