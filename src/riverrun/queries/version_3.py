"""The statement of `verbs.version_3`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import Select, Text, bindparam, func, select

from riverrun.models import Action


@lru_cache
def find_table() -> Select[Any]:
    """Read whether version 3 is there, in schema `schema_name` or on the search path."""
    # concat() ignores the null that results from a null schema.
    place = func.quote_ident(bindparam("schema_name", type_=Text)) + "."
    return select(func.to_regclass(func.concat(place, Action.__tablename__)).is_not(None))
