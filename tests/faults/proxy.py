"""A TCP proxy in front of a server that can delay, cut, refuse, swallow, forget or be silent."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

LINGER_NONE = struct.pack("ii", 1, 0)  # close with a reset, as a lost host's peer sees it


Upstream = Path | tuple[str, int]
"""The path of a Unix socket, or a host and a port."""


class Pair:
    """A client's connection, and the connection to the server that was opened for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = (client, server)
        self.flows = asyncio.Event()

    def reset(self) -> None:
        """Reset both connections at once."""
        for writer in self.writers:
            end = writer.get_extra_info("socket")
            if end.family == socket.AF_INET:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            writer.transport.abort()


class Proxy:
    """Passes bytes in both directions until a fault is requested."""

    def __init__(self, upstream: Upstream) -> None:
        self.delay_s = 0.0
        """Seconds by which each piece of data is delayed."""
        self._deaf = False
        self._upstream = upstream
        self._silent = False
        self._pairs: set[Pair] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self.port = 0
        self.accept()

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the server through the proxy."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def lead_to(self, upstream: Upstream) -> None:
        """Send new connections to another server. Open connections stay where they are."""
        self._upstream = upstream

    def accept(self) -> None:
        """Accept connections, on the same port as before."""
        self._do(self._accept)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._refuse)
        self.cut()

    def deafen(self) -> None:
        """Pass requests on but drop the server's answers, until the connections are cut."""
        self._deaf = True

    def cut(self) -> None:
        """Reset every connection, and pass answers on again."""
        self._do(self._cut)

    def silence(self) -> None:
        """Pass nothing on and close nothing, on connections opened from now on as well."""
        self._silent = True
        self.forget()

    def forget(self) -> None:
        """Pass on nothing on open connections, but acknowledge all data and close none.

        New connections work. A load balancer behaves like this after losing its table, or the host
        behind it.
        """
        self._do(self._each, lambda pair: pair.flows.clear())

    def heal(self) -> None:
        """Pass data on again, including what was sent in the meantime."""
        self._silent = False
        self._do(self._each, lambda pair: pair.flows.set())

    def close(self) -> None:
        """Close all connections and stop."""
        self.refuse()
        self._do(self._cancel)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        async def call() -> None:
            await function(*args)

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    async def _accept(self) -> None:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._listener is None:
            return
        # A connection that is accepted while its server closes is neither served nor closed by
        # asyncio, and its client waits for an answer. So accept no more, let those that are
        # accepted begin, and only then close.
        for listening in self._listener.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        self._listener.close()
        self._listener = None

    async def _cut(self) -> None:
        # In one turn of the loop: a connection opened in between would wait for its answer.
        self._deaf = False
        await self._each(Pair.reset)

    async def _each(self, call: Callable[[Pair], None]) -> None:
        for pair in list(self._pairs):
            call(pair)

    async def _cancel(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes an aborted connection in its next turn

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._upstream, Path):
                up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
            else:
                up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except BaseException as error:  # also if the proxy is closed meanwhile
            writer.transport.abort()
            if isinstance(error, OSError):
                return
            raise
        pair = Pair(writer, up_writer)
        if self._listener is None:  # `refuse` has cut the other connections meanwhile
            pair.reset()
            return
        if not self._silent:
            pair.flows.set()
        self._pairs.add(pair)
        try:
            # Both must end, even if one fails, before what is still open is closed.
            await asyncio.gather(
                self._pump(pair, reader, up_writer, answers=False),
                self._pump(pair, up_reader, writer, answers=True),
                return_exceptions=True,
            )
        finally:
            self._pairs.discard(pair)
            pair.reset()

    async def _pump(
        self,
        pair: Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await pair.flows.wait()
                if answers and self._deaf:
                    continue
                writer.write(data)
                await writer.drain()
        await pair.flows.wait()
        writer.transport.abort()
