"""The statements of `verbs.health`: PostgreSQL's own tables about ours."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    null,
    select,
    table,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, OID

from riverrun.jobs.columns import Timestamp
from riverrun.queries.expressions import readable


def _catalog(name: str, *columns: str) -> Any:
    return table(name, *map(column, columns), schema="pg_catalog")


_RELATIONS = _catalog("pg_class", "oid", "relname")
_TABLES = _catalog(
    "pg_stat_all_tables",
    "relid",
    "n_live_tup",
    "n_dead_tup",
    "last_vacuum",
    "last_autovacuum",
    "last_analyze",
    "last_autoanalyze",
)
_INDEXES = _catalog("pg_index", "indexrelid", "indrelid", "indisvalid", "indisready")
_INDEX_SCANS = _catalog("pg_stat_all_indexes", "indexrelid", "idx_scan")
_ACTIVITY = _catalog(
    "pg_stat_activity",
    "pid",
    "datname",
    "backend_type",
    "xact_start",
    "application_name",
    "state",
)
_PREPARED = _catalog("pg_prepared_xacts", "gid", "database", "prepared")


def _ours() -> Any:
    """Return the tables of bind `names`, which may have a schema and quotes, as rows with `oid`."""
    names = func.unnest(bindparam("names", type_=ARRAY(Text))).column_valued("name")
    found = cast(func.to_regclass(names), OID).label("oid")
    return select(found).subquery("ours")


@lru_cache
def list_tables() -> Select[Any]:
    """Read the sizes, rows and last maintenance of the tables of bind `names` that exist."""
    ours = _ours()
    vacuumed = func.greatest(_TABLES.c.last_vacuum, _TABLES.c.last_autovacuum, type_=Timestamp)
    analyzed = func.greatest(_TABLES.c.last_analyze, _TABLES.c.last_autoanalyze, type_=Timestamp)
    return (
        select(
            cast(_RELATIONS.c.relname, Text).label("name"),
            func.pg_table_size(_RELATIONS.c.oid).label("table_bytes"),
            func.pg_indexes_size(_RELATIONS.c.oid).label("index_bytes"),
            func.coalesce(_TABLES.c.n_live_tup, 0, type_=BigInteger).label("live_rows"),
            func.coalesce(_TABLES.c.n_dead_tup, 0, type_=BigInteger).label("dead_rows"),
            readable(vacuumed).label("vacuumed_at"),
            readable(analyzed).label("analyzed_at"),
        )
        .select_from(ours)
        .join(_RELATIONS, _RELATIONS.c.oid == ours.c.oid)
        .outerjoin(_TABLES, _TABLES.c.relid == ours.c.oid)
        .order_by(_RELATIONS.c.relname)
    )


@lru_cache
def list_indexes() -> Select[Any]:
    """Read the indexes of the tables of bind `names`."""
    ours = _ours()
    of = _RELATIONS.alias("of")
    return (
        select(
            cast(_RELATIONS.c.relname, Text).label("name"),
            cast(of.c.relname, Text).label("table"),
            func.pg_relation_size(_RELATIONS.c.oid).label("bytes"),
            (_INDEXES.c.indisvalid & _INDEXES.c.indisready).label("valid"),
            func.coalesce(_INDEX_SCANS.c.idx_scan, 0, type_=BigInteger).label("scans"),
        )
        .select_from(ours)
        .join(_INDEXES, _INDEXES.c.indrelid == ours.c.oid)
        .join(_RELATIONS, _RELATIONS.c.oid == _INDEXES.c.indexrelid)
        .join(of, of.c.oid == ours.c.oid)
        .outerjoin(_INDEX_SCANS, _INDEX_SCANS.c.indexrelid == _INDEXES.c.indexrelid)
        .order_by(of.c.relname, _RELATIONS.c.relname)
    )


@lru_cache
def longest_transaction() -> Select[Any]:
    """Read which transaction of this database has been open longest, apart from this one.

    A transaction prepared for a two-phase commit counts from when it was prepared.
    """
    here = func.current_database()
    active = select(
        _ACTIVITY.c.pid.label("pid"),
        cast(_ACTIVITY.c.application_name, Text).label("name"),
        cast(_ACTIVITY.c.state, Text).label("state"),
        _ACTIVITY.c.xact_start.label("began"),
    ).where(
        _ACTIVITY.c.datname == here,
        # Not the server's own, such as autovacuum's, which keep no row from being vacuumed.
        _ACTIVITY.c.backend_type == "client backend",
        _ACTIVITY.c.pid != func.pg_backend_pid(),
        _ACTIVITY.c.xact_start.is_not(None),
    )
    prepared = select(
        cast(null(), Integer).label("pid"),
        cast(_PREPARED.c.gid, Text).label("name"),
        literal_column("'prepared'", Text).label("state"),
        _PREPARED.c.prepared.label("began"),
    ).where(_PREPARED.c.database == here)
    found = union_all(active, prepared).subquery("transactions")
    age = cast(func.extract("epoch", func.clock_timestamp() - found.c.began), Float)
    return (
        select(found.c.pid, found.c.name, found.c.state, age.label("age_s"))
        .order_by(found.c.began)
        .limit(1)
    )
