"""The recipes of docs/operating.md for Sentry and structlog."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import sentry_sdk
import structlog
from sentry_sdk.transport import Transport
from sqlalchemy import Engine

from docs.reader import ROOT, blocks
from riverrun import Client, JobArgs, JobCancel, JobSnooze, Plugin, QueueConfig, Workers, verbs
from riverrun.events import JobEvent
from waiting import DEADLINE_S

SECRET = "4242-4242"


@attrs.frozen
class Pay(JobArgs, kind="pay"):
    card: str
    how: str


def recipe(file: str) -> SimpleNamespace:
    """Return the definitions of the file of that name in the guide."""
    (block,) = (each for each in blocks(ROOT / "docs" / "operating.md") if each.file == file)
    namespace: dict[str, Any] = {"__name__": file}
    exec(compile(block.body, block.at, "exec"), namespace)
    return SimpleNamespace(**namespace)


def act(args: Pay) -> None:
    """End in the way that the args name."""
    if args.how == "fail":
        raise ValueError("the bank said no")
    if args.how == "cancel":
        raise JobCancel("no account")
    if args.how == "snooze":
        raise JobSnooze(3600)


def worked(engine: Engine, schema: str, plugin: Plugin, workers: Workers, *hows: str) -> Client:
    """Work one job per item of `hows`, in one thread, each at its last attempt."""
    client = Client(
        engine,
        workers=workers,
        queues={"default": QueueConfig(max_workers=1)},
        plugins=[plugin],
        schema=schema,
        max_attempts=2,
        backoff=lambda job, now: now,
    )
    client.insert_many(engine, [Pay(SECRET, how) for how in hows])
    ends = len(hows) + hows.count("fail")
    with client.subscribe(JobEvent) as events, client:
        for _ in range(ends):
            events.get(timeout=DEADLINE_S)
    return client


class Sent(Transport):
    """Keeps the events that would be sent."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Any) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(event)


@pytest.fixture
def sent() -> Iterator[Sent]:
    """The events that Sentry's client would send with the recipe."""
    transport = Sent()
    client = sentry_sdk.get_client()
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(client)


@pytest.mark.parametrize("how", ["thread", "coroutine"])
def test_sentry_gets_each_failure_once(engine: Engine, schema: str, sent: Sent, how: str) -> None:
    """A failed attempt is one event, without the job's args; a cancellation or snooze is none."""
    errors = recipe("errors.py")
    # Do not patch the frameworks of other tests.
    options = {"transport": sent, "auto_enabling_integrations": False}
    errors.configure(dsn="https://public@sentry.example/1", **options)
    workers = Workers()

    def pay(args: Pay) -> None:
        if args.how == "mark":
            sentry_sdk.set_tag("leaked", "yes")
            sentry_sdk.add_breadcrumb(message="leaked")
        act(args)

    async def pay_async(args: Pay) -> None:
        await asyncio.sleep(0)
        pay(args)

    pay_async.__annotations__ = pay.__annotations__
    workers.register(pay if how == "thread" else pay_async)
    worked(engine, schema, errors.Sentry(), workers, "mark", "fail", "cancel", "snooze")
    assert len(sent.events) == 2, [event.get("logentry") for event in sent.events]
    job = verbs.list_jobs(engine, schema=schema).jobs[1]
    for attempt, (event, level) in enumerate(
        zip(sent.events, ("warning", "error"), strict=True), 1
    ):
        assert event["level"] == level
        assert event["exception"]["values"][-1]["value"] == "the bank said no"
        assert event["tags"]["job.kind"] == "pay"
        assert event["tags"]["job.queue"] == "default"
        assert event["contexts"]["job"] == {"id": job.id, "attempt": attempt, "of": 2}
        assert SECRET not in json.dumps(event)
        # Do not compare the whole event, as it includes source lines.
        assert "leaked" not in json.dumps([event["tags"], event.get("breadcrumbs")])


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The output of the recipe for structlog; logging is restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", output)
        recipe("logs.py").configure()
    yield output
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("how", ["thread", "coroutine"])
def test_structlog_knows_the_job(engine: Engine, schema: str, lines: io.StringIO, how: str) -> None:
    """Records logged during an attempt have the fields of its job, and never of another job."""
    workers = Workers()
    log = structlog.get_logger()

    def pay(args: Pay) -> None:
        if args.how == "mark":
            structlog.contextvars.bind_contextvars(leaked="yes")
        log.info("paying", thread=threading.current_thread().name)
        logging.getLogger("shop").info("by the standard library")

    async def pay_async(args: Pay) -> None:
        await asyncio.sleep(0)
        pay(args)

    pay_async.__annotations__ = pay.__annotations__
    workers.register(pay if how == "thread" else pay_async)
    client = worked(engine, schema, recipe("logs.py").JobInLogs(), workers, "mark", "plain")
    first, second = verbs.list_jobs(engine, schema=schema).jobs
    records = [json.loads(line) for line in lines.getvalue().splitlines()]
    mine = [each for each in records if each["event"] in {"paying", "by the standard library"}]
    assert [each["job_id"] for each in mine] == [first.id, first.id, second.id, second.id]
    assert len({each["thread"] for each in mine if "thread" in each}) == 1
    for each in mine:
        facts = {key: each[key] for key in ("kind", "queue", "attempt", "level")}
        assert facts == {"kind": "pay", "queue": "default", "attempt": 1, "level": "info"}
        assert ("leaked" in each) == (each["job_id"] == first.id)
    (stopped,) = (each for each in records if each["event"].startswith("stopped client"))
    assert stopped["client_id"] == client.id
    assert "job_id" not in stopped
