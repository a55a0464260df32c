"""`op.riverrun_migrate`: the migrations as one operation of a host's own revision."""

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations

from riverrun.migrations.lines import LATEST, Line, check_version, steps
from riverrun.migrations.run import MigrationRefused, apply, current
from riverrun.options import check_schema


@Operations.register_operation("riverrun_migrate")
class RiverrunMigrate(MigrateOperation):
    """Bring River's tables and riverrun's to given versions.

    Args:
        river: The version of River's line to end at.
        riverrun: The version of riverrun's line to end at.
        frm: The versions of both to start at; None to ask the database.
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
        """Return what leads back; autogenerate writes it into `downgrade()`."""
        main, own = self.frm or (0, 0)
        return RiverrunMigrate(main, own, (self.river, self.riverrun), self.schema)

    def to_diff_tuple(self) -> tuple[str, tuple[int, int] | None, tuple[int, int], str | None]:
        """Return what `alembic check` shows of it."""
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

        Let it stand first and alone in its revision: taking over a database at version 2 or 3 of
        River's line commits once in between.

        Args:
            operations: Alembic's `op`.
            river: The version of River's line.
            riverrun: The version of riverrun's line.
            frm: The versions of both from which to start; asked of the database unless said, and
                so needed only in offline mode, where the default is `(0, 0)`.
            schema: The schema of the tables; the search path's unless said.

        Raises:
            MigrationRefused: If the lines cannot be had at these versions together.
        """
        operations.invoke(cls(river, riverrun, frm, schema))


@renderers.dispatch_for(RiverrunMigrate)
def _render(context: AutogenContext, operation: RiverrunMigrate) -> str:
    context.imports.add("import riverrun.migrations")
    # Versions, not "the newest": what a revision does must not change with the library.
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    versions = f"{operation.river}, {operation.riverrun}, frm={operation.frm}"
    return f"op.riverrun_migrate({versions}{schema})"


@Operations.implementation_for(RiverrunMigrate)
def _migrate(operations: Operations, operation: RiverrunMigrate) -> None:
    schema = operation.schema
    if operation.frm is not None:
        main, own = operation.frm
    elif operations.get_context().as_sql:
        main, own = 0, 0
    else:
        connection = operations.get_bind()
        main = current(connection, Line.main, schema)
        own = current(connection, Line.riverrun, schema)
    if operation.riverrun and operation.river < 5:
        problem = f"riverrun={operation.riverrun} needs river=5 or later, not {operation.river}"
        raise MigrationRefused(problem)
    river_steps = steps(Line.main, main, operation.river)
    own_steps = steps(Line.riverrun, own, operation.riverrun)
    # Up, River's tables come first; down, they go last.
    down_first = operation.riverrun < own
    for step in [*own_steps, *river_steps] if down_first else [*river_steps, *own_steps]:
        apply(operations, step, schema)
