"""Jobs that an object owns: its deletion cancels those that wait."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapper

from riverrun.db.transactions import Transaction, Tx
from riverrun.errors import InvalidOption, InvalidRef
from riverrun.models import Job
from riverrun.orm.marks import Schemas, mark_of
from riverrun.orm.object_keys import base_of, mapper_of
from riverrun.orm.refs import Ref
from riverrun.queries import cancel as queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.chosen import Changed, change_chosen
from riverrun.verbs.referred import check_schema
from riverrun.verbs.unless_changed import existence_of

OWNER_KEY = "riverrun:owner"
"""The key of a job's metadata that has the mark of its owner's row."""


def owner_of(owner: object, schemas: Schemas) -> tuple[Mapper[Any], str, dict[str, Any]]:
    """Return an owner's mapper and mark, and what is stored with a job that needs it to exist.

    Args:
        owner: A mapped object, or a Ref.
        schemas: The `schema_translate_map` of the client's engine.

    Raises:
        InvalidOption: If it has no primary key yet, or workers would look for it in another schema.
    """
    try:
        key = Ref.to_json(owner, Ref)
    except InvalidRef as error:
        expected = f"an object with a primary key, not {error}"
        raise InvalidOption("owner", owner, expected) from None
    ref: Ref[Any] = owner if isinstance(owner, Ref) else Ref(owner)
    mapper = mapper_of(ref.entity)
    assert mapper is not None  # noqa: S101  a reference is to a mapped class
    identity = ref.key if isinstance(ref.key, tuple) else (ref.key,)
    if not isinstance(owner, Ref):
        check_schema("owner", owner, schemas)
    return mapper, mark_of(base_of(ref.entity), identity, schemas), existence_of(mapper, key)


def cancel_owned(
    tx: Tx, marks: Sequence[str], *, schema: str | None = None, now: datetime | None = None
) -> int:
    """Cancel the waiting jobs of owners by one statement; return how many.

    Args:
        tx: The transaction, as for `insert`.
        marks: The marks of the owners' rows.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
    """
    job = Job.in_schema(schema)
    owned = queries.contains_any(job, [{OWNER_KEY: mark} for mark in marks])
    which = chosen(job, [owned], queries.waits(job), schema=schema)

    def change(transaction: Transaction, params: dict[str, Any]) -> Changed:
        statement = queries.cancel_chosen(which, by_ids=bool(params))
        return Changed(count=len(transaction.execute(statement, {**params, "now": now}).all()))

    attributes = ("state", "finalized_at", "metadata_")
    return change_chosen(tx, which, change, dry_run=False, attributes=attributes).count
