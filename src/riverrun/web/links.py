"""Links from the dashboard to other tools of the application."""

import string
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import attrs

from riverrun.errors import InvalidOption

FIELDS = frozenset({"job_id", "kind", "queue", "trace_id"})
"""What the address of a link may contain in braces."""


def _url(value: object) -> str:
    expected = (
        f"an address of http or https, or a path, with only {', '.join(sorted(FIELDS))} in braces"
    )
    if not isinstance(value, str):
        raise InvalidOption("url", value, expected)
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        scheme = urlsplit(value).scheme
    except ValueError:
        raise InvalidOption("url", value, expected) from None
    is_path = value.startswith("/") and not value.startswith("//")
    if not names <= FIELDS or not (is_path or scheme in {"http", "https"}):
        raise InvalidOption("url", value, expected)
    return value


@attrs.frozen
class Link:
    """A link to another tool, such as the one that keeps the application's traces.

        Link("Trace", "https://traces.example.com/trace/{trace_id}")

    Attributes:
        label: The link's text.
        url: The address. It may contain `{job_id}`, `{kind}`, `{queue}` and `{trace_id}`, the id
            of the trace in which the job was inserted; it is then shown on the page of each job
            that has all of them. Any other address is shown on all pages.

    Raises:
        InvalidOption: If the address is not one of http or https or a path, or has other fields.
    """

    label: str
    url: str = attrs.field(converter=_url)

    @property
    def is_of_jobs(self) -> bool:
        """Whether the address depends on a job."""
        return any(name for _, name, _, _ in string.Formatter().parse(self.url))

    def address(self, values: Mapping[str, str | None]) -> str | None:
        """Return the address for `values` of its fields; None if one of them is not known."""
        names = {name for _, name, _, _ in string.Formatter().parse(self.url) if name is not None}
        if any(values.get(name) is None for name in names):
            return None
        quoted = {name: quote(str(values[name]), safe="", errors="replace") for name in names}
        return self.url.format(**quoted)
