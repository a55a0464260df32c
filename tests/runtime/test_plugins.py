"""Plugins, error handlers, steps and job logs in a running client."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import attrs
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from riverrun import (
    Constant,
    ErrorHandlerResult,
    InsertOpts,
    JobArgs,
    JobCancel,
    JobContext,
    JobLog,
    JobRow,
    JobSnooze,
    Plugin,
    QueueConfig,
    Workers,
)
from riverrun.errors import InvalidOption
from riverrun.events import JobEvent
from riverrun.verbs.draft import JobDraft
from runtime.conftest import Task
from waiting import DEADLINE_S

R = TypeVar("R")


class Noting(Plugin):
    """Records the order of its calls."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def insert_many(self, drafts: Sequence[JobDraft], call_next: Callable[[], R]) -> R:
        self.notes.append(f"{self.name} insert of {len(drafts)}")
        return call_next()

    def insert_begin(self, draft: JobDraft) -> JobDraft:
        self.notes.append(f"{self.name} insert_begin")
        return draft.with_metadata({self.name: True})

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        self.notes.append(f"{self.name} work")
        call_next()
        self.notes.append(f"{self.name} worked")

    def work_begin(self, ctx: JobContext) -> None:
        self.notes.append(f"{self.name} begin")

    def work_end(self, ctx: JobContext, error: BaseException | None) -> BaseException | None:
        self.notes.append(f"{self.name} end")
        return error


def test_plugins_are_called_in_rivers_order(app: Any) -> None:
    """The client's plugins wrap the kind's, which wrap the worker's; hooks run inside the wraps."""
    notes: list[str] = []

    @attrs.frozen
    class Noted(JobArgs, kind="noted"):
        job_plugins: ClassVar = (Noting("kind", notes),)

    workers = Workers()

    @workers.register(plugins=[Noting("worker", notes)])
    def work(args: Noted, ctx: JobContext) -> None:
        notes.append("works")

    client = app.client(workers=workers, plugins=[Noting("client", notes)])
    events = client.subscribe(JobEvent)
    job = client.insert(app.engine, Noted()).job
    assert job.metadata == {"client": True, "kind": True}
    assert notes == ["client insert of 1", "client insert_begin", "kind insert_begin"]
    notes.clear()
    client.start()
    events.get(DEADLINE_S)
    assert notes == [
        *("client work", "kind work", "worker work"),
        *("client begin", "kind begin", "worker begin"),
        "works",
        *("client end", "kind end", "worker end"),
        *("worker worked", "kind worked", "client worked"),
    ]


def test_a_plugin_may_replace_how_an_attempt_ended(app: Any) -> None:
    """work_end can replace an error with success, and success with an error."""

    class Turning(Plugin):
        def work_end(self, ctx: JobContext, error: BaseException | None) -> BaseException | None:
            return None if error else ValueError("no success")

    def body(args: Task, ctx: JobContext) -> None:
        if args.number:
            raise RuntimeError

    client, events = app.run(body, plugins=[Turning()], max_attempts=1)
    client.insert(app.engine, Task(number=1))
    assert events.get(DEADLINE_S).job.state == "completed"
    client.insert(app.engine, Task(number=0))
    ended = events.get(DEADLINE_S)
    assert ended.job.state == "discarded"
    assert client.get(app.engine, ended.job.id).errors[0]["error"] == "ValueError: no success"


def test_what_a_plugin_raises_fails_only_what_it_takes_part_in(app: Any) -> None:
    """If a plugin raises, an insert is refused as a whole, and an attempt fails and is recorded."""

    class Refusing(Plugin):
        def __init__(self) -> None:
            self.at = "insert_begin"

        def insert_begin(self, draft: JobDraft) -> JobDraft:
            if self.at == "insert_begin" and draft.encoded["number"] == 2:
                raise LookupError("insert_begin")
            return draft

        def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
            if self.at == "work":
                raise LookupError("work")
            call_next()

        def work_begin(self, ctx: JobContext) -> None:
            if self.at == "work_begin":
                raise LookupError("work_begin")

        def work_end(self, ctx: JobContext, error: BaseException | None) -> BaseException | None:
            if self.at == "work_end":
                raise LookupError("work_end")
            return error

    refusing = Refusing()
    client, events = app.run(plugins=[refusing], max_attempts=1)
    with pytest.raises(LookupError):
        client.insert_many(app.engine, [Task(number=1), Task(number=2)])
    for at in ("work", "work_begin", "work_end"):
        refusing.at = at
        client.insert(app.engine, Task())
        ended = events.get(DEADLINE_S)
        assert (ended.job.state, str(ended.error)) == ("discarded", at)


def test_refuses_what_is_no_plugin(app: Any) -> None:
    """A plugin's class, or anything else that is no plugin object, is refused at once."""
    for bad in ([Noting], [print], "x", Noting("x", [])):
        with pytest.raises(InvalidOption, match="plugins"):
            app.client(plugins=bad)
        with pytest.raises(InvalidOption, match="plugins"):
            Workers().register(plugins=bad)


