"""What happens to a job whose object was deleted."""

import logging

import attrs
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from orm.tables import Order
from riverrun import (
    Client,
    ErrorHandlerResult,
    IfGone,
    JobArgs,
    JobCancelled,
    JobContext,
    JobRow,
    JobState,
    ObjectGone,
    Ref,
    Workers,
)
from riverrun.errors import InvalidOption, InvalidWorker
from riverrun.testing import work_one
from waiting import DEADLINE_S


@attrs.frozen
class Send(JobArgs, kind="send_to_order"):
    order: Ref[Order]


def _workers(host: Engine, **options: str) -> Workers:
    workers = Workers()

    @workers.register(**options)  # type: ignore[arg-type]
    def send(args: Send) -> None:
        with Session(host) as session:
            args.order.get_one(session)

    return workers


@pytest.mark.parametrize(
    ("if_gone", "state", "errors"),
    [
        ("cancel", JobState.cancelled, 1),
        (IfGone.fail, JobState.available, 1),
        ("discard", JobState.discarded, 1),
    ],
)
def test_what_becomes_of_the_job(if_gone: str, state: JobState, errors: int, host: Engine) -> None:
    """A job whose object is gone is cancelled; its worker's policy may be retry or discard."""
    asked: list[BaseException] = []

    def handler(job: JobRow, error: BaseException) -> ErrorHandlerResult | None:
        asked.append(error)
        return None

    options = {} if if_gone == "cancel" else {"if_gone": if_gone}
    client = Client(host, workers=_workers(host, **options), error_handler=handler)
    worked = work_one(host, client, Send(Ref.by_key(Order, 404)), reraise=False)
    assert worked.state is state
    assert isinstance(worked.error, ObjectGone)
    (error,) = worked.job.errors
    assert error["error"] == "there is no Order with the primary key 404 any more"
    assert error["trace"] == ""
    assert bool(asked) is (if_gone != "cancel"), "a cancel is no failure for the handler"


def test_a_running_client(host: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """A running client logs that it cancelled the job and sends the event."""
    caplog.set_level(logging.INFO, "riverrun")
    client = Client(host, workers=_workers(host), queues=["default"])
    with client.subscribe(JobCancelled) as events, client:
        client.insert(host, Send(Ref.by_key(Order, 404)))
        event = events.get(timeout=DEADLINE_S)
    assert isinstance(event, JobCancelled)
    messages = [record.getMessage() for record in caplog.records]
    assert any("an object of class Order that it refers to is gone" in each for each in messages)


def test_a_completed_job_stays_so(host: Engine) -> None:
    """If ObjectGone is raised after the job was completed, the job stays completed."""
    workers = Workers()

    @workers.register
    def send(args: Send, ctx: JobContext) -> None:
        with ctx.transaction() as session:
            session.connection()
        raise ObjectGone("Order", 404)

    client = Client(host, workers=workers)
    worked = work_one(host, client, Send(Ref.by_key(Order, 404)), reraise=False)
    assert worked.state is JobState.completed


def test_what_is_no_policy() -> None:
    """An unknown policy, and args that are not of an args class, are refused by name."""
    with pytest.raises(InvalidOption, match="if_gone is 'ignore'; expected one of cancel, fail"):
        Workers().register(if_gone="ignore")

    class Bare(JobArgs, kind="bare"):
        order: int

    def work(args: Bare) -> None: ...

    with pytest.raises(InvalidWorker, match="Bare must be made with @attrs"):
        Workers().register(work)
