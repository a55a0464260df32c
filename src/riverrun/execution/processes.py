"""Step 4 of 5, execute: calls workers in other processes.

The attempt keeps its slot's thread, which waits while a process calls the worker.
"""

import multiprocessing
import os
import pickle
import select
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

import attrs

from riverrun.clock import Clock
from riverrun.db.forks import close_in_child, ignore
from riverrun.errors import AttemptInterrupted, WorkerFailed, WorkerProcessDied
from riverrun.execution.context import JobContext
from riverrun.execution.plugins import InProcess
from riverrun.execution.signature import By, call
from riverrun.execution.steps import Steps
from riverrun.execution.workers import Worker
from riverrun.jobs.row import JobRow

LOOK_S = 0.05
"""Seconds between looks whether an attempt is cancelled."""


KILL_AFTER_S = 5.0
"""Seconds that a process has to end a cancelled attempt, before the process is killed."""


START_S = 60.0
"""Seconds that a process has to start, and to import what its first call needs.

Only after that does the time count as the attempt's.
"""


# No fork: a child would inherit the locks that other threads hold at that moment.
_multiprocessing = multiprocessing.get_context("spawn")


@attrs.frozen(kw_only=True)
class _Call:
    """The call that a process is asked to make."""

    number: int
    function: Callable[..., object]
    args: object
    around: Sequence[InProcess]  # the plugins' wrappers, the outermost first
    context: By | str  # how the worker takes its context
    job: JobRow | None  # the job, if the worker takes a context


@attrs.frozen(kw_only=True)
class _Answer:
    """The result of a call. A call without any result is answered by no bytes."""

    error: BaseException | None
    trace: str = ""
    staged: dict[str, Any] = attrs.field(factory=dict)
    steps: Steps = attrs.field(factory=lambda: Steps({}))


