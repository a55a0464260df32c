"""What runs in a process of the pool: it reads calls and sends an answer to each."""

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import attrs

from riverrun.clock import Clock
from riverrun.db.forks import close_in_child, ignore
from riverrun.errors import AttemptInterrupted, WorkerFailed
from riverrun.execution.attempt_state import ContextParts
from riverrun.execution.context import JobContext
from riverrun.execution.plugins import InProcess
from riverrun.execution.signature import By, call
from riverrun.execution.steps import Steps
from riverrun.jobs.row import JobRow


@attrs.frozen(kw_only=True)
class Call:
    """The call that a process is asked to make."""

    number: int
    function: Callable[..., object]
    args: object
    around: Sequence[InProcess]  # the plugins' wrappers, the outermost first
    context: By | str  # how the worker takes its context
    job: JobRow | None  # the job, if the worker takes a context


@attrs.frozen(kw_only=True)
class Answer:
    """The result of a call. A call without any result is answered by no bytes."""

    error: BaseException | None
    trace: str = ""
    staged: dict[str, Any] = attrs.field(factory=dict)
    steps: Steps = attrs.field(factory=lambda: Steps({}))


def main(calls: Connection, cancels: Connection) -> None:
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
            answer = Answer(error=error, trace=traceback.format_exc())
        if number == 0:
            _send(calls, b"")  # the first call has begun
        if asked is not None:
            answer = _answer_to(asked, current.begin(asked))
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

    def begin(self, call: Call) -> JobContext | None:
        """Return a context for `call`, if its worker takes one."""
        ctx = None
        if call.job is not None:
            clock = Clock()
            claimed = clock.monotonic()
            ctx = JobContext(call.job, ContextParts(clock=clock, engine=None), claimed, None)
        with self._lock:
            self._number, self._ctx = call.number, ctx
        self._pass_on()
        return ctx

    def cancel(self, number: int, reason: AttemptInterrupted) -> None:
        """Cancel the call `number`, if it is this one or the next."""
        with self._lock:
            self._cancel = number, reason
        self._pass_on()

    def _pass_on(self) -> None:
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


def _answer_to(asked: Call, ctx: JobContext | None) -> Answer | None:
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
        return Answer(error=error, trace=trace, staged=dict(ctx.staged), steps=ctx.steps)
    return None if error is None else Answer(error=error, trace=trace)


def _within(around: Sequence[InProcess], inner: Callable[[], object]) -> None:
    if not around:
        inner()
        return
    around[0](lambda: _within(around[1:], inner))


def _encoded(answer: Answer | None) -> bytes:
    if answer is None:
        return b""
    error = answer.error
    try:
        encoded = pickle.dumps(answer)
        if error is not None:
            pickle.loads(encoded)  # noqa: S301  what was just pickled here
    except Exception:  # It is the application's error that cannot be pickled, or be made again.
        text = f"{type(error).__name__}"
        with suppress(Exception):
            text = f"{text}: {error}"
        return pickle.dumps(attrs.evolve(answer, error=WorkerFailed(text), steps=Steps({})))
    return encoded
