"""Slots as processes: for work that would keep the interpreter from the other threads.

An attempt keeps its slot's thread, which waits for a process that calls the worker.
"""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import attrs

from riverrun.clock import Clock
from riverrun.context import JobContext
from riverrun.errors import WorkerFailed, WorkerProcessDied
from riverrun.job import JobRow
from riverrun.steps import Steps
from riverrun.workers import Worker

LOOK_S = 0.05
"""Seconds between looks whether an attempt shall end."""

KILL_AFTER_S = 5.0
"""Seconds that a process has to end an attempt that shall end, before it is killed."""

# No fork: a child would inherit the locks that other threads hold at that moment.
_multiprocessing = multiprocessing.get_context("spawn")


@attrs.frozen(kw_only=True)
class _Call:
    """What a process shall call."""

    function: Callable[..., object]
    args: object
    job: JobRow
    takes_context: bool


@attrs.frozen(kw_only=True)
class _Answer:
    """What came of it."""

    error: BaseException | None
    trace: str
    staged: dict[str, Any]
    steps: Steps


class ProcessPool:
    """Up to `size` processes, started when they are first needed, replaced when they die."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()  # guards all below
        self._freed = threading.Condition(self._lock)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()

    def work(self, worker: Worker, args: object, ctx: JobContext) -> None:
        """Call a worker in one of the processes; raise what it raises there.

        Raises:
            WorkerProcessDied: If the process died meanwhile; only this attempt was in it.
            AttemptInterrupted: If the attempt shall end before a process is free.
        """
        child = self._take(ctx)
        try:
            # The attempt's time is its worker's, not that of the wait for a process.
            ctx.begin()
            child.work(worker, args, ctx)
        finally:
            self._put(child)

    def stop(self) -> None:
        """End the processes."""
        with self._lock:
            children = list(self._children)
        for child in children:
            child.stop()

    def pids(self) -> list[int]:
        """Return the ids of the processes."""
        with self._lock:
            return [pid for child in self._children if (pid := child.process.pid) is not None]

    def _take(self, ctx: JobContext) -> "_Child":
        cancelled = threading.Event()

        def wake() -> None:
            with self._lock:
                cancelled.set()
                self._freed.notify_all()

        ctx.on_cancel(wake)
        try:
            with self._lock:
                # As many threads as there are slots may wait here: they must not look by the clock.
                self._freed.wait_for(
                    lambda: cancelled.is_set() or self._idle or len(self._children) < self._size
                )
                if not cancelled.is_set():
                    return self._idle.pop() if self._idle else self._add()
        finally:
            ctx.on_cancel(None)
        assert ctx.reason is not None  # noqa: S101  what has cancelled it
        raise ctx.reason

    def _add(self) -> "_Child":
        child = _Child()
        self._children.add(child)
        return child

    def _put(self, child: "_Child") -> None:
        with self._lock:
            if child.alive:
                self._idle.append(child)
            else:
                self._children.discard(child)
            self._freed.notify()


class _Child:
    """One process, and the pipe to it."""

    def __init__(self) -> None:
        self._connection, theirs = _multiprocessing.Pipe()
        self.process: BaseProcess = _multiprocessing.Process(
            target=_main, args=(theirs,), name="riverrun.worker", daemon=True
        )
        self.process.start()
        theirs.close()
        self.alive = True

    def work(self, worker: Worker, args: object, ctx: JobContext) -> None:
        call = _Call(
            function=worker.function,
            args=args,
            job=ctx.job,
            takes_context=worker.takes_context,
        )
        try:
            self._connection.send(call)
            answer = self._answer(ctx)
        except (EOFError, OSError):
            self.stop()
            if ctx.reason is not None:
                raise ctx.reason from None
            raise WorkerProcessDied(self.process.exitcode) from None
        ctx.adopt(answer.staged, answer.steps)
        if answer.error is not None:
            # Where it was raised is the other process's to tell.
            answer.error.__cause__ = _Remote(answer.trace)
            raise answer.error

    def stop(self) -> None:
        self.alive = False
        self._connection.close()
        # It ends when its pipe does, unless its worker keeps it.
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _answer(self, ctx: JobContext) -> _Answer:
        told_at: float | None = None
        while not self._connection.poll(LOOK_S):
            if ctx.reason is None:
                continue
            if told_at is None:
                told_at = time.monotonic()
                self._connection.send(ctx.reason)
            elif time.monotonic() - told_at > KILL_AFTER_S:
                self.process.kill()
        answer: _Answer = self._connection.recv()
        return answer


class _Remote(Exception):
    """The traceback of another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _main(connection: Connection) -> None:
    """Work what comes through `connection` until it ends."""
    # Whoever signals all processes at once means the parent, which will end this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    calls: queue.SimpleQueue[tuple[_Call, JobContext]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls), daemon=True).start()
    while True:
        call, ctx = calls.get()
        _send(connection, _call(call, ctx))


def _listen(connection: Connection, calls: "queue.SimpleQueue[tuple[_Call, JobContext]]") -> None:
    ctx: JobContext | None = None
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            # Without a parent there is nobody to work for.
            os._exit(1)
        except Exception as error:
            answer = _Answer(error=error, trace=traceback.format_exc(), staged={}, steps=Steps({}))
            _send(connection, answer)
            continue
        if isinstance(message, _Call):
            clock = Clock()
            ctx = JobContext(
                message.job,
                clock=clock,
                claimed_monotonic=clock.monotonic(),
                timeout_s=None,
                engine=None,
            )
            calls.put((message, ctx))
        elif ctx is not None:
            ctx.cancel(message)


def _call(call: _Call, ctx: JobContext) -> _Answer:
    error: BaseException | None = None
    trace = ""
    try:
        if call.takes_context:
            call.function(call.args, ctx)
        else:
            call.function(call.args)
    except BaseException as raised:
        error, trace = raised, "".join(traceback.format_exception(raised, limit=-50))
    return _Answer(error=error, trace=trace, staged=dict(ctx.staged), steps=ctx.steps)


def _send(connection: Connection, answer: _Answer) -> None:
    error = answer.error
    try:
        pickle.loads(pickle.dumps(answer))  # noqa: S301  what was just pickled here
    except Exception:
        text = f"{type(error).__name__}"
        with suppress(Exception):
            text = f"{text}: {error}"
        answer = attrs.evolve(answer, error=WorkerFailed(text), steps=Steps({}))
    with suppress(OSError):
        connection.send(answer)
