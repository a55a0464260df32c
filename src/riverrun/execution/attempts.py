"""Attempts: the settings that all attempts of a client share."""

import os
from collections.abc import Callable

import attrs

from riverrun.events import Hub
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.context import JobContext
from riverrun.execution.handlers import ErrorHandler
from riverrun.execution.plugins import Plugin, of_kind
from riverrun.execution.processes import ProcessPool
from riverrun.execution.workers import Executor, Worker, Workers
from riverrun.jobs.row import JobRow
from riverrun.policies.backoff import Backoff
from riverrun.verbs.claim import ClaimedJob


@attrs.frozen(kw_only=True)
class Plan:
    """How the jobs of one kind are worked, found once for all of them.

    Attributes:
        worker: The worker.
        plugins: The client's, the args' and the worker's plugins, the outermost first.
        processes: The processes in which the worker is called; None for this process.
        timeout_s: Seconds that an attempt may take; None for no limit.
        backoff: When a failed job may be claimed again.
        is_async: Whether the worker is an `async def`.
    """

    worker: Worker
    plugins: tuple[Plugin, ...]
    processes: ProcessPool | None
    timeout_s: float | None
    backoff: Backoff
    is_async: bool


@attrs.frozen(kw_only=True)
class Attempts:
    """The settings that all attempts of a client share. It makes their contexts.

    Attributes:
        workers: The registered workers.
        backoff: When a failed job may be claimed again. A worker's own takes precedence.
        job_timeout_s: Seconds that an attempt may take; 0 for no limit. A worker's own takes
            precedence.
        plugins: The plugins that take part in each attempt, the outermost first.
        parts: What their contexts have in common.
        context_type: Makes the contexts.
        processes: The processes for workers registered for one; None calls them in this process.
        pid: The id of the process in which the attempts are made.
    """

    workers: Workers
    backoff: Backoff
    job_timeout_s: float
    plugins: tuple[Plugin, ...]
    error_handler: ErrorHandler | None
    hub: Hub
    parts: ContextParts
    context_type: Callable[..., JobContext] = JobContext
    processes: ProcessPool | None = None
    pid: int = attrs.field(factory=os.getpid)
    _plans: dict[str, Plan] = attrs.field(factory=dict, init=False)

    def plan(self, kind: str) -> Plan | None:
        """Return how jobs of `kind` are worked; None if no worker is registered for it."""
        plan = self._plans.get(kind)
        if plan is None:
            worker = self.workers.find(kind)
            if worker is None:
                return None
            own_s = worker.timeout_s
            plan = self._plans[kind] = Plan(
                worker=worker,
                plugins=(*self.plugins, *of_kind(worker.args_type), *worker.plugins),
                processes=self.processes if worker.executor is Executor.process else None,
                timeout_s=(self.job_timeout_s if own_s is None else own_s) or None,
                backoff=worker.backoff or self.backoff,
                is_async=worker.executor is Executor.coroutine,
            )
        return plan

    @property
    def events_wanted(self) -> bool:
        """Whether there are subscribers or listeners to events."""
        return self.hub.has_subscribers

    def context(
        self, job: JobRow | ClaimedJob, claimed_monotonic: float, timeout_s: float | None
    ) -> JobContext:
        """Return the context of an attempt.

        Args:
            job: The job as claimed.
            claimed_monotonic: When it was claimed, by the process's monotonic clock.
            timeout_s: Seconds that the attempt may take; None for no limit.
        """
        return self.context_type(job, self.parts, claimed_monotonic, timeout_s)

    def timeout_s(self, kind: str) -> float | None:
        """Return the seconds that an attempt at `kind` may take; None for no limit."""
        plan = self.plan(kind)
        return (self.job_timeout_s or None) if plan is None else plan.timeout_s

    def timeouts_s(self) -> dict[str, float | None]:
        """Return the seconds that an attempt may take, by kind."""
        return {kind: self.timeout_s(kind) for kind in self.workers.kinds}

    def backoff_of(self, kind: str) -> Backoff:
        """Return when a failed job of `kind` may be claimed again."""
        plan = self.plan(kind)
        return self.backoff if plan is None else plan.backoff