def test_an_error_handler_may_cancel(app: Any) -> None:
    """An error handler is called for failures only, and its own errors change nothing."""
    asked: list[tuple[int, str]] = []

    def handler(job: JobRow, error: BaseException) -> ErrorHandlerResult | None:
        asked.append((job.args["number"], type(error).__name__))
        if job.args["number"] == 1:
            return ErrorHandlerResult(set_cancelled=True)
        raise RuntimeError("a handler that fails")

    raised = [JobSnooze(600), KeyError("x"), ValueError("y"), JobCancel("no")]

    def body(args: Task, ctx: JobContext) -> None:
        raise raised[args.number]

    client, events = app.run(body, error_handler=handler, backoff=Constant(delay=600))
    client.insert_many(app.engine, [Task(number=n) for n in range(4)])
    states = {}
    for _ in range(4):
        job = events.get(DEADLINE_S).job
        states[job.args["number"]] = job.state
    assert states == {0: "scheduled", 1: "cancelled", 2: "retryable", 3: "cancelled"}
    assert sorted(asked) == [(1, "KeyError"), (2, "ValueError")]


def test_steps_are_not_run_twice_over_a_failure(app: Any) -> None:
    """A failed job resumes after its last completed step, even one kept in its own transaction."""
    ran: list[str] = []

    def body(args: Task, ctx: JobContext) -> None:
        ctx.step("a", lambda: ran.append("a"))

        def write() -> None:
            ran.append("b")
            with Session(app.engine) as session:
                session.execute(text("SELECT 1"))
                ctx.checkpoint(session)
                session.commit()
            if ctx.job.attempt == 1:
                raise RuntimeError

        ctx.step("b", write)

        def rows(cursor: Any) -> None:
            ran.append(f"c from {cursor}")
            ctx.set_cursor(ctx.job.attempt)
            if ctx.job.attempt == 2:
                raise RuntimeError

        ctx.cursor_step("c", rows)

    client, events = app.run(body, backoff=Constant(delay=0.001), poll_interval=0.05)
    job = client.insert(app.engine, Task()).job
    for _ in range(3):
        ended = events.get(DEADLINE_S)
    assert ended.job.state == "completed"
    assert ran == ["a", "b", "c from None", "c from 2"]
    kept = client.get(app.engine, job.id).metadata
    assert kept["river:resumable_step"] == "b"


def test_what_a_worker_logs_is_kept_with_its_job(app: Any) -> None:
    """Each attempt keeps its own log lines and no other job's; the oldest are dropped."""
    logger = logging.getLogger("host.mailer")

    def body(args: Task, ctx: JobContext) -> None:
        logger.warning("job %s, attempt %s \x00\ud800", ctx.job.id, ctx.job.attempt)
        if ctx.job.attempt < 3:
            raise RuntimeError

    log = JobLog(level=logging.WARNING, max_total_bytes=250)
    options = {"plugins": [log], "backoff": Constant(delay=0.001), "poll_interval": 0.05}
    client, events = app.run(body, **options)
    ids = [result.job.id for result in client.insert_many(app.engine, [Task(), Task()])]
    for _ in range(6):
        events.get(DEADLINE_S)
    for job_id in ids:
        entries = client.get(app.engine, job_id).metadata["river:log"]
        assert [entry["attempt"] for entry in entries] == [2, 3]
        assert all(f"job {job_id}, attempt" in entry["log"] for entry in entries)
    quiet = client.insert(app.engine, Task(), InsertOpts(scheduled_at=None)).job
    assert "river:log" not in quiet.metadata


def test_a_line_is_kept_once_however_many_clients_keep_logs(app: Any) -> None:
    """Each JobLog of a process keeps the lines of its own client's jobs, each line once."""
    logger = logging.getLogger("host.mailer")
    for queue in ("mail", "print"):
        client, events = app.run(
            lambda args, ctx: logger.warning("working"),
            plugins=[JobLog()],
            queues={queue: QueueConfig(max_workers=1)},
        )
        job = client.insert(app.engine, Task(), InsertOpts(queue=queue)).job
        events.get(DEADLINE_S)
        (entry,) = client.get(app.engine, job.id).metadata["river:log"]
        assert entry["log"].count("working") == 1


def test_output_beyond_its_limit_fails_the_attempt(app: Any, monkeypatch: Any) -> None:
    """An output that is too large fails the attempt with an error, and is not truncated."""
    monkeypatch.setattr("riverrun.outcome.MAX_OUTPUT_BYTES", 100)
    client, events = app.run(lambda args, ctx: ctx.record_output("x" * 101), max_attempts=1)
    client.insert(app.engine, Task())
    ended = events.get(DEADLINE_S)
    assert ended.job.state == "discarded"
    assert "103 bytes" in str(ended.error)
