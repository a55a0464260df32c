"""LoopThread: the event loop that a client's coroutines share."""

import asyncio
import threading
from collections.abc import Callable

from riverrun.runtime.service import Service


class LoopThread(Service):
    """An event loop in a thread of its own: all coroutines of a client share it.

    What async code keeps, such as a pool of connections, belongs to one loop.
    """

    def __init__(self) -> None:
        super().__init__("loop")
        self._ready = threading.Event()
        self._lock = threading.Lock()  # guards the start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Call `function` in the loop, soon."""
        loop = self._loop
        if loop is None:
            with self._lock:
                self.start()
            self._ready.wait()
            loop = self._loop
        assert loop is not None  # noqa: S101  _ready says so
        loop.call_soon_threadsafe(function)

    def run(self) -> None:
        """Run the loop until stopped, and cancel what is left in it."""
        with asyncio.Runner() as runner:
            self._ended = asyncio.Event()
            self._loop = runner.get_loop()
            self._ready.set()
            runner.run(self._wait())

    def interrupt(self) -> None:
        """End the loop."""
        if self._loop is not None and self._ended is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended.set)

    async def _wait(self) -> None:
        assert self._ended is not None  # noqa: S101  run() has made it
        await self._ended.wait()
