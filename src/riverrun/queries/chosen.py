"""Which jobs criteria choose: the part that statements over many jobs have in common."""

from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
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
from sqlalchemy.dialects.postgresql import ARRAY, ENUM
from sqlalchemy.orm import aliased
from sqlalchemy.schema import Column
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.elements import BindParameter, TypeClause
from sqlalchemy.sql.visitors import replacement_traverse

from riverrun.errors import InvalidOption
from riverrun.jobs.columns import JobStateType
from riverrun.models import Job
from riverrun.queries.expressions import in_mask


@attrs.frozen(eq=False)
class Chosen:
    """Jobs in certain states that criteria are true of.

    Attributes:
        job: The class of the jobs, with the schema of their table.
        criteria: What is true of them, over that class and the tables of the host.
        legal: In which states, or at which times, they may be changed.
        schema: The schema of the jobs' table; None for the search path's.
        unique: Whether they become jobs that hold their unique keys, so that each key may be
            chosen once, and none that another job holds.
    """

    job: Any
    criteria: Sequence[ColumnElement[bool]]
    legal: ColumnElement[bool]
    schema: str | None
    unique: bool = False

    def locked(self, *, by_ids: bool, key_share: bool = True) -> CTE:
        """Return the ids, and lock the rows in their order; waits for others' locks.

        Args:
            by_ids: Whether only the jobs in bind `chosen_ids` are meant.
            key_share: Whether rows of the host that refer to a job may be inserted meanwhile.
        """
        return (
            self._ids(by_ids=by_ids)
            .order_by(self.job.id)
            .with_for_update(of=self.job, key_share=key_share)
            .cte("chosen")
        )

    def count(self) -> Select[Any]:
        """Count them; locks nothing."""
        return select(func.count()).select_from(self._ids(by_ids=False).subquery())

    def page(self) -> Select[Any]:
        """Read the first ids after bind `after`, up to bind `limit`, in their order."""
        # By an expression, or the planner walks the primary key past all that is final.
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
            # As text, which needs no adapting item by item.
            ids = cast(bindparam("chosen_ids", type_=Text), ARRAY(BigInteger))
            where.append(self.job.id == func.any(ids))
        return where


def _holds(job: Any, schema: str | None) -> ColumnElement[bool]:
    """Return whether a job holds its unique key."""
    return and_(job.unique_states.is_not(None), in_mask(job.unique_states, job.state, schema))


def chosen(
    job: Any,
    criteria: Sequence[Any],
    legal: ColumnElement[bool],
    *,
    schema: str | None,
    unique: bool = False,
) -> Chosen:
    """Return which jobs of the class `job` criteria over `Job` choose.

    What they say of other tables is asked in an EXISTS, so that a job counts once.

    Raises:
        InvalidOption: If they are no SQLAlchemy criteria, or name no job.
    """
    if not criteria:
        raise InvalidOption("criteria", criteria, "at least one; true() for all jobs")
    joined = and_(*(adapted(_checked(each), job) for each in criteria))
    table = inspect(job).local_table
    others = list(select(literal(1)).where(joined).get_final_froms())
    mentioned = [each for each in others if each is not table]
    if others and len(mentioned) == len(others):
        names = ", ".join(str(getattr(each, "name", each)) for each in others)
        raise InvalidOption("criteria", names, "criteria that name Job, too, or all jobs are meant")
    if mentioned:
        joined = exists(select(literal(1)).where(joined).correlate(job))
    return Chosen(job, [joined], legal, schema, unique)


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
        if isinstance(element, BindParameter | TypeClause) and _is_state(element.type):
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
    # An entity of the ORM's is the table, annotated; it has the hash of the table itself.
    return (
        getattr(element, "__visit_name__", "") == "table"
        and element.name == Job.__tablename__
        and element.schema is None
        and hash(element) == hash(Job.__table__)
    )
