"""Jobs that are only worked while an object is unchanged since their insert, or still exists."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import inspect, select
from sqlalchemy.orm import Mapper, Session, configure_mappers, mapperlib
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError

from riverrun.errors import InvalidOption, JobSuperseded, RiverrunError
from riverrun.orm.object_keys import identity_of, keys_of, state_of

UNCHANGED_KEY = "riverrun:unless_changed"
"""The key of a job's metadata that holds which object it needs, and of which version, if any."""

_EXPECTED = "a mapped object whose class has a version_id_col"


def version_of(obj: object) -> dict[str, Any]:
    """Return what is stored of an object with a job that needs it unchanged.

    Raises:
        InvalidOption: If it has no version, or its next flush would change that.
    """
    state = state_of(obj)
    if state is None or state.mapper.version_id_col is None:
        raise InvalidOption("unless_changed", obj, _EXPECTED)
    identity = identity_of(state)
    if identity is None or state.key is None or state.modified or state.deleted:
        # The job would be superseded by the very transaction that inserts it.
        expected = "an object that is flushed; call session.flush() before the insert"
        raise InvalidOption("unless_changed", obj, expected)
    mapper = state.mapper
    name = mapper.get_property_by_column(cast("Any", mapper.version_id_col)).key
    try:
        version = getattr(obj, name)
    except (DetachedInstanceError, ObjectDeletedError) as error:
        expected = "an object whose version is loaded, or that is in a session"
        raise InvalidOption("unless_changed", obj, expected) from error
    return {
        "class": _name(mapper),
        "key": keys_of(mapper).write(identity),
        "version": _text(version),
    }


def existence_of(mapper: Mapper[Any], key: object) -> dict[str, Any]:
    """Return what is stored of an object with a job that needs it to exist.

    Args:
        mapper: The mapper of its class.
        key: Its primary key as JSON.
    """
    return {"class": _name(mapper), "key": key}


def check_unchanged(session: Session, needed: object) -> None:
    """Check the versions and the existence of the objects that a job needs.

    Args:
        session: What to read them with.
        needed: What `version_of` or `existence_of` returned when the job was inserted, or a list of
            both.

    Raises:
        JobSuperseded: If an object has another version by now, or is gone.
        RiverrunError: If an object's class is not known here, and its version is needed.
    """
    for need in needed if isinstance(needed, list) else [needed]:
        if not isinstance(need, Mapping) or not {"class", "key"} <= need.keys():
            raise RiverrunError(f"metadata {UNCHANGED_KEY!r} is {needed!r}, which names no object")
        _check(session, need)


def _check(session: Session, need: Mapping[str, Any]) -> None:
    versioned = "version" in need
    mapper = _mapper(str(need["class"]), versioned=versioned)
    if mapper is None:
        return
    columns = [mapper.get_property_by_column(key) for key in mapper.primary_key]
    identity = keys_of(mapper).read(need["key"])
    read = mapper.version_id_col if versioned else mapper.primary_key[0]
    # With all tables of the class: its version may be in another than its key.
    found_by = select(mapper.get_property_by_column(cast("Any", read)).class_attribute)
    statement = found_by.select_from(mapper.persist_selectable)
    for column, value in zip(columns, identity, strict=True):
        statement = statement.where(column.class_attribute == value)
    found = session.execute(statement).first()
    what = f"the {mapper.class_.__name__} with the primary key {need['key']!r}"
    if found is None:
        raise JobSuperseded(f"superseded: {what} is gone")
    # Releases before wrote times and decimals as they were.
    if versioned and need["version"] not in (_text(found[0]), str(found[0])):
        has = f"{what} has version {_text(found[0])}"
        raise JobSuperseded(f"superseded: {has}, and the job is of version {need['version']}")


def _name(mapper: Mapper[Any]) -> str:
    return f"{mapper.class_.__module__}:{mapper.class_.__qualname__}"


def _mapper(name: str, *, versioned: bool) -> Mapper[Any] | None:
    # Looked up among the classes that are mapped here. A name from a row is never imported.
    configure_mappers()
    for registry in mapperlib._all_registries():
        for mapper in registry.mappers:
            if _name(mapper) == name and (mapper.version_id_col is not None or not versioned):
                found: Mapper[Any] = inspect(mapper.class_)
                return found
    if not versioned:
        return None  # This process works jobs without the application's models.
    problem = f"the job needs a version of {name}, and no such class with a version_id_col is"
    raise RiverrunError(f"{problem} mapped in this process; import its module before working")


def _text(version: object) -> str:
    # Versions are mostly numbers, and sometimes times, UUIDs or bytes. All that counts is whether
    # they differ.
    match version:
        case bytes():
            return version.hex()
        case datetime() if version.tzinfo is not None:
            return str(version.astimezone(UTC))  # the workers' sessions may be in another zone
        case Decimal():
            return format(version.normalize(), "f")  # the column may add zeros
    return str(version)
