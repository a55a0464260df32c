"""Tracebacks that show the application's frames, with runs of library frames folded to a line."""

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_FRAME = re.compile(r'  File "(?P<path>[^"]*)", line \d+')


_PACKAGE = re.compile(r"/(?:site|dist)-packages/(?P<name>[^/]+)")


_OWN = str(Path(__file__).parents[1]) + "/"


_CAUSES_MAX = 10


_FRAMES_MAX = 30


_STDLIB = sysconfig.get_path("stdlib") + "/"


def folded(trace: str) -> str:
    """Return a traceback's text with each run of library frames folded to one line.

    The frames before the application's first one are left out. The last frame stays even if it is
    a library's, because the error was raised there.

    Args:
        trace: A text as Python's `traceback` module writes it, for one exception or for a chain.
    """
    lines: list[str] = []
    for block in _blocks(trace.splitlines()):
        lines.extend(_folded_block(block))
    return "\n".join(lines)


def trace_of(error: BaseException) -> str:
    """Return an error's traceback as text; only its frames if the error's own text raises."""
    try:
        return "".join(traceback.format_exception(error, limit=-50))
    except BaseException:  # the application's __str__ may raise anything
        return "".join(traceback.format_tb(error.__traceback__, limit=-50))


def place_of(error: BaseException) -> str:
    """Return the application's innermost frame in an error's traceback, as `jobs.py:20 in send`.

    An error's own `log_place` takes precedence, such as the fields of args that do not fit. The
    text is empty if no frame is the application's.
    """
    if isinstance(own := getattr(error, "log_place", None), str):
        return own
    places = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _library_at(frame.f_code.co_filename) is None
    ]
    if not places:
        return ""
    code, line = places[-1]
    return f"{Path(code.co_filename).name}:{line} in {code.co_name}"


def outline(error: BaseException) -> str:
    """Return the classes and frames of an error and its causes, one per line, without their texts.

    An exception's text may hold values that belong in a row and not in a log.
    """
    lines: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen and len(seen) < _CAUSES_MAX:
        seen.add(id(cause))
        lines.append(type(cause).__name__ if cause is error else f"from {type(cause).__name__}")
        frames = list(traceback.walk_tb(cause.__traceback__))[-_FRAMES_MAX:]
        lines += [
            f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
            for frame, line in frames
        ]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines)


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield the lines of each exception's traceback, with the text before and after it."""
    block: list[str] = []
    for line in lines:
        if "Traceback (most recent call last):" in line and block:
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _folded_block(lines: list[str]) -> list[str]:
    starts = [index for index, line in enumerate(lines) if _FRAME.match(line)]
    if not starts:
        return lines
    end = starts[-1] + 1
    while end < len(lines) and lines[end].startswith("    "):
        end += 1
    frames = [lines[start:stop] for start, stop in zip(starts, [*starts[1:], end], strict=True)]
    result = lines[: starts[0]]
    run: list[str] = []
    seen_application = False
    for number, frame in enumerate(frames):
        library = _library(frame[0])
        last = number == len(frames) - 1
        if library is not None and not last:
            run.append(library)
            continue
        if seen_application or library is not None:
            result.extend(_counted(run))
        run = []
        result.extend(frame)
        seen_application = seen_application or library is None
    return [*result, *lines[end:]]


def _counted(run: list[str]) -> list[str]:
    if not run:
        return []
    frames = f"{len(run)} frame{'' if len(run) == 1 else 's'}"
    return [f"  ... {frames} in {', '.join(dict.fromkeys(run))}"]


def _library(line: str) -> str | None:
    """Return the library that a frame's first line names; None for the application's own."""
    match = _FRAME.match(line)
    return _library_at(match["path"]) if match else None


def _library_at(path: str) -> str | None:
    if path.startswith(_OWN):
        return "riverrun"
    if package := _PACKAGE.search(path):
        return package["name"].removesuffix(".py")
    if path.startswith((_STDLIB, "<frozen")):
        return "Python"
    return None
