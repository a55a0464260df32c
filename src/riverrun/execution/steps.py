"""Resumable steps: an attempt that follows a failed one skips the steps that are done.

Source of the rules and of the metadata's keys: River 0.51, resumable.go.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from riverrun.errors import InvalidStep
from riverrun.jobs.json_values import json_problem, json_size, json_text

STEP_KEY = "river:resumable_step"


CURSOR_KEY = "river:resumable_cursor"


MAX_CURSOR_BYTES = 4 * 1024 * 1024
"""Largest cursor of a step, as JSON."""


def may_resume(metadata: object) -> bool:
    """Return whether an earlier attempt may have left steps in a job's metadata."""
    return (
        bool(metadata)
        and isinstance(metadata, Mapping)
        and (STEP_KEY in metadata or CURSOR_KEY in metadata)
    )


class Steps:
    """The steps of one attempt, read from the metadata that the last attempt left.

    Raises:
        InvalidStep: If the cursors in the metadata are not an object.
    """

    def __init__(self, metadata: object) -> None:
        known = metadata if isinstance(metadata, Mapping) else {}
        last, cursors = known.get(STEP_KEY), known.get(CURSOR_KEY)
        if isinstance(cursors, list | tuple):
            raise InvalidStep(None, f"metadata {CURSOR_KEY!r} is a list; expected an object")
        self._last = last if isinstance(last, str) and last else None
        self._cursors: dict[str, Any] = dict(cursors) if isinstance(cursors, Mapping) else {}
        self._reached = self._last is None
        # Cursors without a completed step: the worker must come to each of their steps, or
        # half-done work would count as done.
        self._pending = set() if self._last else set(self._cursors)
        self._names: set[str] = set()
        self._active: str | None = None
        self._completed: str | None = None
        self._dirty = False
        self._failed: BaseException | None = None

    def run(self, name: str, function: Callable[[], object]) -> bool:
        """Run `function` unless an earlier attempt completed the step; return whether it ran."""
        if not self._begins(name):
            return False
        with self._within(name):
            function()
        return True

    async def run_async(self, name: str, function: Callable[[], Awaitable[object]]) -> bool:
        """As `run`, and await the end."""
        if not self._begins(name):
            return False
        with self._within(name):
            await function()
        return True

    def run_from(self, name: str, function: Callable[[Any], object]) -> bool:
        """Run `function` with the step's cursor, None at first, unless the step is completed."""
        if not self._begins_from(name):
            return False
        with self._within(name):
            function(self._cursors.get(name))
        self._forget_cursor(name)
        return True

    async def run_from_async(self, name: str, function: Callable[[Any], Awaitable[object]]) -> bool:
        """As `run_from`, and await the end."""
        if not self._begins_from(name):
            return False
        with self._within(name):
            await function(self._cursors.get(name))
        self._forget_cursor(name)
        return True

    def set_cursor(self, cursor: object) -> None:
        """Record how far the step is, for the attempt that follows if this one fails."""
        self._cursors[self._in_step()] = _json(cursor)
        self._dirty = True

    def checkpoint(self, cursor: object = None) -> dict[str, Any]:
        """Return the metadata that records the step as done, or how far it is.

        The caller writes it in its own transaction.
        """
        name = self._in_step()
        if self._pending:
            first = min(self._pending)
            raise InvalidStep(name, f"the step {first!r}, which has a cursor, must come before it")
        if cursor is not None:
            self._cursors[name] = _json(cursor)
        # The caller's transaction decides whether that is kept, so it is not staged as well.
        self._completed, self._dirty = None, False
        return {STEP_KEY: name, CURSOR_KEY: dict(self._cursors) or None}

    def progress(self) -> dict[str, Any]:
        """Return what to merge into the job's metadata when the attempt did not succeed."""
        if self._pending:
            return {}
        progress: dict[str, Any] = {}
        if self._dirty:
            progress[CURSOR_KEY] = dict(self._cursors) or None
        if self._completed is not None:
            progress[STEP_KEY] = self._completed
        return progress

    def unreached(self) -> InvalidStep | None:
        """Return an error if the attempt did not come to the step that it should have resumed."""
        if not self._reached and self._last is not None:
            return InvalidStep(
                self._last, "an earlier attempt completed it, but the worker has no such step"
            )
        if self._pending:
            return InvalidStep(
                min(self._pending),
                "an earlier attempt set its cursor, but the worker did not reach it",
            )
        return None

    def _register(self, name: str) -> None:
        if self._failed is not None:
            # A worker that caught the step's error must not go on as if the step were done.
            raise self._failed
        if not isinstance(name, str) or not name or json_problem(name):
            problem = "a step's name is a text of valid UTF-8 that is not empty and has no NUL"
            raise InvalidStep(name, problem)
        if self._active is not None:
            raise InvalidStep(name, f"it is within the step {self._active!r}; do not nest steps")
        if name in self._names:
            raise InvalidStep(None, f"duplicate resumable step {name!r}; each needs its own name")
        self._names.add(name)

    def _begins(self, name: str) -> bool:
        self._register(name)
        if name in self._pending:
            raise InvalidStep(
                name, "an earlier attempt set its cursor; run it with ctx.cursor_step"
            )
        if self._reached:
            return True
        self._meet(name)
        return False

    def _begins_from(self, name: str) -> bool:
        self._register(name)
        if not self._reached and not (self._meet(name) and name in self._cursors):
            return False
        self._pending.discard(name)
        return True

    def _meet(self, name: str) -> bool:
        self._reached = name == self._last
        if self._reached:
            self._completed = name
        return self._reached

    def _forget_cursor(self, name: str) -> None:
        if self._cursors.pop(name, None) is not None:
            self._dirty = True

    @contextmanager
    def _within(self, name: str) -> Iterator[None]:
        self._active = name
        try:
            yield
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self._active = None
        self._completed = name

    def _in_step(self) -> str:
        if self._active is None:
            raise InvalidStep(None, "set a cursor or a checkpoint only within a step")
        return self._active


def _json(cursor: object) -> object:
    if problem := json_problem(cursor):
        raise InvalidStep(None, f"its cursor cannot be kept as JSON: {problem}")
    if (size := json_size(json_text(cursor))) > MAX_CURSOR_BYTES:
        limit = f"{size:,} bytes of JSON, the limit is {MAX_CURSOR_BYTES:,}"
        raise InvalidStep(None, f"its cursor is too large: {limit}; keep a reference to it")
    return cursor
