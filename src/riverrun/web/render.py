"""Make HTML of pages: templates, their filters, and the files that a browser loads."""

import gzip
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from riverrun.clock import span_text
from riverrun.logs.text import printable, printable_lines
from riverrun.web.charts import bar
from riverrun.web.responses import Response
from riverrun.web.words import WORDS, plural

_HERE = Path(__file__).parent

# As an object, because a dict has attributes of its own, such as `keys`.
_WORDS = SimpleNamespace(**WORDS)

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

NONE = "\u2013"
"""What is shown where there is no value."""

BLOCK_MAX = 20_000
"""Longest block of text on a page, in characters. The rest can be downloaded."""


@attrs.frozen(kw_only=True)
class Asset:
    """A file that a browser loads and may keep for ever, because its name has its hash.

    Attributes:
        name: The name with the hash.
        body: The file.
        packed: The file, compressed.
        content_type: Its type.
    """

    name: str
    body: bytes
    packed: bytes
    content_type: str

    def response(self, accepted: str) -> Response:
        """Return the file for a browser that accepts the encodings `accepted`."""
        packed = "gzip" in accepted
        headers: tuple[tuple[str, str], ...] = (("Vary", "Accept-Encoding"),)
        if packed:
            headers = (*headers, ("Content-Encoding", "gzip"))
        return Response(
            body=self.packed if packed else self.body,
            content_type=self.content_type,
            headers=headers,
            immutable=True,
        )


@cache
def assets() -> Mapping[str, Asset]:
    """Return the files of `static/`, by their names without the hash."""
    found = {}
    for path in sorted((_HERE / "static").iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:12]
            found[path.name] = Asset(
                name=f"{path.stem}.{digest}{path.suffix}",
                body=body,
                packed=gzip.compress(body, mtime=0),
                content_type=_TYPES[path.suffix],
            )
    return found


@cache
def assets_by_name() -> Mapping[str, Asset]:
    """Return the files of `static/`, by their names with the hash."""
    return {asset.name: asset for asset in assets().values()}


@cache
def environment() -> Environment:
    """Return the templates' environment. Every value is escaped, and a missing one is an error."""
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters.update(
        block=block,
        fill=fill,
        line=line,
        num=num,
        size=size,
        span=span_text,
        took=took,
    )
    found.globals.update(BLOCK_MAX=BLOCK_MAX, bar=bar, moment=moment, none_sign=NONE, plural=plural)
    return found


def html(
    template: str, values: Mapping[str, Any], *, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    """Return a page made of a template."""
    text = environment().get_template(template).render(w=_WORDS, **values)
    # A half of a surrogate pair in a row must not break the page.
    return Response(body=text.encode("utf-8", "backslashreplace"), status=status)


def num(value: float | None) -> str:
    """Return a number with separators between thousands."""
    if value is None:
        return NONE
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def size(value: int) -> str:
    """Return a number of bytes as text."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= length:
            return f"{value / length:,.1f} {unit}"
    return f"{value} B"


def took(span_s: float | None) -> str:
    """Return how long something took as text, more exact than `span_text`."""
    if span_s is None:
        return NONE
    if span_s < 1:
        return f"{span_s * 1_000:.0f} ms"
    return f"{span_s:.1f} s" if span_s < 10 else span_text(span_s)


def fill(text: str, **values: object) -> str:
    """Return a text of the catalogue with its fields filled in."""
    return text.format(**values)


def line(value: object, limit: int = 200) -> str:
    """Return a value of a row as one line, without characters that change how others are shown."""
    return printable("" if value is None else value, limit)


def block(text: str) -> str:
    """Return a text of a row with its line breaks, without other control characters."""
    return printable_lines(text[:BLOCK_MAX].replace("\r\n", "\n"))


_EXACT = ' data-exact="1"'


def moment(value: datetime | None, now: datetime, *, exact: bool = False) -> Markup:
    """Return a time with how long ago it was, and the time itself beside it.

    Args:
        value: The time.
        now: The time of the page.
        exact: Whether to show milliseconds.
    """
    if value is None:
        return Markup('<span class="none">{}</span>').format(NONE)
    try:
        at = value.astimezone(UTC)
    except OverflowError:
        at = value
    passed_s = (now - at).total_seconds()
    text = f"{span_text(passed_s)} ago" if passed_s >= 0 else f"in {span_text(-passed_s)}"
    # By hand: strftime leaves out the zeros of years before 1000.
    date = f"{at.year:04}-{at.month:02}-{at.day:02}"
    clock = f"{at:%H:%M:%S}" + (f".{at.microsecond // 1_000:03}" if exact else "")
    shown = clock if at.date() == now.date() and not exact else f"{date} {clock}"
    # Not Markup.format, which takes 20 times as long: a list has a hundred times.
    return Markup(  # noqa: S704  nothing here is from a row but a time's numbers
        f'<time datetime="{at.isoformat()}" title="{date} {clock} UTC"><span class="rel">{text}'
        f'</span> <span class="abs"{_EXACT if exact else ""}>{shown}</span></time>'
    )
