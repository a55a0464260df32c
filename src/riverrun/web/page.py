"""What a page is: its data, and how it is shown."""

from collections.abc import Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Table:
    """The rows of a page, for CSV.

    Attributes:
        columns: The names of the columns, which are attributes or keys of each row.
        rows: The rows.
    """

    columns: Sequence[str]
    rows: Sequence[Any]


@attrs.frozen(kw_only=True)
class Page:
    """A page.

    Attributes:
        name: The name of its template, of its JSON and of its words.
        title: Its title.
        data: Its data: an object of attrs, of which HTML and JSON are made.
        table: Its rows, if there is a CSV of it.
        refresh_s: Seconds after which a browser looks again; None for a page that stays.
        section: The entry of the menu under which it stands. Default: its name.
        view: What only its template needs, such as addresses.
    """

    name: str
    title: str
    data: Any
    table: Table | None = None
    refresh_s: float | None = None
    section: str | None = None
    view: dict[str, Any] = attrs.field(factory=dict)
