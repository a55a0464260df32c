"""A producer that works nothing claims, whatever it has learned and however many threads it has."""

from types import SimpleNamespace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from riverrun import Client, QueueConfig
from riverrun.events import Hub
from riverrun.execution.threads import NEW
from riverrun.runtime.producer import Producer

CONFIG = Client(create_engine("postgresql+psycopg://nowhere")).config


def producer_of(slots: int, *, threads: int, ahead: int, soon: int) -> Producer:
    """Return a producer, not started, whose slots have `threads` threads and work nothing."""
    parts: dict[str, Any] = {
        "engine": None,
        "attempts": SimpleNamespace(workers=[]),
        "processes": None,
        "completer": None,
        "loop": SimpleNamespace(call=None),
    }
    producer = Producer(
        "default",
        QueueConfig(max_workers=slots),
        client_id="me",
        config=CONFIG,
        on_failed=lambda: None,
        hub=Hub(),
        **parts,
    )
    producer._ahead.jobs, producer._ahead.soon = ahead, soon
    made: list[Any] = [None] * min(threads, slots)
    producer.executor._threads._threads = made
    return producer


@given(
    slots=st.integers(1, 2_000),
    threads=st.integers(0, 2_000),
    ahead=st.integers(0, 10_000),
    soon=st.integers(0, 5_000),
)
@example(slots=100, threads=8, ahead=200, soon=15)
def test_an_idle_producer_claims(slots: int, threads: int, ahead: int, soon: int) -> None:
    """With no job to work, there is room, and reason enough to claim."""
    producer = producer_of(slots, threads=threads, ahead=ahead, soon=soon)
    producer.wake()
    assert producer._wants_more()
    assert producer._room(0) >= min(slots, NEW // 2)
