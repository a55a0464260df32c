"""A producer that works nothing claims, whatever it has learned and however many threads it has."""

import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest
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


def test_a_job_that_came_due_without_room_is_claimed_once_there_is_room() -> None:
    """The time at which a job came due may find no room; the next free slot looks for it."""
    producer = producer_of(4, threads=4, ahead=0, soon=0)
    producer._may_have_more = False  # the last claim got less than it asked for
    producer._stalled_until = math.inf
    producer.expect(0.0)
    producer._rest(0.0)
    producer._stalled_until = -math.inf
    producer.freed()
    assert producer._woken.is_set()


def test_a_producer_without_room_lets_other_greenlets_have_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under gevent, it waits while an attempt is between the line and its slot."""
    monkeypatch.setattr("riverrun.runtime.producer.patched_by", lambda: "gevent")
    producer = producer_of(4, threads=4, ahead=0, soon=0)
    producer._completer = SimpleNamespace(wait_for_room=lambda timeout: True)
    producer.executor._threads._handed_over = 4  # and none of them in the line or in a slot
    waits: list[float | None] = []

    class Woken(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            if len(waits) == 3:
                producer.stopping.set()
            return True

    producer._woken = Woken()
    producer._processes = SimpleNamespace(waiting=0)
    producer.wake()
    producer.run()
    assert len(waits) == 3


@pytest.mark.parametrize("first", ["done", "replace"])
def test_slots_are_counted_right_if_a_stuck_attempt_ends(first: str) -> None:
    """An attempt may end at the very moment at which a slot is opened in its place."""
    producer = producer_of(4, threads=4, ahead=0, soon=0)
    producer._completer = SimpleNamespace(put=lambda _: None)
    result: Any = SimpleNamespace(run_s=0.0)
    others: list[threading.Thread] = []

    class Stuck(SimpleNamespace):
        """An attempt that another thread ends, or replaces, between two steps of the first."""

        @property
        def over(self) -> bool:
            was = self.ended
            if first == "replace" and not others:
                others.append(threading.Thread(target=producer.done, args=(self, result)))
                others[0].start()
                others[0].join(0.2)
            return was

        @over.setter
        def over(self, ended: bool) -> None:
            self.ended = ended
            if first == "done" and not others:
                others.append(threading.Thread(target=producer.replace, args=(self,)))
                others[0].start()
                others[0].join(0.2)

    claimed = SimpleNamespace(id=1)
    attempt: Any = Stuck(
        ended=False, replaced=False, superseded=False, claimed=claimed, is_async=False
    )
    producer.replace(attempt) if first == "replace" else producer.done(attempt, result)
    others[0].join()
    assert producer._replaced == 0
