"""Output of the commands: tables for people, JSON for machines."""

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from itertools import zip_longest
from typing import Any, Literal

import attrs
import click

from riverrun.clock import Clock, span_text
from riverrun.logs.text import printable

_LONGEST = 100_000
"""Longest value that is printed, in characters; `--json` prints all of it."""


_NAMES = {"kind", "name", "queue", "state"}
"""Columns whose values are wrapped and never cut, however narrow the terminal is."""


def show(
    rows: Iterable[Any], columns: Sequence[str], *, as_json: bool, nothing: str = "nothing"
) -> None:
    """Print objects as a table of some attributes, or each whole as one line of JSON.

    Args:
        rows: Objects of attrs classes, or mappings.
        columns: The attributes to show.
        as_json: Whether to print JSON.
        nothing: What to print in place of an empty table.
    """
    values = [row if isinstance(row, Mapping) else attrs.asdict(row, recurse=False) for row in rows]
    if as_json:
        for value in values:
            show_json(value)
        return
    if not values:
        click.echo(nothing)
        return
    _table(columns, [[text_of(value[column]) for column in columns] for value in values])


def show_one(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one mapping: a line per item, and per element of a list; or one line of JSON."""
    if as_json:
        show_json(value)
        return
    width = max(len(name) for name in value)
    for name, item in value.items():
        elements = (item or [None]) if isinstance(item, list) else [item]
        for label, element in zip_longest((name,), elements, fillvalue=""):
            click.echo(f"{label:<{width}}  {text_of(element)}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many of `what` are done; it prints only to a terminal."""
    shown = False

    def show_count(count: int) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            shown = True
            click.echo(f"\r{count:,} {what}", err=True, nl=False)

    try:
        yield show_count
    finally:
        if shown:
            click.echo(err=True)


def watched(every_s: float | None, *, clear: bool = True) -> Iterator[None]:
    """Yield once, or repeatedly until Ctrl-C.

    Args:
        every_s: Seconds between two turns; None for one turn only.
        clear: Whether to clear the screen before each turn but the first.
    """
    never = threading.Event()
    yield
    while every_s is not None:
        try:
            never.wait(every_s)
        except KeyboardInterrupt:
            return
        if clear:
            click.clear()
        yield


def show_json(value: object) -> None:
    """Print a value as one line of JSON."""
    text = json.dumps(value, default=_encoded)
    # A number with thousands of digits is read as infinity, which JSON cannot express.
    click.echo(json.dumps(json.loads(text, parse_constant=str)) if "Infinity" in text else text)


def ago(moment: datetime | None, clock: Clock | None = None) -> str:
    """Return how long ago `moment` was, or how far in the future it is, as text for people."""
    if moment is None:
        return "-"
    passed_s = ((clock or Clock()).now() - moment).total_seconds()
    count = span_text(passed_s)
    return f"{count} ago" if passed_s >= 0 else f"in {count}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table()
            for name in columns:
                # An id is one word to copy. A name that is cut could be another name, too.
                cut: Literal["fold", "ellipsis"] = "fold" if name in _NAMES else "ellipsis"
                table.add_column(name, no_wrap=name == "id", overflow=cut)
            for row in rows:
                # As Text, or rich would take brackets in a job's kind for markup.
                table.add_row(*map(Text, row))
            Console().print(table)
            return
    widths = [max(len(line[index]) for line in (columns, *rows)) for index in range(len(columns))]
    most = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in (columns, *rows):
        text = "  ".join(f"{value:<{width}}" for value, width in zip(line, widths, strict=True))
        click.echo(text.rstrip()[:most])


def text_of(value: object) -> str:
    """Return a value as text on one line, without characters that control a terminal."""
    match value:
        case None:
            return "-"
        case datetime():
            return ago(value)
        case bytes():
            return value.hex()
        case set() | frozenset():
            return " ".join(sorted(map(str, value)))
        case Mapping() | list() | tuple():
            return printable(
                json.dumps(value, default=_encoded, ensure_ascii=False), limit=_LONGEST
            )
        case float():
            return f"{value:.1f}"
    return printable(value, limit=_LONGEST)


def _encoded(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
        case bytes():
            return value.hex()
        case set() | frozenset() | tuple():
            return sorted(value)
        case Mapping():
            return dict(value)
    if attrs.has(type(value)):
        return attrs.asdict(value, recurse=False)  # type: ignore[arg-type]
    return str(value)