class ProcessPool:
    """Up to `size` processes, started when first needed and replaced when they die."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()  # guards all below
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._waiting: deque[_Turn] = deque()

    def work(
        self, worker: Worker, args: object, ctx: JobContext, around: Sequence[InProcess] = ()
    ) -> None:
        """Call a worker in one of the processes, within `around`; raise what it raises there.

        Raises:
            WorkerProcessDied: If the process died meanwhile. Only this attempt was in it.
            AttemptInterrupted: If the attempt is cancelled before a process is free.
        """
        turn = _Turn(worker, args, ctx, around)
        child = self._take(turn)
        try:
            encoded = child.answer(turn)
        except (EOFError, OSError):
            child.stop()
            if ctx.reason is not None:
                raise ctx.reason from None
            raise WorkerProcessDied(child.process.exitcode) from None
        finally:
            # First of all: the process is idle, and others may wait for it.
            self._put(child)
        if encoded:
            _take_over(pickle.loads(encoded), ctx)  # noqa: S301  of a process of our own

    @property
    def waiting(self) -> int:
        """How many attempts wait for a process."""
        return len(self._waiting)

    @property
    def spare(self) -> int:
        """How many more attempts could begin at once; negative while some wait."""
        with self._lock:
            return self._size - len(self._children) + len(self._idle) - len(self._waiting)

    @property
    def size(self) -> int:
        """How many processes there may be."""
        return self._size

    def stop(self) -> None:
        """Stop all processes."""
        with self._lock:
            children = list(self._children)
        for child in children:
            child.stop()

    def _take(self, turn: "_Turn") -> "_Child":
        """Wait for a process, and send it the call."""
        while not turn.given_up:
            try:
                with self._lock:
                    child = self._idle.pop() if self._idle else self._add()
                    if child is None:
                        self._waiting.append(turn)
            except BaseException:
                self._pass_on()  # this attempt may have been next; let another have its turn
                raise
            if child is not None:
                child.call(turn)
                return child
            turn.ctx.on_cancel(lambda: self._give_up(turn))
            turn.settled.wait()
            turn.ctx.on_cancel(None)
            if turn.child is not None:
                return turn.child
            turn.settled.clear()
        assert turn.ctx.reason is not None  # noqa: S101  what has cancelled it
        raise turn.ctx.reason

    def _give_up(self, turn: "_Turn") -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                turn.given_up = True
                turn.settled.set()

    def _add(self) -> "_Child | None":
        if len(self._children) == self._size:
            return None
        child = _Child()
        self._children.add(child)
        return child

    def _put(self, child: "_Child") -> None:
        with self._lock:
            if child.alive:
                self._idle.append(child)
            else:
                self._children.discard(child)
        self._pass_on()

    def _pass_on(self) -> None:
        """Give an idle process to the next turn, or let it make one if there may be one more."""
        with self._lock:
            if not self._waiting or not (self._idle or len(self._children) < self._size):
                return
            turn = self._waiting.popleft()
            child = turn.child = self._idle.pop() if self._idle else None
        if child is not None:
            # The call is sent from here: the waiting thread would first have to wake.
            child.call(turn)
        turn.settled.set()


_numbers = count(1)


class _Turn:
    """An attempt that waits for a process, or has one."""

    def __init__(
        self, worker: Worker, args: object, ctx: JobContext, around: Sequence[InProcess]
    ) -> None:
        self.number = next(_numbers)
        self.ctx = ctx
        self.child: _Child | None = None
        self.given_up = False
        self.settled = (
            threading.Event()
        )  # set once it gets a process, may make one, or has given up
        job = ctx.job if worker.takes_context else None
        asked = _Call(
            number=self.number,
            function=worker.function,
            args=args,
            around=around,
            context=worker.context,
            job=job,
        )
        self.encoded = bytes(ForkingPickler.dumps(asked))


class _Child:
    """One process, and the pipes to it."""

    def __init__(self) -> None:
        self._calls, calls = _multiprocessing.Pipe()
        # Kept for all waits: what Connection.poll() makes for each takes as long as a whole call.
        self._answers = select.poll()
        self._answers.register(self._calls, select.POLLIN)
        self._cancels, cancels = _multiprocessing.Pipe()
        # The process ends when its pipes are closed. A forked child of this process must not keep
        # them open.
        close_in_child(self._calls, self._cancels)
        self.process: BaseProcess = _multiprocessing.Process(
            target=_main, args=(calls, cancels), name="riverrun.worker", daemon=True
        )
        self.process.start()
        calls.close()
        cancels.close()
        self.alive = True
        self._begun = False  # it has read its first call, and imported what the call needs

    def call(self, turn: _Turn) -> None:
        # The wait for a process does not count as the attempt's time.
        turn.ctx.begin(in_s=0.0 if self._begun else START_S)
        with suppress(OSError):  # then there will be no answer, either, and that is noticed
            self._calls.send_bytes(turn.encoded)

    def answer(self, turn: _Turn) -> bytes:
        if not self._begun:
            self._receive(turn)
            self._begun = True
            turn.ctx.begin()
        return self._receive(turn)

    def _receive(self, turn: _Turn) -> bytes:
        told_at: float | None = None
        # Once it is stopped, its file descriptor may belong to another file.
        while self.alive and not self._answers.poll(LOOK_S * 1_000):
            if (reason := turn.ctx.reason) is None:
                continue
            if told_at is None:
                told_at = time.monotonic()
                self._cancels.send((turn.number, reason))
            elif time.monotonic() - told_at > KILL_AFTER_S:
                self.process.kill()
        return self._calls.recv_bytes()

    def stop(self) -> None:
        self.alive = False
        self._calls.close()
        self._cancels.close()
        # The process ends when its pipes are closed, unless its worker keeps it busy.
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _take_over(answer: _Answer, ctx: JobContext) -> None:
    ctx.adopt(answer.staged, answer.steps)
    if answer.error is not None:
        # The traceback of the other process shows where it was raised.
        answer.error.__cause__ = _Remote(answer.trace)
        raise answer.error


class _Remote(Exception):
    """The traceback of another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _main(calls: Connection, cancels: Connection) -> None:
    """Work the calls that arrive on `calls` until it is closed."""
    # A signal to all processes at once is meant for the parent, which will stop this one.
    ignore((signal.SIGINT, signal.SIGTERM))
    # Otherwise this process's death would not be noticed while a child that it forked lives.
    close_in_child(calls, cancels)
    current = _Current()
    threading.Thread(target=_listen, args=(cancels, current), daemon=True).start()
    for number in count():
        asked, answer = None, None
        try:
            asked = calls.recv()
        except (EOFError, OSError):
            # The parent is gone, so there is nothing left to do.
            os._exit(1)
        except Exception as error:
            answer = _Answer(error=error, trace=traceback.format_exc())
        if number == 0:
            _send(calls, b"")  # the first call has begun
        if asked is not None:
            answer = _call(asked, current.begin(asked))
        _send(calls, _encoded(answer))


