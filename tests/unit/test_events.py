"""Events: which subscriber gets which, and what a slow subscriber costs."""

import logging
import sys
from typing import Any

import pytest

from factories import job_row
from riverrun.errors import InvalidOption
from riverrun.events import BUFFER, Hub, JobCompleted, JobEvent, JobFailed


def event(kind: type[JobEvent] = JobCompleted, number: int = 1) -> JobEvent:
    """Return an event of `kind` about the job with the id `number`."""
    return kind(job=job_row(id=number), queue_wait_s=0.0, run_s=0.0, complete_s=0.0)


def test_each_subscriber_gets_what_it_asked_for() -> None:
    """A subscriber gets the kinds it named, in order; one that named none gets all."""
    hub = Hub()
    with hub.subscribe(JobFailed) as failed, hub.subscribe() as every:
        hub.publish(event(JobCompleted))
        hub.publish(event(JobFailed))
        assert isinstance(failed.get(0), JobFailed)
        assert [type(every.get(0)) for _ in range(2)] == [JobCompleted, JobFailed]
        with pytest.raises(TimeoutError, match="JobFailed"):
            failed.get(0)
    assert not hub.has_subscribers


def test_drops_what_a_slow_subscriber_cannot_take(caplog: pytest.LogCaptureFixture) -> None:
    """One that is too far behind loses events, with one warning; the others lose none."""
    hub = Hub()
    with hub.subscribe() as slow, hub.subscribe() as quick:
        with caplog.at_level(logging.WARNING):
            for number in range(BUFFER + 10):
                hub.publish(event(number=number))
                assert quick.get(0).job.id == number  # type: ignore[attr-defined]
        assert len(caplog.records) == 1
        kept = [slow.get(0).job.id for _ in range(BUFFER)]  # type: ignore[attr-defined]
        assert kept == list(range(BUFFER))


@pytest.mark.parametrize("kind", [[JobCompleted], "JobCompleted", int, None])
def test_refuses_what_is_no_kind_of_event(kind: Any) -> None:
    """A list of kinds, or a name, is refused: each event would fail where it is published."""
    hub = Hub()
    with pytest.raises(InvalidOption, match=r"kinds is .*; expected classes of events"):
        hub.subscribe(kind)
    with pytest.raises(InvalidOption, match=r"kinds is .*; expected classes of events"):
        hub.listen(print, kind)
    with pytest.raises(InvalidOption, match="call is 5; expected a function that takes an event"):
        hub.listen(5)  # type: ignore[arg-type]
    assert not hub.has_subscribers


def test_a_listener_that_exits_harms_nobody_else() -> None:
    """What a listener raises, even SystemExit, stays with it."""
    hub = Hub()
    hub.listen(lambda _: sys.exit(1))
    with hub.subscribe() as other:
        hub.publish(event())
        assert isinstance(other.get(0), JobCompleted)


def test_ctrl_c_passes_through_a_listener() -> None:
    """A KeyboardInterrupt that comes while the main thread calls a listener is not swallowed."""
    hub = Hub()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    hub.listen(interrupted)
    with pytest.raises(KeyboardInterrupt):
        hub.publish(event())
