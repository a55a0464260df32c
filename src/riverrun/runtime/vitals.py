"""What a client's heartbeat writes about its process, for operators."""

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from riverrun.clock import Clock
from riverrun.execution.plugins import Plugin
from riverrun.execution.workers import Workers
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.runtime.event_loop import LoopThread
from riverrun.runtime.producers import Producers

logger = logger_of(__name__)


class Vitals:
    """The version, the executors, and how long ago the loops of a working client last turned.

    Args:
        producers: The client's producers.
        loop: The event loop of its coroutines.
        workers: Its workers.
        plugins: Its plugins, which may have logs of running attempts.
        clock: The process's clock.
    """

    def __init__(
        self,
        producers: Producers,
        loop: LoopThread,
        *,
        workers: Workers,
        plugins: Sequence[Plugin],
        clock: Clock,
    ) -> None:
        self._producers = producers
        self._loop = loop
        self._workers = workers
        self._plugins = plugins
        self._failed: set[Plugin] = set()  # plugins whose failure is logged
        self._clock = clock
        self._constant = {
            "version": _version(),
            "python": platform.python_version(),
        }

    def state(self) -> dict[str, Any]:
        """Return the vitals as the heartbeat writes them; see `ClientRow` for their meaning."""
        running = len(self._producers.running())
        return {
            **self._constant,
            "claim_ahead": {
                producer.queue: producer.config.claim_ahead for producer in self._producers
            },
            "executors": sorted({worker.executor.value for worker in self._workers}),
            "running": running,
            # An attempt may have begun or ended between the two looks.
            "ahead": max(0, len(self._producers.claimed()) - running),
            "looked_s": self._looked_s(),
            "loop_s": _rounded(self._loop.silent_s()),
            "memory_bytes": memory_bytes(),
            **self._logs(),
        }

    def _logs(self) -> dict[str, Any]:
        logs: dict[str, Any] = {}
        for plugin in self._plugins:
            try:
                for job_id, (attempt, text) in plugin.live_logs().items():
                    logs[str(job_id)] = {"attempt": attempt, "log": text}
            except Exception as error:
                # The heartbeat must not depend on it.
                if plugin not in self._failed:
                    self._failed.add(plugin)
                    log_error(
                        logger,
                        error,
                        "the plugin %s could not return its live logs; heartbeats go without them",
                        type(plugin).__name__,
                    )
        return {"logs": logs} if logs else {}

    def _looked_s(self) -> float | None:
        now = self._clock.monotonic()
        looks = [
            now - (due_at - producer.poll_interval_s)
            for producer in self._producers
            if math.isfinite(due_at := producer.poll_at)
        ]
        return _rounded(max(looks, default=None))


def _version() -> str | None:
    try:
        return version("riverrun")
    except PackageNotFoundError:  # its files are on the path, and it is not installed
        return None


def memory_bytes() -> int | None:
    """Return the resident memory of this process in bytes; None where that cannot be read."""
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource  # only where there is /proc

    return pages * resource.getpagesize()


def _rounded(duration_s: float | None) -> float | None:
    return None if duration_s is None else round(max(0.0, duration_s), 3)
