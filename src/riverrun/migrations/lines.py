"""The two lines of migrations, and the steps between their versions."""

from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from typing import Protocol, cast

import attrs
from alembic.operations import Operations

from riverrun.errors import InvalidOption


class Line(StrEnum):
    """A line of migrations, as `river_migration.line` names it."""

    main = "main"
    riverrun = "riverrun"


LATEST = {Line.main: 8, Line.riverrun: 3}
"""The newest version of each line that this release knows."""

MAKES = {
    (Line.main, 2): ("river_job", "river_leader"),
    (Line.main, 4): ("river_queue",),
    (Line.main, 7): ("river_notification",),
    (Line.riverrun, 1): ("riverrun_client",),
    (Line.riverrun, 2): ("riverrun_periodic",),
    (Line.riverrun, 3): ("riverrun_action", "riverrun_sample"),
}
"""The tables that a version creates and no later version drops."""

OPTIONAL = frozenset({(Line.riverrun, 3)})
"""The versions without which everything but their own features works."""

LINES_SINCE = 5
"""The version of `main` that adds the column `line` to river_migration."""


class _Version(Protocol):
    def upgrade(self, op: Operations, schema: str | None) -> None: ...

    def downgrade(self, op: Operations, schema: str | None) -> None: ...


@attrs.frozen
class Step:
    """One version of one line, up or down.

    Attributes:
        line: The line.
        version: The version that the step creates or removes.
        up: Whether the step creates it.
    """

    line: Line
    version: int
    up: bool

    def run(self, op: Operations, schema: str | None) -> None:
        """Change `schema` with Alembic's `op`. The caller records the step in river_migration."""
        package = "river" if self.line is Line.main else "riverrun"
        name = f"riverrun.migrations.{package}.v{self.version:03}"
        module = cast("_Version", import_module(name))
        (module.upgrade if self.up else module.downgrade)(op, schema)


def check_version(line: Line, version: int) -> int:
    """Return `version` if this release knows it.

    Raises:
        InvalidOption: If it does not.
    """
    if type(version) is not int or not 0 <= version <= LATEST[line]:
        raise InvalidOption(f"version of line {line}", version, f"0 to {LATEST[line]}")
    return version


def steps(line: Line, frm: int, to: int) -> Sequence[Step]:
    """Return the steps of `line` from version `frm` to version `to`, in order."""
    if to >= frm:
        return [Step(line, version, True) for version in range(frm + 1, to + 1)]
    return [Step(line, version, False) for version in range(frm, to, -1)]
