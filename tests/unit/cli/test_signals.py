"""Signals: what was read is not forgotten."""

import os
import signal
from collections.abc import Iterator

import pytest

from riverrun.cli.signals import STOPS, Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Signals of this process, its own handlers put back afterwards."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield Signals()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(10)
def test_a_stop_that_was_read_ends_every_later_wait(signals: Signals) -> None:
    """A stop that comes while a client starts is not waited for a second time."""
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait(0)
    assert signals.wait()
