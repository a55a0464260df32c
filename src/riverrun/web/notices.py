"""The text that a page shows once, about an action that was just done."""

from riverrun.web.request import Request
from riverrun.web.words import WORDS, plural


def notice_of(request: Request) -> str | None:
    """Return the text about the action that the query names; None if it names none."""
    done, count = request.one("done"), request.one("count") or ""
    if done is None or f"done_{done}" not in WORDS:
        return None
    number = int(count) if count.isascii() and count.isdigit() and len(count) < 12 else 0
    return plural(f"done_{done}" if number else "done_nothing", number)
