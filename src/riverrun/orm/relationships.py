"""Relationships from a mapped class to the jobs whose args refer to its objects."""

from contextlib import suppress
from typing import Any, get_args

from sqlalchemy import ColumnElement, and_, cast, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapper, Relationship, foreign, relationship

from riverrun.errors import InvalidOption
from riverrun.jobs.json_types import shown_type
from riverrun.jobs.references import reference_class
from riverrun.models import Job
from riverrun.orm.expressions import joined_args
from riverrun.orm.fields import Field, Unfit, Unresolved, fields_of
from riverrun.orm.sql_json import Mismatch, column_json, key_json, members


def jobs_of(
    args_type: Any, field: str, *, schema: str | None = None, **options: Any
) -> Relationship[list[Job]]:
    """Return a relationship to the jobs of a kind whose args refer to the object.

        class Order(Base):
            ...
            receipts: Mapped[list[Job]] = jobs_of(SendReceipt, "order")

        Order.mails = jobs_of(SendReceipt, "order")  # on a class that is defined already

    It is view-only and sorted by id. Finished jobs are cleaned after a while, and are not in it any
    more. Loading it for one object is a lookup in river_job_args_index. Loading or joining it for
    many objects reads the jobs of the kind once, by river_job_kind.

    Args:
        args_type: A class of args that has a kind. Jobs of its kind_aliases are in it, too.
        field: The name of the field that holds the object's primary key: a bare value, or an array
            for a composite key.
        schema: The schema of River's tables. With a schema, the jobs are instances of
            `Job.in_schema(schema)`, which criteria must name. Default: the search path's.
        **options: Further options of `sqlalchemy.orm.relationship`, such as `lazy="raise"`.

    Raises:
        InvalidOption: If there is no such field. If the field does not fit the primary key, it is
            raised when the mappers are configured.
    """
    # The class of the objects is often defined after the args that refer to it.
    with suppress(Unresolved):
        _field(args_type, field)
    job = Job.in_schema(schema)
    of_kind = job.kind_is(args_type)

    def join() -> ColumnElement[bool]:
        named = _field(args_type, field)
        args: Any = foreign(job.args)
        return and_(of_kind, *joined_args(args, (named.key,), _key(relation.parent, named)))

    settings = {"order_by": job.id, "uselist": True, **options, "viewonly": True}
    relation: Relationship[list[Job]] = relationship(job, primaryjoin=join, **settings)
    return relation


def _field(args_type: Any, name: str) -> Field:
    try:
        found = fields_of(args_type)
    except Unresolved:
        raise
    except Unfit as error:
        raise InvalidOption("args_type", args_type, f"a class of args: {error}") from None
    if name not in found:
        raise InvalidOption("field", name, f"a field of {args_type.__name__}: {', '.join(found)}")
    return found[name]


def _key(mapper: Mapper[Any], field: Field) -> ColumnElement[Any]:
    """Return the primary key of a class as JSON, as `field` holds it."""
    columns, cls = mapper.primary_key, mapper.class_
    try:
        for member in members(field.annotation):
            if reference_class(member) is not None:
                entity = next(iter(get_args(member)), None)
                if isinstance(entity, type) and issubclass(cls, entity):
                    return key_json(columns, member).value
                raise Mismatch(f"it is {shown_type(member)}")  # noqa: TRY301
        if len(columns) == 1:
            return column_json(columns[0], field.annotation, pydantic=field.pydantic).value
        parts = (column_json(column, Any, pydantic=field.pydantic).value for column in columns)
        return cast(func.jsonb_build_array(*parts), JSONB)
    except Mismatch as error:
        expected = f"a field that holds the primary key of {cls.__name__}; {error}"
        raise InvalidOption("field", field.name, expected) from None
