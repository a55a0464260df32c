"""Metrics of a client, for Prometheus.

    from riverrun.instrumentation.prometheus import instrument
    instrument(client)

Names end in their unit, and kinds and queues are labels; a client whose kinds or queues have no end
has metrics without one too.
"""

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from riverrun.client import Client
from riverrun.errors import RiverrunError
from riverrun.events import (
    Event,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobsClaimed,
    JobSnoozed,
)
from riverrun.states import JobState
from riverrun.verbs.status import JobCount, count_jobs

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OUTCOMES: dict[type[Event], str] = {
    JobCompleted: "completed",
    JobFailed: "failed",
    JobCancelled: "cancelled",
    JobSnoozed: "snoozed",
    JobInterrupted: "interrupted",
}


def instrument(
    client: Client, *, registry: CollectorRegistry = REGISTRY, count_interval: float = 15.0
) -> None:
    """Measure `client` from now on.

    - `riverrun_attempts_total` by kind, queue and outcome: completed, failed, discarded, cancelled,
      snoozed or interrupted;
    - `riverrun_attempt_duration_seconds` by kind: what its worker took;
    - `riverrun_queue_wait_seconds` by queue: from when a job was due to its claim;
    - `riverrun_claim_duration_seconds` by queue: the claim's statement and commit;
    - `riverrun_complete_duration_seconds` by queue: from the worker's end to the row's;
    - `riverrun_jobs` and `riverrun_oldest_job_age_seconds` by queue and state, final ones left out:
      of the whole database, counted when asked for, at most every `count_interval`;
    - `riverrun_leader`: 1 in the client that leads, else 0.

    Args:
        client: The client.
        registry: Where the metrics are kept.
        count_interval: Seconds for which a count of the database's jobs serves again.

    Raises:
        ValueError: If the registry has these metrics already, such as those of another client.
    """
    attempts = Counter(
        "riverrun_attempts",
        "Attempts that ended.",
        ["kind", "queue", "outcome"],
        registry=registry,
    )
    duration = _histogram(registry, "attempt_duration", "What a worker took.", "kind")
    waited = _histogram(registry, "queue_wait", "From when a job was due to its claim.", "queue")
    claim = _histogram(registry, "claim_duration", "A claim's statement and commit.", "queue")
    complete = _histogram(
        registry, "complete_duration", "From a worker's end to its row's.", "queue"
    )

    def hear(event: Event) -> None:
        if isinstance(event, JobsClaimed):
            claim.labels(event.queue).observe(event.claim_s)
        elif isinstance(event, JobEvent):
            job = event.job
            outcome = _OUTCOMES.get(type(event), "other")
            if outcome == "failed" and job.state is JobState.discarded:
                outcome = "discarded"
            attempts.labels(job.kind, job.queue, outcome).inc()
            duration.labels(job.kind).observe(event.run_s)
            waited.labels(job.queue).observe(max(0.0, event.queue_wait_s))
            complete.labels(job.queue).observe(event.complete_s)

    registry.register(_Database(client, count_interval))
    client.listen(hear)


class _Database(Collector):
    """Counts the database's jobs when it is asked to."""

    def __init__(self, client: Client, interval_s: float) -> None:
        self._client = client
        self._interval_s = interval_s
        self._counted_at = float("-inf")
        self._counts: list[JobCount] = []

    def describe(self) -> Iterator[Any]:
        """Say nothing: to be asked at registration would ask the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        leader = GaugeMetricFamily("riverrun_leader", "Whether this client leads.")
        leader.add_metric([], float(self._client.leads))
        yield leader
        labels = ["queue", "state"]
        jobs = GaugeMetricFamily("riverrun_jobs", "Jobs that are not final.", labels=labels)
        age = GaugeMetricFamily(
            "riverrun_oldest_job_age_seconds", "How long the oldest is due.", labels=labels
        )
        for each in self._count():
            jobs.add_metric([each.queue, each.state.value], each.count)
            age.add_metric([each.queue, each.state.value], max(0.0, each.age_s))
        yield jobs
        yield age

    def _count(self) -> list[JobCount]:
        now = time.monotonic()
        if now - self._counted_at >= self._interval_s:
            self._counted_at = now
            try:
                self._counts = count_jobs(self._client.engine, schema=self._client.schema)
            except (SQLAlchemyError, RiverrunError):
                # No figure rather than an old one: what watches it sees the gap.
                self._counts = []
        return self._counts


def _histogram(registry: CollectorRegistry, name: str, about: str, label: str) -> Histogram:
    return Histogram(
        f"riverrun_{name}_seconds", about, [label], buckets=_SECONDS, registry=registry
    )
