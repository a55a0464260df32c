"""JobLog: keeps the log records of a job's attempts with the job, where River's UI shows them."""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from riverrun.errors import InvalidOption
from riverrun.execution.context import JobContext
from riverrun.execution.plugins import Plugin
from riverrun.jobs.checks import check_int
from riverrun.jobs.json_values import json_text
from riverrun.jobs.parts import LOG_KEY
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)


MAX_ATTEMPT_CHARS = 2 * 1024 * 1024


MAX_TOTAL_BYTES = 8 * 1024 * 1024


LIVE_CHARS = 2_000
"""Maximum number of characters of a running attempt's log in a heartbeat."""


LIVE_JOBS = 50
"""Maximum number of attempts whose log is in a heartbeat: those that began last."""


_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


_lines: ContextVar["_Lines | None"] = ContextVar("riverrun_job_log", default=None)


class JobLog(Plugin):
    """Keeps with each job what its worker logs, attempt by attempt.

    Args:
        level: The level from which records are kept, as for `logging`. A logger makes no records
            below its own level. Default: `logging.INFO`.
        formatter: Formats a record as a line. Default: time, level, logger and message.
        max_attempt_chars: Characters kept of one attempt. The rest is cut, with a mark. Default:
            2,097,152.
        max_total_bytes: Bytes of JSON kept of all attempts, at most 64 MiB. The oldest attempts are
            dropped. Default: 8 MiB.
        live: Whether the client's heartbeat, every 5 s, also has the last 2,000 characters of
            attempts that run, for `riverrun.verbs.get_live_log`. Then the JobLog must be one of the
            client's plugins. Default: False.

    Source of key, form and limits: River 0.51, riverlog.
    """

    def __init__(
        self,
        *,
        level: int = logging.INFO,
        formatter: logging.Formatter | None = None,
        max_attempt_chars: int = MAX_ATTEMPT_CHARS,
        max_total_bytes: int = MAX_TOTAL_BYTES,
        live: bool = False,
    ) -> None:
        self._max_attempt_chars = check_int("max_attempt_chars", max_attempt_chars, 1, 2**26)
        self._max_total_bytes = check_int("max_total_bytes", max_total_bytes, 1, 64 * 2**20)
        self._handler = _Handler(level)
        self._handler.setFormatter(formatter or logging.Formatter(_FORMAT))
        self._live = live
        self._lock = threading.Lock()  # guards the next two, and the root logger's handlers
        self._attached = False
        self._running: dict[int, tuple[int, _Lines]] = {}  # if live: attempts by job id

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        """Collect what is logged in this context until the attempt ends, and keep it."""
        with self._keeping(ctx):
            call_next()

    async def work_async(self, ctx: JobContext, call_next: Callable[[], Awaitable[object]]) -> None:
        """As `work`, for an `async def` worker."""
        with self._keeping(ctx):
            await call_next()

    @contextmanager
    def _keeping(self, ctx: JobContext) -> Iterator[None]:
        self._attach()
        lines = _Lines(self._max_attempt_chars, self._handler, _lines.get())
        token = _lines.set(lines)
        running = (ctx.job.attempt, lines)
        if self._live:
            with self._lock:
                self._running[ctx.job.id] = running
        try:
            yield
        finally:
            _lines.reset(token)
            if self._live:
                with self._lock:
                    # An attempt that was rescued may be running here again.
                    if self._running.get(ctx.job.id) is running:
                        del self._running[ctx.job.id]
            if text := lines.text():
                try:
                    ctx.keep_log(LOG_KEY, self._kept(ctx, text))
                except InvalidOption as error:
                    # The worker's success must not depend on its log.
                    logger.warning("could not keep the log of job %s: %s", ctx.job.id, error)

    def live_logs(self) -> Mapping[int, tuple[int, str]]:
        """Return the last lines of the attempts that run, if `live`: of 50 attempts at most."""
        with self._lock:
            latest = list(self._running.items())[-LIVE_JOBS:]
        return {
            job_id: (attempt, text)
            for job_id, (attempt, lines) in latest
            if (text := lines.tail(LIVE_CHARS))
        }

    def _attach(self) -> None:
        with self._lock:
            if not self._attached:
                logging.getLogger().addHandler(self._handler)
                self._attached = True

    def _kept(self, ctx: JobContext, text: str) -> list[object]:
        before = ctx.job.metadata.get(LOG_KEY)
        entries = list(before) if isinstance(before, list) else []
        entries.append({"attempt": ctx.job.attempt, "log": text})
        sizes = [len(json_text(entry).encode()) + 1 for entry in entries]
        while len(entries) > 1 and sum(sizes) + 1 > self._max_total_bytes:
            del entries[0], sizes[0]
        return entries


class _Lines:
    """The log lines of one attempt, up to a limit.

    Args:
        limit: The most characters to keep.
        handler: The handler of the JobLog that keeps them. Another JobLog sees the same records.
        outer: The lines of the JobLog around this one, if there is one.
    """

    def __init__(self, limit: int, handler: "_Handler", outer: "_Lines | None") -> None:
        self.handler = handler
        self.outer = outer
        self._limit = limit
        self._parts: list[str] = []
        self._chars = 0

    def add(self, line: str) -> None:
        # Escape what jsonb cannot hold, so that the job does not lose its log.
        line = line.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode() + "\n"
        left = self._limit - self._chars
        if left <= 0:
            return
        if len(line) > left:
            line = line[:left] + "\n... cut ...\n"
            self._chars = self._limit
        self._chars += len(line)
        self._parts.append(line)

    def text(self) -> str:
        return "".join(self._parts)

    def tail(self, chars: int) -> str:
        """Return the last characters, from a thread that adds none."""
        parts: list[str] = []
        left = chars
        for place in range(len(self._parts) - 1, -1, -1):
            parts.append(self._parts[place])
            left -= len(self._parts[place])
            if left <= 0:
                break
        return "".join(reversed(parts))[-chars:]


class _Handler(logging.Handler):
    """Adds records to the lines of the attempt in whose context they were logged."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = _lines.get()
        while lines is not None and lines.handler is not self:
            lines = lines.outer
        if lines is not None:
            try:
                lines.add(self.format(record))
            except Exception:  # As every handler of logging does it.
                self.handleError(record)
