"""Read the state of the tables: versions, sizes and indexes, and what keeps rows from vacuum."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.models import Base
from riverrun.queries import health as queries


@attrs.frozen(kw_only=True)
class LineVersion:
    """The version of a line of migrations.

    Attributes:
        line: `main`, River's, or `riverrun`.
        applied: The highest version that is there without a gap below; 0 for none.
        newest: The newest version that this release knows.
        missing: The versions up to `newest` that are not there.
    """

    line: str
    applied: int
    newest: int
    missing: Sequence[int]


@attrs.frozen(kw_only=True)
class TableHealth:
    """The state of a table.

    Attributes:
        name: The table's name, without its schema.
        table_bytes: Its size in bytes, with large values and without indexes.
        index_bytes: The size of all its indexes in bytes.
        live_rows: How many rows it has, as the server estimates.
        dead_rows: How many deleted or old rows are not vacuumed yet, as the server estimates.
        vacuumed_at: When it was vacuumed last, by hand or by the server; None if never.
        analyzed_at: When it was analyzed last, by hand or by the server; None if never.
    """

    name: str
    table_bytes: int
    index_bytes: int
    live_rows: int
    dead_rows: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None


@attrs.frozen(kw_only=True)
class IndexHealth:
    """The state of an index.

    Attributes:
        name: The index's name.
        table: The name of its table.
        bytes: Its size in bytes.
        valid: Whether queries can use it. One that was built concurrently, and whose build was cut
            off, is not valid; drop it.
        scans: How often it was used since the server's statistics were reset.
    """

    name: str
    table: str
    bytes: int
    valid: bool
    scans: int


@attrs.frozen(kw_only=True)
class OpenTransaction:
    """A transaction that is open. As long as it is, no row deleted since can be vacuumed.

    Attributes:
        age_s: Seconds since it began, or was prepared for a two-phase commit.
        pid: The id of its server process; None if it is prepared.
        name: The `application_name` of its connection, or the id of a prepared transaction.
        state: The state of its connection, such as `idle in transaction`, or `prepared`.
    """

    age_s: float
    pid: int | None
    name: str
    state: str


@attrs.frozen(kw_only=True)
class SchemaHealth:
    """The state of River's tables and riverrun's own.

    Attributes:
        lines: The versions of both lines.
        tables: The tables that are there, by name.
        indexes: Their indexes, by table and name.
        longest_transaction: The transaction that has been open longest in the database, apart from
            this one; None if there is no other, or if this role may not see any. It sees those of
            its own role; pg_read_all_stats lets it see all.
    """

    lines: Sequence[LineVersion]
    tables: Sequence[TableHealth]
    indexes: Sequence[IndexHealth]
    longest_transaction: OpenTransaction | None


@tried_again
def schema_health(tx: Tx, *, schema: str | None = None) -> SchemaHealth:
    """Return the state of the tables: versions, sizes, rows, indexes, and the oldest transaction.

    It reads only PostgreSQL's own tables and `river_migration`, and works if tables are missing.

    Args:
        tx: The transaction, as for `insert`.
        schema: The schema of River's tables. Default: the search path's.
    """
    # Imported here, because they load Alembic, which takes as long as everything else together.
    from riverrun.migrations import LATEST, Line
    from riverrun.migrations.ddl import prefix
    from riverrun.migrations.state import complete, versions

    params = {"names": [f"{prefix(schema)}{name}" for name in Base.metadata.tables]}
    with joined(tx, schema) as transaction:
        lines = []
        for line in Line:
            known = versions(transaction.connection, line, schema)
            lines.append(
                LineVersion(
                    line=line,
                    applied=complete(known),
                    newest=LATEST[line],
                    missing=sorted(set(range(1, LATEST[line] + 1)) - known),
                )
            )
        tables = transaction.execute(queries.list_tables(), params).all()
        indexes = transaction.execute(queries.list_indexes(), params).all()
        longest = transaction.execute(queries.longest_transaction(), {}).one_or_none()
    return SchemaHealth(
        lines=lines,
        tables=[TableHealth(**row._mapping) for row in tables],
        indexes=[IndexHealth(**row._mapping) for row in indexes],
        longest_transaction=None
        if longest is None
        else OpenTransaction(
            age_s=longest.age_s,
            pid=longest.pid,
            name=longest.name or "",
            state=longest.state or "",
        ),
    )
