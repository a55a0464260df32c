"""Methods that run River's migrations and empty its tables."""

from typing import Any

import attrs
from sqlalchemy import text
from sqlalchemy.schema import CreateSchema

from riverrun.migrations import LATEST, Line, current, migrate, validate
from riverrun.migrations.ddl import check_schema, prefix

from .protocol import REJECTED, Empty, Failure, method, named
from .state import State


@attrs.frozen(kw_only=True)
class Migrate:
    direction: str = "up"
    dry_run: bool = False
    max_steps: int | None = None
    schema: str = ""
    target_version: int = 0


@attrs.frozen(kw_only=True)
class Reset(Empty):
    schema: str = ""


@named("migrate")
def migrate_tables(state: State, params: Migrate) -> Any:
    state.check_idle()
    schema = check_schema(params.schema or None)
    if schema is not None and not schema.isidentifier():
        # riverrun accepts any name; the contract refuses one that River could not quote.
        raise Failure(REJECTED, f"schema {schema!r} is no identifier")
    if schema is not None:
        with state.engine.begin() as connection:
            connection.execute(CreateSchema(schema, if_not_exists=True))
    with state.engine.connect() as connection:
        at = current(connection, Line.main, schema)
    up = params.direction == "up"
    goal = max(params.target_version, 0)
    if params.target_version == 0:
        goal = LATEST[Line.main] if up else max(at - 1, 0)
    if params.max_steps is not None:
        goal = min(goal, at + params.max_steps) if up else max(goal, at - params.max_steps)
    applied = list(range(at + 1, goal + 1) if up else range(at, goal, -1))
    if applied and not params.dry_run:
        if not up:
            # riverrun's own tables depend on River's and are removed first; work and start migrate
            # them again.
            migrate(state.engine, line=Line.riverrun, to=0, schema=schema)
        taken = migrate(state.engine, line=Line.main, to=goal, schema=schema)
        applied = [step.version for step in taken]
    with state.engine.connect() as connection:
        existing = list(range(1, current(connection, Line.main, schema) + 1))
        missing = [each for each in validate(connection, schema) if each.line is Line.main]
    return {"applied": applied, "existing": existing, "valid": not missing}


@method
def reset(state: State, params: Reset) -> Any:
    state.check_idle()
    for barrier in state.barriers.values():
        barrier.set()
    state.barriers.clear()
    schema = check_schema(params.schema or None)
    tables = ["river_job", "river_leader", "river_notification", "river_queue"]
    with state.engine.begin() as connection:
        if current(connection, Line.riverrun, schema):
            tables += ["riverrun_client", "riverrun_periodic", "riverrun_sample", "riverrun_action"]
        names = ", ".join(prefix(schema) + table for table in tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
