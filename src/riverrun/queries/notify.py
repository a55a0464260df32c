"""The statements of `verbs.notify`, and those that find River's tables and channels."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    select,
    table,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.models import Job

CHANNEL_MAX = 63
"""Longest name of a channel in PostgreSQL, in bytes."""


@lru_cache
def schema_of_tables() -> Select[Any]:
    """Read the schema of River's tables: bind `schema`, or the one that the search path finds."""
    return select(_place())


@lru_cache
def channels() -> Select[Any]:
    """Read the channels for bind `topics`, an array of text, each with its topic.

    If the first schema of the search path is not that of the tables, each topic has two channels:
    River's clients name theirs by the first schema.
    """
    topics = (
        func.unnest(bindparam("topics", type_=ARRAY(Text)))
        .table_valued(column("topic", Text))
        .render_derived(name="topics")
    )
    places = _places()
    channel = _channel(places.c.place, topics.c.topic)
    return select(channel, topics.c.topic).select_from(topics).join(places, true())


@lru_cache
def notify() -> Select[Any]:
    """Send `payloads`, an array of text, on the channels of `topic` when the transaction commits.

    See `channels`.
    """
    payloads = (
        func.unnest(bindparam("payloads", type_=ARRAY(Text)))
        .table_valued(column("payload", Text))
        .render_derived(name="payloads")
    )
    places = _places()
    channel = _channel(places.c.place, bindparam("topic", type_=Text))
    sent = func.pg_notify(channel, payloads.c.payload)
    return select(sent).select_from(payloads).join(places, true())


def _place() -> ColumnElement[str]:
    tables = table("pg_class", column("oid"), column("relnamespace"), schema="pg_catalog")
    schemas = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
    found = (
        select(cast(schemas.c.nspname, Text))
        .join_from(tables, schemas, schemas.c.oid == tables.c.relnamespace)
        .where(tables.c.oid == func.to_regclass(Job.__tablename__))
        .scalar_subquery()
    )
    return func.coalesce(cast(bindparam("schema"), Text), found, func.current_schema())


def _places() -> Any:
    first = func.coalesce(cast(bindparam("schema"), Text), func.current_schema())
    each = union(
        select(_place().label("place")), select(cast(first, Text).label("place"))
    ).subquery("each")
    return select(each.c.place).where(each.c.place.is_not(None)).subquery("places")


def _channel(place: ColumnElement[Any], topic: ColumnElement[Any]) -> ColumnElement[str]:
    named = func.concat(place, ".", topic)
    # PostgreSQL refuses longer names. There are no clients of River, which refuses such a schema.
    digest = func.encode(func.sha256(func.convert_to(place, "UTF8")), "hex")
    short = func.concat(func.left(digest, 32), ".", topic)
    return case((func.octet_length(named) > CHANNEL_MAX, short), else_=named)
