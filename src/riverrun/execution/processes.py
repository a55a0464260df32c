"""Step 4 of 5, execute: calls workers in other processes.

The attempt keeps its slot's thread, which waits while a process calls the worker.
"""

import multiprocessing
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler

from riverrun.db.forks import close_in_child
from riverrun.errors import WorkerProcessDied
from riverrun.execution.context import JobContext
from riverrun.execution.pipe import Pipe
from riverrun.execution.plugins import InProcess
from riverrun.execution.worker_process import Answer, Call, main
from riverrun.execution.workers import Worker

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


class ProcessPool:
    """Up to `size` processes, started when first needed and replaced when they die."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()  # guards all below
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._waiting: deque[_Turn] = deque()
        # The queues that would claim if there were a process, in the order in which they came: what
        # to call when one is free.
        self._line: dict[Callable[[], None], None] = {}

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

    def stand_in_line(self, call: Callable[[], None], stands: bool) -> None:
        """Put a queue in the line for a process, or take it out.

        Args:
            call: Identifies the queue, and is called when a process is free.
            stands: Whether it is to stand there.
        """
        with self._lock:
            if (call in self._line) == stands:
                return
            if stands:
                self._line[call] = None
            else:
                del self._line[call]
        self._offer()

    def before(self, call: Callable[[], None]) -> int:
        """Return how many queues stand in line before that of `call`; all, if it does not stand."""
        if not self._line:
            return 0
        with self._lock:
            line = list(self._line)
            return line.index(call) if call in self._line else len(line)

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
                    child = self._pop_idle() or self._add()
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

    def _pop_idle(self) -> "_Child | None":
        """Return an idle process that lives, and drop those that have died meanwhile."""
        while self._idle:
            child = self._idle.pop()
            if not child.has_died:
                return child
            self._children.discard(child)
            child.stop()
        return None

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
        self._offer()

    def _offer(self) -> None:
        """Call the queues that stand in line, if a process is free."""
        if self._line and self.spare > 0:
            with self._lock:
                line = list(self._line)
            for call in line:
                call()

    def _pass_on(self) -> None:
        """Give an idle process to the next turn, or let it make one if there may be one more."""
        with self._lock:
            if not self._waiting or not (self._idle or len(self._children) < self._size):
                return
            turn = self._waiting.popleft()
            child = turn.child = self._pop_idle()
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
        asked = Call(
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
        self._pipe = Pipe(self._calls)
        self._cancels, cancels = _multiprocessing.Pipe()
        # The process ends when its pipes are closed. A forked child of this process must not keep
        # them open.
        close_in_child(self._calls, self._cancels)
        self.process: BaseProcess = _multiprocessing.Process(
            target=main, args=(calls, cancels), name="riverrun.worker", daemon=True
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
            self._pipe.send(turn.encoded)

    def answer(self, turn: _Turn) -> bytes:
        if not self._begun:
            self._receive(turn)
            self._begun = True
            turn.ctx.begin()
        return self._receive(turn)

    def _receive(self, turn: _Turn) -> bytes:
        cancelled_at: float | None = None
        # Once it is stopped, its file descriptor may belong to another file.
        while self.alive:
            answer = self._pipe.receive(LOOK_S)
            if answer is not None:
                return answer
            if self.has_died and not self._pipe.has_more():
                # The pipe has no end while a program that the worker started keeps it open.
                break
            if (reason := turn.ctx.reason) is None:
                continue
            if cancelled_at is None:
                cancelled_at = time.monotonic()
                self._cancels.send((turn.number, reason))
            elif time.monotonic() - cancelled_at > KILL_AFTER_S:
                self.process.kill()
        raise EOFError

    @property
    def has_died(self) -> bool:
        return self.process.exitcode is not None

    def stop(self) -> None:
        self.alive = False
        self._calls.close()
        self._cancels.close()
        # The process ends when its pipes are closed, unless its worker keeps it busy.
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _take_over(answer: Answer, ctx: JobContext) -> None:
    ctx.adopt(answer.staged, answer.steps)
    if answer.error is not None:
        # The traceback of the other process shows where it was raised.
        answer.error.__cause__ = _Remote(answer.trace)
        raise answer.error


class _Remote(Exception):
    """The traceback of another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
