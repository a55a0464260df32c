"""The Alembic plugin (Alembic 1.18 and newer): a host's autogenerate knows our tables.

Found by its entry point, it needs no configuration:

- our tables, type, functions and triggers are never dropped, compared or made by what autogenerate
  proposes, its own or that of other plugins (alembic-postgresql-enum, alembic_utils);
- `alembic revision --autogenerate` proposes `op.riverrun_migrate(...)` when the database has our
  tables at older versions than this release knows, and `alembic check` fails for it;
- it proposes the first install to a host that asks: `context.configure(..., riverrun=True)`, or,
  for schemas other than the search path's, `riverrun="jobs"` or `riverrun=["jobs_1", "jobs_2"]`.
  In an environment of several databases (`multidb`) that is the default one, and
  `riverrun={"engine2": True}` names another;
- a host that names schemas is proposed nothing for others; with `riverrun=False`, nothing at all.

It is switched off with `autogenerate_plugins=["alembic.autogenerate.*",
"~alembic.autogenerate.riverrun"]`. Hosts on older releases pass
`include_name=riverrun.migrations.include_name` to `context.configure`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any
from warnings import warn

# While this is imported Alembic is half imported itself, and must not be asked for anything.


class _Plugin(ModuleType):
    """What Alembic sets up. Alembic 1.18.0 to 1.19.1 iterate it, where later ones take a module."""

    def setup(self, plugin: Any) -> None:
        """Take part in comparing, before any table is looked at."""
        from alembic.util import DispatchPriority

        plugin.add_autogenerate_comparator(compare, "schema", priority=DispatchPriority.FIRST)

    def __iter__(self) -> Iterator[ModuleType]:
        yield self


plugin = _Plugin(__name__)


def compare(context: Any, upgrade_ops: Any, schemas: set[str | None]) -> None:
    """Hide our tables from autogenerate, and propose to migrate them if that is due.

    Args:
        context: Alembic's AutogenContext.
        upgrade_ops: What the revision will do; what we propose comes first in it.
        schemas: The schemas compared, None for the search path's.
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
            continue  # another environment's
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

    # Alembic has no public way for a plugin to filter; were its own gone, a host still has one.
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
    """Hide our type from alembic-postgresql-enum, which has a filter of its own."""
    other = sys.modules.get("alembic_postgresql_enum.configuration")
    if other is None:
        return
    config = other.get_configuration()
    if not hasattr(config, "include_name"):  # it has one since 1.5
        return
    hosts = config.include_name
    if getattr(hosts, "of_riverrun", False):
        return

    def include_enum(name: str) -> bool:
        return include(name, "enum", {}) and bool(hosts(name))

    include_enum.of_riverrun = True  # type: ignore[attr-defined]
    other.set_configuration(replace(config, include_name=include_enum))


def _database(opts: Mapping[str, Any]) -> str:
    """Return the name of the database in an environment of several; "" for the default one."""
    # Source: Alembic 1.20 and Flask-Migrate 4.1, their templates "multidb".
    token: str = opts.get("upgrade_token") or "upgrades"
    return token.removesuffix("upgrades").removesuffix("_")


def _wanted(said: object, database: str) -> Sequence[str | None]:
    """Return the schemas in which the host wants the first install."""
    if isinstance(said, Mapping):
        said = said.get(database, None if database else said.get(None))
    elif database:
        return []
    match said:
        case None | False:
            return []
        case True:
            return [None]
        case str():
            return [said]
        case list() | tuple() | set():
            return list(said)
    expected = "True, a schema's name, a list of such, or a dict of these by database"
    raise TypeError(f"context.configure(riverrun={said!r}): expected {expected}")
