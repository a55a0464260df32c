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
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from riverrun.models import Job

CHANNEL_MAX = 63
"""Longest name of a channel in PostgreSQL, in bytes."""

_HAS_ROOM: ColumnElement[bool] = literal_column("pg_notification_queue_usage() < 0.9")
"""Whether the server's queue of notifications takes more, which costs less than a microsecond.

It fills up while a session that listens stays in one transaction. Once it is full, each COMMIT of a
transaction that has notified fails. Polling finds the jobs without a notification.
"""


@lru_cache
def schema_of_tables() -> Select[Any]:
    """Read the schema of River's tables: bind `schema`, or the one that the search path finds."""
    place = cast(bindparam("schema"), Text)
    return select(func.coalesce(place, _found(), func.current_schema()))


@lru_cache
def channels(*, named: bool) -> Select[Any]:
    """Read the channels for bind `topics`, an array of text, each with its topic.

    If `named`, they are those of bind `schema`; else of where the search path finds the tables. If
    its first schema is not that of the tables, each topic has two channels: River's clients name
    theirs by the first schema.
    """
    topics = (
        func.unnest(bindparam("topics", type_=ARRAY(Text)))
        .table_valued(column("topic", Text))
        .render_derived(name="topics")
    )
    places = _places(named=named)
    channel = _channel(places.c.place, topics.c.topic)
    return select(channel, topics.c.topic).select_from(topics).join(places, true())


@lru_cache
def notify(*, named: bool) -> Select[Any]:
    """Send `payloads`, an array of text, on the channels of `topic` when the transaction commits.

    See `channels`. Nothing is sent while the server's queue of notifications is almost full.
    """
    sent, source = _sending(named=named)
    return select(sent).select_from(source).where(_HAS_ROOM)


@lru_cache
def notification(*, named: bool) -> ColumnElement[int]:
    """Return an expression that does what `notify` does, once in a statement that evaluates it."""
    sent, source = _sending(named=named)
    return select(func.count(sent)).select_from(source).where(_HAS_ROOM).scalar_subquery()


def _sending(*, named: bool) -> tuple[ColumnElement[Any], Any]:
    payloads = (
        func.unnest(bindparam("payloads", type_=ARRAY(Text)))
        .table_valued(column("payload", Text))
        .render_derived(name="payloads")
    )
    places = _places(named=named)
    channel = _channel(places.c.place, bindparam("topic", type_=Text))
    return func.pg_notify(channel, payloads.c.payload), payloads.join(places, true())


def _found() -> ColumnElement[str]:
    """Return the schema in which the search path finds River's tables.

    It uses functions that look in PostgreSQL's caches. A statement that names tables of the catalog
    opens them each time, even if it does not read them.
    """
    classes: ColumnElement[Any] = literal_column("CAST('pg_catalog.pg_class' AS regclass)")
    named = func.pg_identify_object(classes, func.to_regclass(Job.__tablename__), 0)
    place = named.table_valued("type", "schema", "name", "identity").render_derived(name="found")
    # The name is quoted where necessary, and has one part.
    return select(func.array_to_string(func.parse_ident(place.c.schema), "")).scalar_subquery()


def _places(*, named: bool) -> Any:
    """Return the schemas that name channels, as rows: bind `schema`, or those of the search path.

    This is read for each notification. Usually the first schema of the path holds the tables. Then
    one look in PostgreSQL's caches is enough, and no table of the catalog is read.
    """
    if named:
        return select(cast(bindparam("schema"), Text).label("place")).subquery("places")
    first = cast(func.current_schema(), Text)
    here = func.to_regclass(func.concat(func.quote_ident(first), f".{Job.__tablename__}"))
    found = case((here.is_not(None), array([first])), else_=array([_found(), first]))
    places = func.unnest(found).table_valued(column("place", Text)).render_derived(name="path")
    return select(places.c.place).where(places.c.place.is_not(None)).subquery("places")


def _channel(place: ColumnElement[Any], topic: ColumnElement[Any]) -> ColumnElement[str]:
    named = func.concat(place, ".", topic)
    # PostgreSQL refuses longer names. There are no clients of River, which refuses such a schema.
    digest = func.encode(func.sha256(func.convert_to(place, "UTF8")), "hex")
    short = func.concat(func.left(digest, 32), ".", topic)
    return case((func.octet_length(named) > CHANNEL_MAX, short), else_=named)
