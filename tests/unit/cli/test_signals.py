"""Signals that were read once stay counted."""

import os
import signal
from collections.abc import Iterator

import pytest

from riverrun.cli.signals import STOPS, Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Signals of this process; its own handlers are restored afterwards."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield Signals()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(10)
def test_a_stop_that_was_read_ends_every_later_wait(signals: Signals) -> None:
    """After a stop signal while a client starts, `wait` does not wait for another."""
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait(0)
    assert signals.wait()