def _send(calls: Connection, encoded: bytes) -> None:
    with suppress(OSError):  # the parent is gone: the next read fails
        calls.send_bytes(encoded)


class _Current:
    """The call under way, and a cancellation, which may arrive before its call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._number = 0
        self._ctx: JobContext | None = None
        self._cancel: tuple[int, AttemptInterrupted] | None = None

    def begin(self, call: _Call) -> JobContext | None:
        """Return a context for `call`, if its worker takes one."""
        ctx = None
        if call.job is not None:
            clock = Clock()
            claimed = clock.monotonic()
            ctx = JobContext(
                call.job, clock=clock, claimed_monotonic=claimed, timeout_s=None, engine=None
            )
        with self._lock:
            self._number, self._ctx = call.number, ctx
        self._tell()
        return ctx

    def cancel(self, number: int, reason: AttemptInterrupted) -> None:
        """Cancel the call `number`, if it is this one or the next."""
        with self._lock:
            self._cancel = number, reason
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            ctx, cancel = self._ctx, self._cancel
            if ctx is None or cancel is None or cancel[0] != self._number:
                return
        ctx.cancel(cancel[1])


def _listen(cancels: Connection, current: _Current) -> None:
    while True:
        try:
            number, reason = cancels.recv()
        except (EOFError, OSError):
            os._exit(1)
        current.cancel(number, reason)


def _call(asked: _Call, ctx: JobContext | None) -> _Answer | None:
    """Call a worker; return the result, or None if there is nothing to report."""
    error: BaseException | None = None
    trace = ""
    pid = os.getpid()
    try:
        _within(asked.around, lambda: call(asked.function, asked.args, ctx, asked.context))
    except BaseException as raised:
        error, trace = raised, "".join(traceback.format_exception(raised, limit=-50))
    if os.getpid() != pid:
        # A child that the worker forked, and that returned from it, must not answer, too.
        os._exit(0 if error is None else 1)
    if ctx is not None:
        return _Answer(error=error, trace=trace, staged=dict(ctx.staged), steps=ctx.steps)
    return None if error is None else _Answer(error=error, trace=trace)


def _within(around: Sequence[InProcess], inner: Callable[[], object]) -> None:
    if not around:
        inner()
        return
    around[0](lambda: _within(around[1:], inner))


def _encoded(answer: _Answer | None) -> bytes:
    if answer is None:
        return b""
    error = answer.error
    try:
        encoded = pickle.dumps(answer)
        if error is not None:
            pickle.loads(encoded)  # noqa: S301  what was just pickled here
    except Exception:
        text = f"{type(error).__name__}"
        with suppress(Exception):
            text = f"{text}: {error}"
        return pickle.dumps(attrs.evolve(answer, error=WorkerFailed(text), steps=Steps({})))
    return encoded
