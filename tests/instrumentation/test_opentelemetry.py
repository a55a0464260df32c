"""Traces: a span for each insert and each attempt, in one trace."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from riverrun import Client, InsertOpts, JobArgs, JobSnooze, Workers
from riverrun.instrumentation.opentelemetry import Tracing
from riverrun.testing import drain, rolled_back

workers = Workers()


@attrs.frozen
class Task(JobArgs, kind="task"):
    how: str = "return"


@attrs.frozen
class Later(JobArgs, kind="later"):
    pass


@workers.register
def work(args: Task) -> None:
    """End in the way that the args name."""
    if args.how == "raise":
        raise OSError("no paper")
    if args.how == "snooze":
        raise JobSnooze(60)


@workers.register
async def work_later(args: Later) -> None:
    """Await once."""
    await asyncio.sleep(0)


class Traced:
    """A client whose spans are kept."""

    def __init__(self, engine: Engine, schema: str, **options: Any) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        plugins = [Tracing(self.provider)]
        self.client = Client(engine, workers=workers, schema=schema, plugins=plugins)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The finished spans, by name."""
        return {span.name: span for span in self._kept.get_finished_spans()}


@pytest.fixture
def traced(engine: Engine, schema: str) -> Traced:
    """A client whose spans are kept."""
    return Traced(engine, schema)


@pytest.fixture
def session(engine: Engine, schema: str) -> Iterator[Session]:
    """A session that is rolled back."""
    with rolled_back(engine) as session:
        yield session


def test_one_trace_from_request_to_work(traced: Traced, session: Session) -> None:
    """The span of the request is the parent of the insert's, and that of the attempt's."""
    with traced.provider.get_tracer("web").start_as_current_span("request") as request:
        job = traced.client.insert(session, Task()).job
    drain(session, traced.client)
    inserted, worked = traced.spans["insert task"], traced.spans["work task"]
    assert inserted.parent.span_id == request.context.span_id
    assert worked.parent.span_id == inserted.context.span_id
    assert worked.context.trace_id == request.context.trace_id
    assert (inserted.kind, worked.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert dict(worked.attributes) == {
        "messaging.system": "river",
        "messaging.operation.name": "work",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": str(job.id),
        "riverrun.job.kind": "task",
        "riverrun.job.attempt": 1,
        "riverrun.job.max_attempts": 25,
    }


def test_begins_a_trace_where_there_is_none(traced: Traced, session: Session) -> None:
    """Without a request, the job's trace begins with its insert; async workers have spans too."""
    traced.client.insert_many(session, [Later(), Task()])
    drain(session, traced.client)
    inserted = traced.spans["insert later,task"]
    assert inserted.attributes["messaging.batch.message_count"] == 2
    assert inserted.parent is None
    for kind in ("later", "task"):
        assert traced.spans[f"work {kind}"].parent.span_id == inserted.context.span_id


def test_a_failure_is_an_error_and_a_wish_is_none(traced: Traced, session: Session) -> None:
    """A worker's exception is recorded; a snooze is an outcome and not an error."""
    traced.client.insert(session, Task("raise"))
    drain(session, traced.client, reraise=False)
    failed = traced.spans["work task"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.events[0].attributes["exception.message"] == "no paper"
    traced.client.insert(session, Task("snooze"))
    drain(session, traced.client)
    snoozed = traced.spans["work task"]
    assert snoozed.status.status_code is StatusCode.UNSET
    assert snoozed.attributes["riverrun.job.outcome"] == "JobSnooze"


def test_what_is_not_sampled_stays_so(engine: Engine, schema: str, session: Session) -> None:
    """A trace that is not sampled stays so, and its attempt records no span."""
    traced = Traced(engine, schema, sampler=ParentBased(ALWAYS_OFF))
    job = traced.client.insert(session, Task()).job
    flags = int(job.metadata["traceparent"].rpartition("-")[2], 16)
    assert flags & 1 == 0
    assert [each.state for each in drain(session, traced.client)] == ["completed"]
    assert traced.spans == {}


def test_does_nothing_without_a_provider(engine: Engine, schema: str, session: Session) -> None:
    """Without the SDK, as in a program that does not trace, the plugin does not change jobs."""
    client = Client(engine, workers=workers, schema=schema, plugins=[Tracing()])
    job = client.insert_many(session, [Task(), Later()])[0].job
    assert job.metadata == {}
    assert [each.state for each in drain(session, client)] == ["completed"] * 2


def test_bad_context_is_no_failure(traced: Traced, session: Session) -> None:
    """Metadata without a valid trace context begins a new trace."""
    metadata = {"traceparent": "nonsense", "tracestate": "=,="}
    traced.client.insert(session, Task(), InsertOpts(metadata=metadata))
    with session.begin_nested():
        session.execute(
            text(f"UPDATE {traced.client.schema}.river_job SET metadata = :metadata"),
            {"metadata": json.dumps(metadata)},
        )
    (worked,) = drain(session, traced.client)
    assert worked.state == "completed"
    assert traced.spans["work task"].parent is None
