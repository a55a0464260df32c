"""Choose jobs by criteria: the part that statements over many jobs have in common."""

from collections.abc import Collection, Sequence
from typing import Any

import attrs
from sqlalchemy import (
    CTE,
    BigInteger,
    Cast,
    ColumnElement,
    Integer,
    Lateral,
    Select,
    SelectBase,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    inspect,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, ENUM
from sqlalchemy.orm import aliased
from sqlalchemy.schema import Column
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from riverrun.errors import InvalidOption
from riverrun.jobs.columns import JobStateType
from riverrun.models import Job
from riverrun.queries.expressions import in_mask

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@attrs.frozen(eq=False)
class Chosen:
    """Jobs for which criteria are true, and which may be changed.

    Attributes:
        job: The class of the jobs, with the schema of their table.
        criteria: Conditions over that class and the application's tables.
        legal: The condition for a job that may be changed, such as on its state.
        schema: The schema of the jobs' table; None for the search path's.
        unique: Whether the change makes jobs hold their unique keys. Then only one job of each key
            is chosen, and none whose key another job holds.
    """

    job: Any
    criteria: Sequence[ColumnElement[bool]]
    legal: ColumnElement[bool]
    schema: str | None
    unique: bool = False

    def locked(self, *, by_ids: bool, key_share: bool = True) -> CTE:
        """Return the ids, and lock the rows in the order of the ids. Waits for other locks.

        Args:
            by_ids: Whether to choose only among the jobs in bind `chosen_ids`.
            key_share: Whether other transactions may insert rows that refer to a locked job.
        """
        return (
            self._ids(by_ids=by_ids)
            .order_by(self.job.id)
            .with_for_update(of=self.job, key_share=key_share)
            .cte("chosen")
        )

    def count(self) -> Select[Any]:
        """Count the jobs. Locks nothing."""
        return select(func.count()).select_from(self._ids(by_ids=False).subquery())

    def page(self) -> Select[Any]:
        """Read the next ids after bind `after`, in order, up to bind `limit`."""
        # Order by an expression. By the column the planner would walk the primary key past all
        # final jobs.
        return (
            self._ids(by_ids=False)
            .where(self.job.id > bindparam("after", type_=BigInteger))
            .order_by(self.job.id + literal_column("0"))
            .limit(bindparam("limit", type_=Integer))
        )

    def _ids(self, *, by_ids: bool) -> Select[Any]:
        where = self._where(by_ids=by_ids)
        found = select(self.job.id).where(*where)
        if not self.unique:
            return found
        job, other = self.job, aliased(self.job)
        keyed = and_(job.unique_key.is_not(None), job.unique_states.is_not(None))
        place = func.row_number().over(
            partition_by=[job.unique_key, case((~keyed, job.id))],
            order_by=[_holds(job, self.schema).desc(), job.id.desc()],
        )
        ranked = select(job.id.label("id"), place.label("place")).where(*where).subquery("ranked")
        taken = exists().where(
            other.unique_key == job.unique_key,
            other.unique_key.is_not(None),
            _holds(other, self.schema),
            other.id != job.id,
        )
        return found.where(
            job.id.in_(select(ranked.c.id).where(ranked.c.place == 1)), or_(~keyed, ~taken)
        )

    def _where(self, *, by_ids: bool) -> list[ColumnElement[bool]]:
        where = [self.legal, *self.criteria]
        if by_ids:
            # Bound as text, so that the driver need not adapt each item.
            ids = cast(bindparam("chosen_ids", type_=Text), ARRAY(BigInteger))
            where.append(self.job.id == func.any(ids))
        return where


def _holds(job: Any, schema: str | None) -> ColumnElement[bool]:
    """Return the condition for a job that holds its unique key."""
    return and_(job.unique_states.is_not(None), in_mask(job.unique_states, job.state, schema))


def chosen(
    job: Any,
    criteria: Sequence[Any],
    legal: ColumnElement[bool],
    *,
    schema: str | None,
    unique: bool = False,
) -> Chosen:
    """Return the jobs of the class `job` for which criteria over `Job` are true.

    Conditions on other tables are put in an EXISTS, so that each job is chosen once.

    Raises:
        InvalidOption: If the criteria are not SQLAlchemy expressions, or none is about jobs.
    """
    if not criteria:
        raise InvalidOption("criteria", criteria, "at least one; true() for all jobs")
    clauses = [_checked(criterion) for criterion in criteria]
    joined = and_(*(adapted(clause, job) for clause in clauses))
    table = inspect(job).local_table
    tables = list(select(literal(1)).where(joined).get_final_froms())
    others = [other for other in tables if other is not table]
    if tables and len(others) == len(tables):
        names = ", ".join(_name_of(other) for other in tables)
        raise InvalidOption("criteria", names, "criteria that name Job, too, or all jobs are meant")
    if not tables and _stands_alone(and_(*clauses), {table, Job.__table__}):
        expected = "criteria that name Job outside of a subquery, too, or all jobs are meant"
        raise InvalidOption("criteria", "a subquery", expected)
    if any(isinstance(other, Lateral) for other in others):
        # Within the EXISTS it would see other rows of the table than the job's.
        raise InvalidOption("criteria", "a LATERAL", "a correlated subquery, such as exists()")
    if others:
        inner = select(literal(1)).select_from(*_inheriting(joined)).where(joined)
        joined = exists(inner.correlate(job))
    return Chosen(job, [joined], legal, schema, unique)


def _stands_alone(clause: Any, tables: Collection[Any]) -> bool:
    """Return whether `clause` has subqueries, none of which refers to a row of `tables` outside.

    It is true of all rows or of none. So is a relationship's any(): its jobs are its own.
    """
    if not any(isinstance(element, SelectBase) for element in iterate(clause)):
        return False
    alone = select(literal(1)).where(clause)
    # A subquery that refers to a row outside has no such table in its own FROM.
    statements = [alone, *map(alone.select_from, tables)]
    texts = [str(each.compile(dialect=_DIALECT)).partition("WHERE")[2] for each in statements]
    return len(set(texts)) == 1


def _inheriting(clause: Any) -> list[Any]:
    """Return the classes in `clause`, and their aliases, that share a table with their base class.

    Without the class in the FROM, nothing joins the tables of its columns, and no criterion chooses
    its rows from those of its base class. Subqueries have classes of their own.
    """
    found: dict[Any, None] = {}
    elements = [clause]
    while elements:
        element = elements.pop()
        if isinstance(element, SelectBase):
            continue
        entity = element._annotations.get("parententity")
        mapper = getattr(entity, "mapper", None)
        if mapper is not None and mapper.inherits is not None and not mapper.concrete:
            found[entity.entity] = None
        elements.extend(element.get_children())
    return list(found)


def _name_of(table: Any) -> str:
    # An alias has its name only in a statement.
    table = getattr(table, "element", table)
    return str(getattr(table, "name", table))


def _checked(criterion: Any) -> ColumnElement[bool]:
    expected = "SQLAlchemy criteria over Job, such as Job.kind_is(SendReceipt)"
    if criterion is None or isinstance(criterion, bool):
        raise InvalidOption("criteria", criterion, f"{expected}; true() for all jobs")
    try:
        clause: ColumnElement[bool] = coercions.expect(roles.WhereHavingRole, criterion)
    except Exception as error:
        raise InvalidOption("criteria", criterion, expected) from error
    return clause


def adapted(clause: Any, job: Any) -> Any:
    """Return `clause` with the columns of `Job`'s table replaced by those of the class `job`."""
    if job is Job:
        return clause
    table = inspect(job).local_table

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, Column) and _is_jobs(getattr(element, "table", None)):
            return table.c[element.name]
        if isinstance(element, Cast) and _is_state(element.type):
            # Its type is not an element that would be visited by itself.
            return cast(replacement_traverse(element.clause, {}, replace), table.c.state.type)
        if isinstance(element, BindParameter) and _is_state(element.type):
            changed = element._clone()
            changed.type = table.c.state.type
            return changed
        return table if _is_jobs(element) else None

    return replacement_traverse(clause, {}, replace)


def _is_state(sql_type: Any) -> bool:
    return (
        isinstance(sql_type, ENUM)
        and sql_type.name == JobStateType.name
        and sql_type.schema is None
    )


def _is_jobs(element: Any) -> bool:
    # An ORM entity is the annotated table, and has the table's hash.
    return (
        getattr(element, "__visit_name__", "") == "table"
        and element.name == Job.__tablename__
        and element.schema is None
        and hash(element) == hash(Job.__table__)
    )
