"""The Alembic plugin (Alembic 1.18 and newer): a host's autogenerate migrates our tables.

Alembic finds the plugin by its entry point; it needs no configuration:

- Autogenerate never proposes to create, alter or drop our tables, type, functions and triggers. The
  same holds for the plugins alembic-postgresql-enum and alembic_utils.
- `alembic revision --autogenerate` proposes `op.riverrun_migrate(...)` if the database has our
  tables at an older version than this release knows; `alembic check` then fails.
- The first install is proposed only if the host asks: `context.configure(..., riverrun=True)`, or
  `riverrun="jobs"` or `riverrun=["jobs_1", "jobs_2"]` for schemas that are not first on the search
  path. With several databases (`multidb`) this means the default one; `riverrun={"engine2": True}`
  names another.
- A host that names schemas gets no proposals for other schemas. With `riverrun=False` it gets none
  at all.

Switch the plugin off with `autogenerate_plugins=["alembic.autogenerate.*",
"~alembic.autogenerate.riverrun"]`. Hosts on older Alembic releases pass
`include_name=riverrun.migrations.include_name` to `context.configure`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any
from warnings import warn

# Alembic imports this module while it is only half imported itself, so do not import Alembic here.


class _Plugin(ModuleType):
    """The object at our entry point: a module; Alembic 1.18.0 to 1.19.1 iterate it instead."""

    def setup(self, plugin: Any) -> None:
        """Register `compare`, to run before Alembic looks at any table."""
        from alembic.util import DispatchPriority

        plugin.add_autogenerate_comparator(compare, "schema", priority=DispatchPriority.FIRST)

    def __iter__(self) -> Iterator[ModuleType]:
        yield self


plugin = _Plugin(__name__)


def compare(context: Any, upgrade_ops: Any, schemas: set[str | None]) -> None:
    """Hide our tables from autogenerate, and propose to migrate them if they are behind.

    Args:
        context: Alembic's AutogenContext.
        upgrade_ops: The operations of the new revision; our proposals are put first.
        schemas: The schemas that are compared; None stands for the search path's.
    """
    from riverrun.migrations import LATEST, Line, RiverrunMigrate, current

    if context.dialect.name != "postgresql":
        return
    _hide(context)
    wanted = _wanted(context.opts.get("riverrun"), _database(context.opts))
    named = [schema for schema in wanted if schema is not None]
    latest = (LATEST[Line.main], LATEST[Line.riverrun])
    ahead = []
    for schema in sorted(schemas | set(wanted), key=lambda name: name or ""):
        if context.opts.get("riverrun") is False or (named and schema not in wanted):
            continue  # Another Alembic environment migrates this schema.
        frm = (
            current(context.connection, Line.main, schema),
            current(context.connection, Line.riverrun, schema),
        )
        installed = frm[0] > 0 or schema in wanted
        if installed and (frm[0] < latest[0] or frm[1] < latest[1]):
            to = (max(frm[0], latest[0]), max(frm[1], latest[1]))
            ahead.append(RiverrunMigrate(*to, frm, schema))
    upgrade_ops.ops[:0] = ahead


def _hide(context: Any) -> None:
    from riverrun.migrations import include_name

    # Alembic has no public way for a plugin to filter names. If the private one goes away, hosts
    # can still pass include_name themselves.
    names = getattr(context, "_name_filters", None)
    objects = getattr(context, "_object_filters", None)
    if names is None or objects is None:
        advice = "pass include_name=riverrun.migrations.include_name to context.configure"
        warn(f"riverrun cannot hide its tables from this Alembic; {advice}", stacklevel=2)
        return
    _hide_enum(include_name)
    names.append(include_name)
    objects.append(lambda _, name, type_, *__: include_name(name, type_, {}))


def _hide_enum(include: Callable[[str, str, dict[str, Any]], bool]) -> None:
    """Hide our enum type from alembic-postgresql-enum, which has a filter of its own."""
    other = sys.modules.get("alembic_postgresql_enum.configuration")
    if other is None:
        return
    config = other.get_configuration()
    if not hasattr(config, "include_name"):  # added in alembic-postgresql-enum 1.5
        return
    hosts = config.include_name
    if getattr(hosts, "of_riverrun", False):
        return

    def include_enum(name: str) -> bool:
        return include(name, "enum", {}) and bool(hosts(name))

    include_enum.of_riverrun = True  # type: ignore[attr-defined]
    other.set_configuration(replace(config, include_name=include_enum))


def _database(opts: Mapping[str, Any]) -> str:
    """Return which database of a multidb environment is compared; "" for the default one."""
    # Source: Alembic 1.20 and Flask-Migrate 4.1, their templates "multidb".
    token: str = opts.get("upgrade_token") or "upgrades"
    return token.removesuffix("upgrades").removesuffix("_")


def _wanted(option: object, database: str) -> Sequence[str | None]:
    """Return the schemas in which the host's `riverrun=` option asks for the first install."""
    if isinstance(option, Mapping):
        option = option.get(database, None if database else option.get(None))
    elif database:
        return []
    match option:
        case None | False:
            return []
        case True:
            return [None]
        case str():
            return [option]
        case list() | tuple() | set():
            return list(option)
    expected = "True, a schema's name, a list of such, or a dict of these by database"
    raise TypeError(f"context.configure(riverrun={option!r}): expected {expected}")
