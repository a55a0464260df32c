"""`op.riverrun_migrate`: an Alembic operation that runs the migrations in a host's revision."""

import sys
from collections.abc import Sequence
from types import FrameType

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations

from riverrun.jobs.checks import check_schema
from riverrun.logs.loggers import logger_of
from riverrun.migrations.ddl import MigrationRefused, run
from riverrun.migrations.environments import guard_maker, made_by_another, sign
from riverrun.migrations.lines import LATEST, LINES_SINCE, Line, Step, check_version, steps
from riverrun.migrations.run import of_schema, path_to, take
from riverrun.migrations.state import current, guard, recorded, schema_of_tables

logger = logger_of(__name__)

_PRINTED = "riverrun_printed"
"""The option of Alembic's context with the versions, by schema, that the printed SQL leads to."""


@Operations.register_operation("riverrun_migrate")
class RiverrunMigrate(MigrateOperation):
    """The operation that migrates River's tables and riverrun's to given versions.

    Args:
        river: The version of River's line to end at.
        riverrun: The version of riverrun's line to end at.
        frm: The versions of both lines to start at; None to read them from the database.
        schema: The schema of the tables; None for the search path's.
    """

    def __init__(
        self, river: int, riverrun: int, frm: tuple[int, int] | None, schema: str | None
    ) -> None:
        self.river = check_version(Line.main, river)
        self.riverrun = check_version(Line.riverrun, riverrun)
        self.frm = frm
        self.schema = check_schema(schema)

    def reverse(self) -> "RiverrunMigrate":
        """Return the reverse operation, which autogenerate writes into `downgrade()`."""
        main, own = self.frm or (0, 0)
        return RiverrunMigrate(main, own, (self.river, self.riverrun), self.schema)

    def to_diff_tuple(
        self,
    ) -> tuple[str, tuple[int, int] | None, tuple[int, int], str | None]:
        """Return the tuple that `alembic check` prints for this operation."""
        return ("riverrun_migrate", self.frm, (self.river, self.riverrun), self.schema)

    @classmethod
    def riverrun_migrate(
        cls,
        operations: Operations,
        river: int = LATEST[Line.main],
        riverrun: int = LATEST[Line.riverrun],
        *,
        frm: tuple[int, int] | None = None,
        schema: str | None = None,
    ) -> None:
        """Migrate to `river` and `riverrun`, up or down; `(0, 0)` removes every table.

        Make it the first and only operation of its revision: on a database at version 2 or 3 of
        River's line, it commits once in between.

        Args:
            operations: Alembic's `op`.
            river: The version of River's line.
            riverrun: The version of riverrun's line.
            frm: The versions of both lines to start from; a database at other versions is refused.
                Default: the database's versions; then `upgrade()` takes no line down, `downgrade()`
                takes none up, and tables made by another Alembic environment stay as they are.
                Offline, the default is where the script printed so far has led; without that, `frm`
                is required.
            schema: The schema of the tables. Default: the search path's.

        Raises:
            MigrationRefused: If the lines cannot be at these versions together, if the database is
                not at `frm`, or if offline the start is not known.
        """
        operations.invoke(cls(river, riverrun, frm, schema))


@renderers.dispatch_for(RiverrunMigrate)
def _render(context: AutogenContext, operation: RiverrunMigrate) -> str:
    context.imports.add("import riverrun.migrations")
    # Write versions, not "the newest": a revision must not change with the installed release.
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    versions = f"{operation.river}, {operation.riverrun}, frm={operation.frm}"
    return f"op.riverrun_migrate({versions}{schema})"


