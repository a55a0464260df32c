"""A proxy before the server that cuts the connection of a worker's session at a given moment."""

import asyncio
from pathlib import Path

from faults.proxy import Pair, Proxy

WRITES = b"INSERT INTO entry"
"""A write that identifies the connection to cut."""

LATE_S = 0.7
"""Seconds from the loss of the client's end until the server receives the COMMIT."""


class CommitProxy(Proxy):
    """Cuts one connection at `moment` and passes all others on.

    `statement`: before the worker's write reaches the server. `before`: before the COMMIT does.
    `after`: when the server has committed and before the client knows. `late`: the client's end is
    cut some time before the COMMIT reaches the server. `never`: the same, but the COMMIT never
    reaches the server.
    """

    def __init__(self, upstream: Path) -> None:
        self.moment: str | None = None
        self.lost = 0
        self._writers: set[Pair] = set()
        self._committing: set[Pair] = set()
        super().__init__(upstream)

    async def _pump(
        self,
        pair: Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        while data := await reader.read(65_536):
            if answers and pair in self._committing:
                self._lose(pair)
                return
            if not answers and self.moment is not None:
                if WRITES in data:
                    self._writers.add(pair)
                    if self.moment == "statement":
                        self._lose(pair)
                        return
                if pair in self._writers and b"COMMIT" in data:
                    match self.moment:
                        case "before":
                            self._lose(pair)
                            return
                        case "after":
                            self._committing.add(pair)
                        case "late" | "never":
                            commits = self.moment == "late"
                            self._lose_client(pair)
                            await asyncio.sleep(LATE_S)
                            if commits:
                                writer.write(data)
                                await writer.drain()
                                await asyncio.sleep(0.1)
                            pair.writers[1].transport.abort()
                            return
            writer.write(data)
            await writer.drain()
        if pair not in self._writers or answers:
            writer.transport.abort()

    def _lose(self, pair: Pair) -> None:
        self.moment = None
        self.lost += 1
        pair.reset()

    def _lose_client(self, pair: Pair) -> None:
        self.moment = None
        self.lost += 1
        pair.writers[0].transport.abort()
