"""OpenTelemetry spans of inserts and attempts; a job continues the trace that inserted it.

    client = Client(engine, plugins=[Tracing()])

The trace context is stored in the job's metadata, under the keys of the configured propagator;
`traceparent` and `tracestate` by default. Attributes follow the semantic conventions for messaging,
which are still in development (semconv 1.45).
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from riverrun.errors import JobCancel, JobSnooze
from riverrun.execution.context import JobContext
from riverrun.execution.plugins import Plugin
from riverrun.jobs.row import JobRow
from riverrun.verbs.draft import JobDraft

R = TypeVar("R")

SYSTEM = "river"


class Tracing(Plugin):
    """A plugin that records a span for every insert and every attempt.

    Args:
        tracer_provider: The provider of the spans' tracer. Default: the global one.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("riverrun", tracer_provider=tracer_provider)

    def insert_begin(self, draft: JobDraft) -> JobDraft:
        """Store the current trace context in the job's metadata; begin a trace if there is none."""
        carrier: dict[str, str] = {}
        if trace.get_current_span().get_span_context().is_valid:
            propagate.inject(carrier)
        else:
            with self._tracer.start_as_current_span(f"create {draft.kind}", kind=SpanKind.PRODUCER):
                propagate.inject(carrier)
        return draft.with_metadata(carrier) if carrier else draft

    def insert_from(self, draft: JobDraft) -> JobDraft:
        """Store the current trace context in the metadata of all jobs of a select."""
        return self.insert_begin(draft)

    def insert_many(self, drafts: Sequence[JobDraft], call_next: Callable[[], R]) -> R:
        """Record a span for the insert."""
        queues = sorted({draft.queue for draft in drafts})
        kinds = sorted({draft.kind for draft in drafts})
        attributes: dict[str, str | int] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "insert",
            "messaging.operation.type": "send",
            "messaging.destination.name": ",".join(queues),
            "messaging.batch.message_count": len(drafts),
            "riverrun.job.kind": ",".join(kinds),
        }
        with self._tracer.start_as_current_span(
            f"insert {','.join(kinds)}", kind=SpanKind.PRODUCER, attributes=attributes
        ):
            return call_next()

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        """Make a span of the attempt."""
        with self._span(ctx.job) as span:
            try:
                call_next()
            except BaseException as error:
                _record(span, error)
                raise

    async def work_async(self, ctx: JobContext, call_next: Callable[[], Awaitable[object]]) -> None:
        """Make a span of the attempt."""
        with self._span(ctx.job) as span:
            try:
                await call_next()
            except BaseException as error:
                _record(span, error)
                raise

    def _span(self, job: JobRow) -> AbstractContextManager[trace.Span]:
        carrier = {key: value for key, value in job.metadata.items() if isinstance(value, str)}
        attributes: dict[str, str | int] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "work",
            "messaging.operation.type": "process",
            "messaging.destination.name": job.queue,
            "messaging.message.id": str(job.id),
            "riverrun.job.kind": job.kind,
            "riverrun.job.attempt": job.attempt,
            "riverrun.job.max_attempts": job.max_attempts,
        }
        return self._tracer.start_as_current_span(
            f"work {job.kind}",
            context=propagate.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )


def _record(span: trace.Span, error: BaseException) -> None:
    if isinstance(error, JobSnooze | JobCancel):
        # The worker asked for this outcome, so it is not an error.
        span.set_attribute("riverrun.job.outcome", type(error).__name__)
        return
    span.record_exception(error)
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
