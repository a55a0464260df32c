"""Users of the dashboard, and what each may do."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Self

import attrs

from riverrun.errors import InvalidOption


class Right(StrEnum):
    """What a user may do.

    `view`: see all pages. `view_args`: see args, outputs, metadata and logs. `retry`, `cancel` and
    `delete`: do that to jobs. `pause`: pause and resume queues and periodic jobs. `insert`: insert
    a copy of a job, and run a periodic job now.
    """

    view = "view"
    view_args = "view_args"
    retry = "retry"
    cancel = "cancel"
    delete = "delete"
    pause = "pause"
    insert = "insert"


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200 or "\x00" in value:
        raise InvalidOption("name", value, "a text of 1 to 200 characters without a NUL")
    return value


def _rights(value: object) -> frozenset[Right]:
    expected = f"a set of {', '.join(Right)}"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidOption("rights", value, expected)
    try:
        return frozenset(Right(right) for right in value)
    except ValueError:
        raise InvalidOption("rights", value, expected) from None


@attrs.frozen(kw_only=True)
class User:
    """A user of the dashboard.

    Attributes:
        name: The name with which actions are recorded.
        rights: What the user may do. Default: only `view`.

    Raises:
        InvalidOption: If the name is empty or too long, or a right is unknown.
    """

    name: str = attrs.field(converter=_name)
    rights: frozenset[Right] = attrs.field(default=frozenset({Right.view}), converter=_rights)

    @classmethod
    def all(cls, name: str) -> Self:
        """Return a user that has every right.

        Args:
            name: The name with which actions are recorded.
        """
        return cls(name=name, rights=frozenset(Right))

    def may(self, right: Right) -> bool:
        """Return whether the user has `right`."""
        return right in self.rights
