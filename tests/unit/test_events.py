"""Events: which subscriber gets which, and what a slow subscriber costs."""

import logging

import pytest

from factories import job_row
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