@Operations.implementation_for(RiverrunMigrate)
def _migrate(operations: Operations, operation: RiverrunMigrate) -> None:
    to = (operation.river, operation.riverrun)
    if operation.riverrun and operation.river < LINES_SINCE:
        problem = (
            f"riverrun={operation.riverrun} needs river={LINES_SINCE} or later, not "
            f"{operation.river}"
        )
        raise MigrationRefused(problem)
    upgrade = _in_upgrade()
    if operations.get_context().as_sql:
        _print(operations, operation, to, upgrade)
        return
    connection = operations.get_bind()
    # As in `walk`: new tables go where the existing ones are, which need not be the first schema of
    # the search path.
    schema = schema_of_tables(connection) if operation.schema is None else operation.schema
    at = (
        current(connection, Line.main, schema),
        current(connection, Line.riverrun, schema),
    )
    if operation.frm not in (None, at):
        raise MigrationRefused(_elsewhere(operation, at))
    paths: list[Sequence[Step]] = []
    maker = made_by_another(connection, operations.get_context(), schema)
    for line, end in zip(Line, to, strict=True):
        highest = max(recorded(connection, line, schema), default=0)
        if operation.frm is None and _turns_round(upgrade, at, to, highest, end):
            logger.warning("line %s stays at %s, not %s", line, highest, end)
            continue
        if operation.frm is None and maker is not None and end < highest:
            logger.warning(
                "line %s stays at %s, not %s: the Alembic environment of %s made the tables; to "
                "take them down all the same, pass frm=%s to op.riverrun_migrate",
                line,
                highest,
                end,
                maker,
                at,
            )
            continue
        paths.append(path_to(connection, line, end, schema))
    _take(operations, paths, schema)


def _print(
    operations: Operations,
    operation: RiverrunMigrate,
    to: tuple[int, int],
    upgrade: bool | None,
) -> None:
    """Print a script that fails if the database is not at the versions the script starts from."""
    context, schema = operations.get_context(), operation.schema
    printed: dict[str | None, tuple[int, int]] = context.opts.setdefault(_PRINTED, {})
    frm = operation.frm or printed.get(schema)
    if frm is None and upgrade is not False and not context.get_current_heads():
        frm = (0, 0)  # The script starts at the chain's beginning.
    if frm is None:
        raise MigrationRefused(
            "offline (--sql) the database cannot be asked where it stands; pass "
            "frm=(RIVER, RIVERRUN) to op.riverrun_migrate, the versions it starts from"
        )
    paths: list[Sequence[Step]] = []
    for line, start, end in zip(Line, frm, to, strict=True):
        run(operations, schema, guard(line, start))
        if operation.frm is None and _turns_round(upgrade, frm, to, start, end):
            raise MigrationRefused(
                f"line {line} is at {start} here, and {'up' if upgrade else 'down'}grade() would "
                f"lead it to {end}; to do so all the same, pass frm={frm}"
            )
        paths.append(steps(line, start, end))
    if operation.frm is None and any(not step.up for path in paths for step in path):
        guard_maker(operations, schema)
    printed[schema] = to
    _take(operations, paths, schema)


def _take(operations: Operations, paths: list[Sequence[Step]], schema: str | None) -> None:
    # Going up, River's tables come first; going down, they are removed last.
    up = all(step.up for path in paths for step in path)
    for path in paths if up else reversed(paths):
        take(operations, path, schema)
    if any(Step(Line.riverrun, 1, True) in path for path in paths):
        sign(operations, schema)


def _in_upgrade() -> bool | None:
    """Return True within a revision's upgrade(), False within its downgrade(), else None.

    Alembic does not tell an operation which it is, so this looks at the callers' frames.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_name
        if "down_revision" in frame.f_globals and name.startswith(("upgrade", "downgrade")):
            return name.startswith("upgrade")
        frame = frame.f_back
    return None


def _turns_round(
    upgrade: bool | None, at: tuple[int, int], to: tuple[int, int], start: int, end: int
) -> bool:
    """Return whether a line would go down in an upgrade, or up in a downgrade.

    That is so if something else has led the database further. Removing everything in an upgrade, or
    creating everything in a downgrade, is taken as intended.
    """
    if upgrade:
        return end < start and to != (0, 0)
    return upgrade is False and end > start and at != (0, 0)


def _elsewhere(operation: RiverrunMigrate, at: tuple[int, int]) -> str:
    assert operation.frm is not None  # noqa: S101  the caller compared it
    behind = [
        f"`riverrun migrate up --line {line} --to {wanted}{of_schema(operation.schema)}`"
        for line, wanted, found in zip(Line, operation.frm, at, strict=True)
        if found < wanted
    ]
    advice = f"lead it there with {' and '.join(behind)}, or " if behind else ""
    where = "" if operation.schema is None else f" in schema {operation.schema!r}"
    return (
        f"the database{where} is at frm={at}, and this revision starts at frm={operation.frm}: "
        f"{advice}leave frm= out of its op.riverrun_migrate, which then starts where the database "
        "is"
    )
