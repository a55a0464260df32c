"""Hide values of jobs before they leave the server."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from riverrun.jobs.listing import JobBrief
from riverrun.jobs.row import JobRow
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of

logger = logger_of(__name__)

HIDDEN = "(hidden)"

DEPTH_MAX = 100


class Redact(Protocol):
    """A function that decides what may be shown of a job."""

    def __call__(self, job: Any, path: tuple[str | int, ...], value: Any, /) -> Any:
        """Return what may be shown in place of `value`.

        It is called with whole objects and lists first, and then with each value in what it has
        returned. If it raises, the value is hidden.

        Args:
            job: The JobRow, JobBrief or FailureGroup to which the value belongs.
            path: Where the value is. The first item is "args", "output", "metadata", "log",
                "error" or "trace"; keys and positions follow.
            value: The value, as JSON has it.
        """
        ...


class Redaction:
    """Applies the application's `redact`, if there is one.

    Args:
        redact: The function; None shows everything.
    """

    def __init__(self, redact: Redact | None) -> None:
        self._redact = redact

    @property
    def is_active(self) -> bool:
        """Whether there is a function that may hide values."""
        return self._redact is not None

    def value(self, job: Any, path: tuple[str | int, ...], value: Any) -> Any:
        """Return what may be shown of a JSON value."""
        if self._redact is None:
            return value
        try:
            return self._redacted(job, path, value)
        except Exception as error:
            log_error(logger, error, "redact failed, so a value is hidden")
            return HIDDEN

    def text(self, job: Any, name: str, text: str) -> str:
        """Return what may be shown of a text, such as an error's."""
        shown = self.value(job, (name,), text)
        return shown if isinstance(shown, str) else HIDDEN

    def brief_args(self, job: JobBrief) -> str | None:
        """Return what may be shown of the beginning of a job's args, as JSON text."""
        if self._redact is None or job.args is None:
            return job.args
        try:
            value = json.loads(job.args)
        except (ValueError, RecursionError):
            return HIDDEN  # the text is cut, so its values have no path
        return json.dumps(self.value(job, ("args",), value), ensure_ascii=False, default=str)

    def _redacted(self, job: JobRow | JobBrief, path: tuple[str | int, ...], value: Any) -> Any:
        assert self._redact is not None  # noqa: S101  only called with one
        shown = self._redact(job, path, value)
        if len(path) > DEPTH_MAX:
            return HIDDEN if isinstance(shown, Mapping | list | tuple) else shown
        match shown:
            case Mapping():
                return {key: self._redacted(job, (*path, key), item) for key, item in shown.items()}
            case list() | tuple():
                return [self._redacted(job, (*path, at), item) for at, item in enumerate(shown)]
        return shown
