"""A process that speaks JSON-RPC 2.0 on its standard streams, one object per line."""

import contextlib
import json
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self

from waiting import DEADLINE_S

NOT_FOUND = -32001
REJECTED = -32002
DATABASE = -32003
UNSUPPORTED = -32004
INVALID_PARAMS = -32602


class RpcError(Exception):
    """The peer answered with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(method, code, message)
        self.method = method
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.method}: {self.message} ({self.code})"


class Process:
    """A peer process whose methods can be called.

    Args:
        command: The program and its arguments.
        env: The complete environment of the process.
        name: The name by which failures call it.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], name: str) -> None:
        self.name = name
        self._calls = 0
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._said: deque[str] = deque(maxlen=200)
        self._process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._readers = [
            threading.Thread(target=self._read_answers, name=f"{name} stdout"),
            threading.Thread(target=self._read_diagnostics, name=f"{name} stderr"),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """The last lines of the peer's standard error."""
        return "".join(self._said)

    def call(self, method: str, *, deadline_s: float = DEADLINE_S, **params: Any) -> Any:
        """Return the result of a method.

        Raises:
            RpcError: If the answer is an error.
            AssertionError: If no answer comes within `deadline_s` seconds.
        """
        return self.call_text(method, json.dumps(params, ensure_ascii=False), deadline_s)

    def call_text(self, method: str, params: str, deadline_s: float = DEADLINE_S) -> Any:
        """Return the result of a method whose params are sent as this text, unparsed."""
        self._calls += 1
        request = f'{{"jsonrpc":"2.0","id":{self._calls},"method":"{method}","params":{params}}}\n'
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            line = self._lines.get(timeout=deadline_s)
        except (OSError, ValueError, queue.Empty) as problem:
            why = type(problem).__name__
            raise AssertionError(
                f"{self.name} does not answer {method} ({why})\n{self.output}"
            ) from None
        assert line is not None, f"{self.name} ended instead of answering {method}\n{self.output}"
        answer = json.loads(line)
        assert answer["id"] == self._calls, f"{self.name}: answer to another call: {line}"
        if error := answer.get("error"):
            raise RpcError(method, error["code"], error["message"])
        return answer.get("result")

    def kill(self) -> None:
        """Kill the process, as a power failure would."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Close the process's input, which makes it exit, and wait. May be called twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_diagnostics(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
