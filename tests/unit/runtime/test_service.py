"""What a service says of its thread."""

import threading

import pytest

from riverrun.runtime.service import Service
from waiting import DEADLINE_S


class _Waits(Service):
    """A service that waits until it is stopped."""

    def run(self) -> None:
        self.stopping.wait()


def test_a_thread_that_begins_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service is sound while its thread is being started, and not only from then on."""
    service = _Waits("waits")
    seen: list[float] = []
    start = threading.Thread.start

    def looked(thread: threading.Thread) -> None:
        seen.append(service.failing_s)
        start(thread)
        seen.append(service.failing_s)

    monkeypatch.setattr(threading.Thread, "start", looked)
    service.start()
    assert service.stop(DEADLINE_S)
    assert seen == [0.0, 0.0]
