"""Results that requests share: for how long, and what happens when one cannot be had."""

import threading

import pytest

from riverrun.clock import Clock
from riverrun.web.cache import ENTRIES_MAX, Cache


class Stopped(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.time_s


def test_shares_a_result_for_a_while() -> None:
    """A result is read once while it is new, and read again when it is old or was cleared."""
    clock = Stopped()
    cache = Cache(clock)
    read = iter(range(9))
    assert [cache.get("a", lambda: next(read)) for _ in range(3)] == [0, 0, 0]
    assert cache.get("b", lambda: next(read)) == 1
    clock.time_s = 1.9
    assert cache.get("a", lambda: next(read)) == 0
    clock.time_s = 2.1
    assert cache.get("a", lambda: next(read)) == 2
    cache.clear()
    assert cache.get("a", lambda: next(read)) == 3
    assert cache.get("c", lambda: next(read), ttl_s=10.0) == 4
    clock.time_s = 12.0
    assert cache.get("c", lambda: next(read), ttl_s=10.0) == 4


def test_an_error_is_not_kept() -> None:
    """What fails is tried again by the next request."""
    cache = Cache(Stopped())
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 7) == 7


def test_many_at_once_read_once() -> None:
    """Requests that come while another one reads wait for its result."""
    cache = Cache()
    begun, go = threading.Event(), threading.Event()
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        begun.set()
        assert go.wait(30)
        return 7

    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.get("a", read, ttl_s=600.0)))
        for _ in range(4)
    ]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert found == [7, 7, 7, 7]


def test_keeps_a_bounded_number() -> None:
    """However many different results are asked for, only the last ones are kept."""
    clock = Stopped()
    cache = Cache(clock)
    for number in range(3 * ENTRIES_MAX):
        assert cache.get(number, lambda number=number: number) == number
        assert len(cache._entries) <= ENTRIES_MAX
