"""Metrics of a working client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from factories import insert_job
from riverrun import (
    Client,
    InsertOpts,
    JobCancel,
    JobContext,
    JobSnooze,
    QueueConfig,
    RawArgs,
    Workers,
)
from riverrun.instrumentation.prometheus import _OUTCOMES, instrument
from riverrun.migrations import migrate
from waiting import until

workers = Workers()


@workers.register(kind="task")
def work(args: RawArgs, ctx: JobContext) -> None:
    """End in the way that the args name."""
    match args.encoded.get("how"):
        case "raise":
            raise OSError
        case "cancel":
            raise JobCancel
        case "snooze":
            raise JobSnooze(3600)


@pytest.fixture
def client(engine: Engine, schema: str) -> Iterator[Client]:
    """A client, stopped at the end."""
    client = Client(engine, workers=workers, queues={"default": QueueConfig()}, schema=schema)
    yield client
    client.stop(cancel=True)


def test_counts_what_attempts_come_to(client: Client, engine: Engine, schema: str) -> None:
    """Each outcome is counted by kind and queue; each duration is observed once per attempt."""
    registry = CollectorRegistry()
    instrument(client, registry=registry)
    for how in ("return", "raise", "cancel", "snooze", "return"):
        insert_job(engine, schema, kind="task", args={"how": how})
    insert_job(engine, schema, kind="task", args={"how": "raise"}, max_attempts=1)
    client.start()

    def counted(outcome: str) -> float:
        labels = {"kind": "task", "queue": "default", "outcome": outcome}
        return registry.get_sample_value("riverrun_attempts_total", labels) or 0

    expected = {"completed": 2, "failed": 1, "cancelled": 1, "snoozed": 1, "discarded": 1}
    until(lambda: {each: counted(each) for each in expected} == expected, "six attempts counted")
    for name, label in (
        ("attempt_duration", {"kind": "task"}),
        ("queue_wait", {"queue": "default"}),
        ("complete_duration", {"queue": "default"}),
    ):
        assert registry.get_sample_value(f"riverrun_{name}_seconds_count", label) == 6
    claims = "riverrun_claim_duration_seconds_count"
    assert registry.get_sample_value(claims, {"queue": "default"}) >= 1
    until(lambda: registry.get_sample_value("riverrun_leader") == 1, "the leader known")


def test_counts_the_databases_jobs(client: Client, engine: Engine, schema: str) -> None:
    """Gauges show jobs and ages by queue and state, except final ones, and are queried rarely."""
    registry = CollectorRegistry()
    instrument(client, registry=registry, count_interval=60)
    for state in ("available", "available", "retryable", "completed"):
        insert_job(engine, schema, queue="mail", state=state)

    def depth(state: str) -> float | None:
        return registry.get_sample_value("riverrun_jobs", {"queue": "mail", "state": state})

    assert [depth(state) for state in ("available", "retryable", "completed")] == [2, 1, None]
    age = {"queue": "mail", "state": "available"}
    assert registry.get_sample_value("riverrun_oldest_job_age_seconds", age) >= 0
    assert registry.get_sample_value("riverrun_leader") == 0
    insert_job(engine, schema, queue="mail")
    assert depth("available") == 2


def test_shows_no_figure_where_it_has_none(
    engine: Engine,
) -> None:
    """If the database cannot be queried, only its gauges are missing."""
    registry = CollectorRegistry()
    instrument(Client(engine, schema="not_there"), registry=registry)
    assert registry.get_sample_value("riverrun_leader") == 0
    assert not [m for m in registry.collect() if m.name == "riverrun_jobs" and m.samples]


def test_several_clients_are_added_up(
    client: Client, engine: Engine, schema: str, empty_database: Engine
) -> None:
    """One registry may have several clients, each once; a shared database is counted once."""
    migrate(empty_database)
    registry = CollectorRegistry()
    queues = {"other": QueueConfig()}
    same = Client(engine, workers=workers, queues=queues, schema=schema)
    another = Client(empty_database, workers=workers, queues=queues)
    for each in (client, same, another, client):
        instrument(each, registry=registry)
    insert_job(engine, schema, kind="task")
    insert_job(engine, schema, kind="task", queue="other")
    another.insert(empty_database, RawArgs(kind="task", encoded={}), InsertOpts(queue="other"))

    def depth(queue: str) -> float | None:
        return registry.get_sample_value("riverrun_jobs", {"queue": queue, "state": "available"})

    assert (depth("default"), depth("other")) == (1, 2)
    client.start()
    labels = {"kind": "task", "queue": "default", "outcome": "completed"}
    attempts = lambda: registry.get_sample_value("riverrun_attempts_total", labels)  # noqa: E731
    until(lambda: attempts() is not None, "an attempt counted")
    assert attempts() == 1
    until(lambda: registry.get_sample_value("riverrun_leader") == 1, "the leader known")


def test_a_queue_that_is_drained_is_nought(client: Client) -> None:
    """A queue that the client works is 0 without jobs, so that graphs and alarms see it."""
    registry = CollectorRegistry()
    instrument(client, registry=registry)
    for name in ("riverrun_jobs", "riverrun_oldest_job_age_seconds"):
        for state in ("available", "running", "retryable", "scheduled", "pending"):
            assert registry.get_sample_value(name, {"queue": "default", "state": state}) == 0


def test_the_guide_lists_every_metric(client: Client) -> None:
    """docs/operating.md names each metric of a working client, and each outcome of attempts."""
    registry = CollectorRegistry()
    instrument(client, registry=registry)
    client.start()
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    names = {metric.name for metric in registry.collect()}
    assert {"riverrun_attempts", "riverrun_healthy", "riverrun_jobs"} <= names
    listed = [*names, *(f"`{outcome}`" for outcome in (*_OUTCOMES.values(), "discarded"))]
    assert [name for name in listed if name not in page] == []
