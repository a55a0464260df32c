"""A running job that its living client does not execute is found, however it came about."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from riverrun import JobCompleted, JobContext
from riverrun.events import JobsClaimed
from riverrun.execution import threads
from riverrun.execution.attempt import Attempt
from riverrun.models import Job
from riverrun.runtime import stocktaker
from waiting import DEADLINE_S, until

from .conftest import Task


@contextlib.contextmanager
def rows(app: Any) -> Iterator[Any]:
    """Yield a connection to the test's tables, and commit."""
    with app.engine.begin() as connection:
        yield connection.execution_options(schema_translate_map={None: app.schema})


def states(app: Any) -> Counter[str]:
    """Return the number of jobs in each state."""
    with rows(app) as connection:
        return Counter(map(str, connection.execute(select(Job.state)).scalars()))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every tenth of a second."""
    monkeypatch.setattr(stocktaker, "INTERVAL_S", 0.1)


@pytest.mark.usefixtures("often")
def test_a_row_changed_by_hand_is_found(app: Any) -> None:
    """A running job that names this client is made available, even in a queue it does not work."""
    client, events = app.run()
    for queue in ("default", "elsewhere"):
        with rows(app) as connection:
            connection.execute(
                Job.__table__.insert().values(
                    kind="task",
                    args={"number": 1},
                    queue=queue,
                    state="running",
                    attempt=1,
                    max_attempts=25,
                    attempted_by=[client.id],
                )
            )
    assert isinstance(events.get(DEADLINE_S), JobCompleted)
    until(lambda: states(app) == {"completed": 1, "available": 1}, "the row of another queue")


@pytest.mark.usefixtures("often")
def test_an_attempt_changed_by_hand_is_found(app: Any) -> None:
    """A job whose attempt was changed while it ran runs again afterwards, and not beside itself."""
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def body(args: Task, ctx: JobContext) -> None:
        calls.append(ctx.job.attempt)
        begun.set()
        assert go_on.wait(DEADLINE_S)

    client, _ = app.run(body)
    client.insert(app.engine, Task())
    assert begun.wait(DEADLINE_S)
    with rows(app) as connection:
        connection.execute(update(Job).values(attempt=7))
    looked = client._services.stocktaker
    assert looked.run_once() == 0
    assert calls == [1]
    go_on.set()
    until(lambda: states(app) == {"completed": 1}, "the job's completion")
    assert calls == [1, 7]


def test_a_claim_under_way_is_safe(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose claim is committed, but whose answer is still under way, is not given back."""
    monkeypatch.setattr(stocktaker, "ANSWER_S", 0.3)
    claimed, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def hold(_: object) -> None:
        claimed.set()
        assert go_on.wait(DEADLINE_S)

    client = app.client(lambda args, ctx: calls.append(ctx.job.attempt))
    client.listen(hold, JobsClaimed)
    client.insert(app.engine, Task())
    client.start()
    assert claimed.wait(DEADLINE_S)
    assert client._services.stocktaker.run_once() == 0
    assert states(app) == {"running": 1}
    go_on.set()
    until(lambda: states(app) == {"completed": 1}, "the job's completion")
    assert client._services.stocktaker.run_once() == 0
    assert calls == [1]


@pytest.mark.usefixtures("often")
def test_a_slot_that_vanished_is_found(app: Any) -> None:
    """A job whose attempt has vanished from its slot runs again."""
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def body(args: Task, _: JobContext) -> None:
        calls.append(args.number)
        begun.set()
        if len(calls) == 1:
            assert go_on.wait(DEADLINE_S)

    client, _ = app.run(body)
    client.insert(app.engine, Task())
    assert begun.wait(DEADLINE_S)
    # As if its thread had died without a trace.
    slots = client._services.producers["default"].executor._threads
    [attempt] = slots._running.values()
    slots._running.clear()
    until(lambda: states(app) == {"completed": 1}, "the job's completion")
    assert attempt.claimed.attempt == 1
    assert len(calls) == 2
    go_on.set()


@pytest.mark.parametrize("living", [0, 2])
def test_no_thread_for_a_slot(app: Any, monkeypatch: pytest.MonkeyPatch, living: int) -> None:
    """While no thread can be started, no job is lost; once one can, the client works on."""
    monkeypatch.setattr(threads, "RETRY_S", 0.2)
    allowed, refused = [living], threading.Event()
    at_once, most = 0, 0
    lock = threading.Lock()
    start = threading.Thread.start

    def limited(self: threading.Thread) -> None:
        if self.name.startswith("riverrun.slot"):
            if allowed[0] <= 0:
                refused.set()
                raise RuntimeError("can't start new thread")
            allowed[0] -= 1
        start(self)

    def body(args: Task, _: JobContext) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with lock:
            at_once -= 1

    monkeypatch.setattr(threading.Thread, "start", limited)
    client, _ = app.run(body, slots=8)
    client.insert_many(app.engine, [Task(n) for n in range(16)])
    assert refused.wait(DEADLINE_S)
    if living:
        until(lambda: states(app) == {"completed": 16}, "the jobs' completion")
        assert most == living
        client.insert_many(app.engine, [Task(n) for n in range(16)])
    else:
        until(lambda: states(app) == {"available": 16}, "the jobs' way back")
    allowed[0] = 1_000
    until(lambda: set(states(app)) == {"completed"}, "the jobs' completion")
    client.insert_many(app.engine, [Task(n) for n in range(64)])
    until(lambda: set(states(app)) == {"completed"}, "the jobs' completion")
    assert most == 8
    with rows(app) as connection:
        assert set(connection.execute(select(Job.attempt)).scalars()) == {1}


def test_what_breaks_a_slot_ends_its_attempt(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt whose slot breaks before it can report an outcome has failed; the slot goes on."""
    result = Attempt._result
    broken = Counter[int]()

    def fail_once(self: Attempt, began: float, error: BaseException | None) -> Any:
        broken[self.claimed.id] += 1
        if broken[self.claimed.id] == 1:
            raise MemoryError
        return result(self, began, error)

    monkeypatch.setattr(Attempt, "_result", fail_once)
    client, events = app.run(slots=2)
    client.insert_many(app.engine, [Task(n) for n in range(6)])
    for _ in range(6):
        events.get(DEADLINE_S)
    with rows(app) as connection:
        errors = connection.execute(select(Job.errors)).scalars().all()
    assert [len(each) for each in errors] == [1] * 6
    monkeypatch.undo()
    client.insert(app.engine, Task())
    assert isinstance(events.get(DEADLINE_S), JobCompleted)
