"""Prometheus metrics of a client.

    from riverrun.instrumentation.prometheus import instrument
    instrument(client)

Names end in their unit. Kinds and queues are labels, so a client with an unlimited number of kinds
or queues has an unlimited number of series.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from riverrun.client.client import Client
from riverrun.errors import RiverrunError
from riverrun.events import (
    Event,
    JobCancelled,
    JobCompleted,
    JobConflicted,
    JobDeferred,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobsClaimed,
    JobSnoozed,
)
from riverrun.jobs.states import FINAL_STATES, JobState
from riverrun.verbs.status import JobCount, count_jobs

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OUTCOMES: dict[type[Event], str] = {
    JobCompleted: "completed",
    JobFailed: "failed",
    JobCancelled: "cancelled",
    JobSnoozed: "snoozed",
    JobInterrupted: "interrupted",
    JobConflicted: "conflicted",
    JobDeferred: "deferred",
}


def instrument(
    client: Client, *, registry: CollectorRegistry = REGISTRY, count_interval: float = 15.0
) -> None:
    """Measure `client` from now on. Does nothing if the registry measures it already.

    - `riverrun_attempts_total` by kind, queue and outcome: completed, failed, discarded, cancelled,
      snoozed, interrupted, conflicted with another transaction, or deferred;
    - `riverrun_attempt_duration_seconds` by kind: how long the worker ran;
    - `riverrun_queue_wait_seconds` by queue: from when a job was due until its claim;
    - `riverrun_claim_duration_seconds` by queue: the claim's statement and commit;
    - `riverrun_complete_duration_seconds` by queue: from the worker's return until the row is
      completed;
    - `riverrun_jobs` and `riverrun_oldest_job_age_seconds` by queue and state, except final states:
      for the whole database, counted when the metrics are read, at most every `count_interval`;
    - `riverrun_leader`: 1 in the client that leads, else 0;
    - `riverrun_healthy`: 1 if no running client has `problems`, else 0;
    - `riverrun_held_outcomes` and `riverrun_refused_outcomes`: outcomes of attempts that are not
      written yet, and those that the database has refused for good.

    Figures of several clients in one registry are added up; a database that they share is counted
    once. For separate figures, give each client a registry of its own.

    Args:
        client: The client.
        registry: The registry of the metrics. Default: Prometheus's global one.
        count_interval: Seconds for which a count of the database's jobs is reused.

    Raises:
        ValueError: If the registry already has other metrics with these names.
    """
    with _lock:
        metrics = _of_registries.get(registry)
        if metrics is None:
            metrics = _of_registries[registry] = _Metrics(registry)
        metrics.measure(client, count_interval)


class _Metrics(Collector):
    """The metrics of all clients in one registry, and the collector of their gauges."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._clients: list[Client] = []
        self._databases: dict[tuple[URL, str | None], _Database] = {}
        self._attempts = Counter(
            "riverrun_attempts",
            "Finished attempts.",
            ["kind", "queue", "outcome"],
            registry=registry,
        )
        self._run = _histogram(registry, "attempt_duration", "How long a worker ran.", "kind")
        self._wait = _histogram(
            registry, "queue_wait", "From when a job was due until its claim.", "queue"
        )
        self._claim = _histogram(
            registry, "claim_duration", "A claim's statement and commit.", "queue"
        )
        self._complete = _histogram(
            registry,
            "complete_duration",
            "From a worker's return until its row is completed.",
            "queue",
        )
        registry.register(self)

    def measure(self, client: Client, interval_s: float) -> None:
        if client in self._clients:
            return
        place = client.engine.url, client.schema
        self._databases.setdefault(place, _Database(client, interval_s))
        self._clients = [*self._clients, client]
        client.listen(self._record)

    def describe(self) -> Iterator[Any]:
        """Describe nothing, because collecting at registration would query the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        leader = GaugeMetricFamily("riverrun_leader", "Whether this client leads.")
        leader.add_metric([], sum(client.leads for client in self._clients))
        yield leader
        if working := [client for client in self._clients if client.running]:
            healthy = GaugeMetricFamily("riverrun_healthy", "Whether each client has no problems.")
            healthy.add_metric([], all(client.healthy for client in working))
            yield healthy
        held = GaugeMetricFamily("riverrun_held_outcomes", "Outcomes not written yet.")
        held.add_metric([], sum(client.held for client in self._clients))
        yield held
        refused = GaugeMetricFamily("riverrun_refused_outcomes", "Outcomes refused for good.")
        refused.add_metric([], sum(client.refused for client in self._clients))
        yield refused
        labels = ["queue", "state"]
        jobs = GaugeMetricFamily("riverrun_jobs", "Jobs that are not final.", labels=labels)
        age = GaugeMetricFamily(
            "riverrun_oldest_job_age_seconds",
            "How long the oldest job has been due.",
            labels=labels,
        )
        # Report zeros too, or an empty queue would look like an unknown one.
        depths: dict[tuple[str, JobState], tuple[int, float]] = {}
        for database in list(self._databases.values()):
            counts = database.count()
            if counts is None:
                continue
            for client in self._clients:
                depths |= {
                    (queue, state): (0, 0.0)
                    for queue in client.queues
                    for state in JobState
                    if state not in FINAL_STATES and (queue, state) not in depths
                }
            for group in counts:
                count, age_s = depths.get((group.queue, group.state), (0, 0.0))
                depths[group.queue, group.state] = count + group.count, max(age_s, group.age_s)
        for (queue, state), (count, age_s) in sorted(depths.items()):
            jobs.add_metric([queue, state.value], count)
            age.add_metric([queue, state.value], age_s)
        yield jobs
        yield age

    def _record(self, event: Event) -> None:
        if isinstance(event, JobsClaimed):
            self._claim.labels(event.queue).observe(event.claim_s)
        elif isinstance(event, JobEvent):
            job = event.job
            outcome = _OUTCOMES.get(type(event), "other")
            if outcome == "failed" and job.state is JobState.discarded:
                outcome = "discarded"
            self._attempts.labels(job.kind, job.queue, outcome).inc()
            self._run.labels(job.kind).observe(event.run_s)
            self._wait.labels(job.queue).observe(max(0.0, event.queue_wait_s))
            self._complete.labels(job.queue).observe(event.complete_s)


_lock = threading.Lock()  # guards _of_registries and what is added to each
_of_registries: WeakKeyDictionary[CollectorRegistry, _Metrics] = WeakKeyDictionary()


class _Database:
    """Counts a database's jobs on demand, and reuses the counts for a while."""

    def __init__(self, client: Client, interval_s: float) -> None:
        self._client = client
        self._interval_s = interval_s
        self._counted_at = float("-inf")
        self._counts: list[JobCount] | None = None

    def count(self) -> list[JobCount] | None:
        """Return the counts; None if the database cannot be queried."""
        now = time.monotonic()
        if now - self._counted_at >= self._interval_s:
            self._counted_at = now
            try:
                self._counts = count_jobs(self._client.engine, schema=self._client.schema)
            except (SQLAlchemyError, RiverrunError):
                # Report no figures rather than old ones, so that monitoring sees the gap.
                self._counts = None
        return self._counts


def _histogram(registry: CollectorRegistry, name: str, about: str, label: str) -> Histogram:
    return Histogram(
        f"riverrun_{name}_seconds", about, [label], buckets=_SECONDS, registry=registry
    )
