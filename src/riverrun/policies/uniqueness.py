"""Uniqueness policies: which jobs count as the same."""

import dataclasses
import hashlib
import typing
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from riverrun.clock import Duration, seconds
from riverrun.errors import InvalidOption
from riverrun.jobs.args import RawArgs
from riverrun.jobs.checks import check_flag, check_timedelta, plain_text
from riverrun.jobs.differences import field_names
from riverrun.jobs.options import Draft, OnConflict, UniqueMark
from riverrun.jobs.states import REQUIRED_STATES, JobState
from riverrun.wire import go_json

DEFAULT_STATES = REQUIRED_STATES | {JobState.completed, JobState.retryable}

_EPOCH = datetime(1, 1, 1, tzinfo=UTC)


def _by_args(value: object) -> bool | tuple[tuple[str, ...], ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidOption("by_args", value, 'True, or names of fields such as ("customer_id",)')
    paths = tuple(tuple(name) if isinstance(name, list | tuple) else (name,) for name in value)
    if not paths or not all(path and all(isinstance(p, str) for p in path) for path in paths):
        raise InvalidOption("by_args", value, "names of fields, or tuples of names for nested ones")
    return paths


def _flag(_: object, option: Any, value: object) -> None:
    check_flag(option.name, value)


def _by_period(value: object) -> Duration | None:
    return None if value is None else check_timedelta("by_period", value, 1.0)


def _by_state(value: object) -> frozenset[JobState] | None:
    if value is None:
        return None
    try:
        states = frozenset(JobState(state) for state in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InvalidOption("by_state", value, "job states") from None
    if missing := REQUIRED_STATES - states:
        listed = ", ".join(sorted(missing))
        raise InvalidOption("by_state", value, f"at least the required states; add {listed}")
    return states


def _on_conflict(value: object) -> OnConflict:
    try:
        return OnConflict(value)
    except ValueError:
        known = ", ".join(action.value for action in OnConflict)
        raise InvalidOption("on_conflict", value, f"one of {known}") from None


@attrs.frozen(kw_only=True)
class UniqueOpts:
    """River's uniqueness: jobs of one kind count as the same if the chosen properties are equal.

    Attributes:
        by_args: True to compare all args, or the names of the fields to compare. A field in a
            nested object is a tuple of names.
        by_period: A period, seconds or a timedelta, at least 1 s: only jobs within one period count
            as the same. Periods are counted from year 1 in UTC; a job is in the period of its
            `scheduled_at`, or of now.
        by_queue: Whether only jobs in the same queue count as the same.
        by_state: The states in which a job blocks duplicates. They must include available, pending,
            running and scheduled. Default: these, completed and retryable.
        exclude_kind: Whether jobs of different kinds may count as the same. It needs by_args,
            by_period or by_queue, or all jobs would be the same.
        on_conflict: What a duplicate does to the waiting job: an OnConflict or its name, such as
            "debounce".

    Raises:
        InvalidOption: If a value is out of range, or none of the first four is set. An insert
            raises it if by_args names something that is not a field of the args.

    Source: River 0.51, internal/dbunique; keys equal River's to the byte.
    """

    by_args: bool | Sequence[str | Sequence[str]] = attrs.field(default=False, converter=_by_args)
    by_period: Duration | None = attrs.field(
        default=None,
        converter=_by_period,
    )
    by_queue: bool = attrs.field(default=False, validator=_flag)
    by_state: Iterable[JobState] | None = attrs.field(default=None, converter=_by_state)
    exclude_kind: bool = attrs.field(default=False, validator=_flag)
    on_conflict: OnConflict = attrs.field(default=OnConflict.skip, converter=_on_conflict)

    def __attrs_post_init__(self) -> None:
        if not (self.by_args or self.by_period or self.by_queue or self.by_state):
            expected = "at least one of by_args, by_period, by_queue and by_state"
            raise InvalidOption("unique", self, expected)
        if self.exclude_kind and not (self.by_args or self.by_period or self.by_queue):
            expected = "with exclude_kind also by_args, by_period or by_queue"
            raise InvalidOption("unique", self, expected)

    def __call__(self, draft: Draft, now: datetime) -> UniqueMark:
        """Return River's unique key for `draft`, and the states in which it applies."""
        key = hashlib.sha256(self.describe(draft, now).encode()).digest()
        states = frozenset(self.by_state or DEFAULT_STATES)
        return UniqueMark(key=key, states=states, on_conflict=self.on_conflict)

    def describe(self, draft: Draft, now: datetime) -> str:
        """Return the text whose SHA-256 is the key of `draft`, inserted at `now` (aware)."""
        text = "" if self.exclude_kind else f"&kind={draft.kind}"
        if self.by_args is True:
            encoded = _maps_sorted(draft.args, draft.encoded)
            text += f"&args={go_json.sorted_object(encoded)}"
        elif self.by_args:
            for path in self.by_args:
                _check_path(tuple(path), draft.args, draft.encoded)
            encoded = _maps_sorted(draft.args, draft.encoded)
            text += f"&args={_subset(encoded, self.by_args)}"
        if self.by_period is not None:
            moment = (draft.scheduled_at or now).astimezone(UTC)
            bound = moment - (moment - _EPOCH) % timedelta(seconds=seconds(self.by_period))
            text += f"&period={bound.strftime('%Y-%m-%dT%H:%M:%SZ').zfill(20)}"
        if self.by_queue:
            text += f"&queue={draft.queue}"
        return text


def _plain_key(value: object) -> str:
    if not isinstance(value, str) or not value or "\x00" in value:
        raise InvalidOption("key", value, "a text that is not empty")
    return plain_text(value)


@attrs.frozen
class UniqueKey:
    """Uniqueness by a key that the application chooses.

    Attributes:
        key: The key, such as `"invoice-7"`.
        by_state: As for `UniqueOpts`.
        exclude_kind: Whether jobs of different kinds with the same key count as the same.
        on_conflict: What a duplicate does to the waiting job; as for `UniqueOpts`.

    Raises:
        InvalidOption: If the key is empty, or `by_state` lacks a required state.
    """

    key: str = attrs.field(converter=_plain_key)
    by_state: Iterable[JobState] | None = attrs.field(
        default=None, converter=_by_state, kw_only=True
    )
    exclude_kind: bool = attrs.field(default=False, kw_only=True, validator=_flag)
    on_conflict: OnConflict = attrs.field(
        default=OnConflict.skip, converter=_on_conflict, kw_only=True
    )

    def __call__(self, draft: Draft, now: datetime) -> UniqueMark:  # noqa: ARG002
        """Return the unique key for `draft`, and the states in which it applies."""
        # The texts that River hashes are empty or begin with "&", so none can equal one of these.
        kind = "" if self.exclude_kind else draft.kind
        text = f"riverrun:key={len(kind)}:{kind}:{self.key}"
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        states = frozenset(self.by_state or DEFAULT_STATES)
        return UniqueMark(key=key, states=states, on_conflict=self.on_conflict)


def _check_path(path: tuple[str, ...], args: object, encoded: object) -> None:
    """Refuse a name that no field has: without it, all jobs would count as the same.

    A key that a map or raw JSON lacks is left out of the key, as in River.
    """
    value = args
    for name, inner in zip(path, (*path[1:], None), strict=True):
        if isinstance(value, RawArgs) or not (_is_struct(value) and isinstance(encoded, Mapping)):
            return
        cls = type(value)
        if name not in encoded and not _may_lack(cls, name, encoded):
            known = ", ".join(map(repr, encoded)) or "none"
            expected = f"names of fields of {cls.__name__}, not {name!r}; they are {known}"
            raise InvalidOption("by_args", ".".join(path), expected)
        if inner is not None and (kind := _hints(cls).get(name)) in (str, int, float, bool):
            expected = f"no parts of {name!r}, a {kind.__name__}; two names are two fields"
            raise InvalidOption("by_args", ".".join(path), expected)
        value, encoded = getattr(value, name, None), encoded.get(name)


def _may_lack(cls: type, name: str, encoded: Mapping[str, Any]) -> bool:
    """Return whether the JSON of objects of `cls` may have the key `name`, and here has not."""
    if getattr(cls, "model_config", {}).get("extra") == "allow":
        return True
    field = getattr(cls, "model_fields", {}).get(name)
    aliases = {getattr(field, "alias", None), getattr(field, "serialization_alias", None)}
    return name in field_names(cls) and aliases.isdisjoint(encoded)


def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception:  # such as a name that cannot be resolved
        return {}


def _subset(encoded: Mapping[str, Any], paths: Sequence[str | Sequence[str]]) -> str:
    """Return the named fields of `encoded` as JSON, ordered by dotted path; "" if it has none."""
    chosen: dict[str, Any] = {}
    for path in sorted((tuple(path) for path in paths), key=lambda p: ".".join(p).encode()):
        value: Any = encoded
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                break
            value = value[name]
        else:
            target = chosen
            for name in path[:-1]:
                target = target.setdefault(name, {})
            target[path[-1]] = value
    if not chosen:
        return ""
    return (
        "{"
        + ",".join(
            f"{go_json.top_level_key(key)}:{go_json.encode(value)}" for key, value in chosen.items()
        )
        + "}"
    )


def _maps_sorted(value: object, encoded: Any) -> Any:
    """Return `encoded` with the keys of maps sorted, and those of structs in declared order.

    Go's encoder does this. In typed args, a mapping is a map, and an attrs class, dataclass or
    pydantic model is a struct. Raw JSON keeps its order, because it does not show which is which.
    """
    if isinstance(encoded, Mapping):
        if isinstance(value, Mapping):
            items = ((key, _maps_sorted(value.get(key), item)) for key, item in encoded.items())
            return dict(sorted(items, key=lambda pair: pair[0].encode()))
        if _is_struct(value) and not isinstance(value, RawArgs):
            return {
                key: _maps_sorted(getattr(value, key, None), item) for key, item in encoded.items()
            }
        return encoded
    if isinstance(encoded, list | tuple) and isinstance(value, Sequence):
        return [_maps_sorted(inner, item) for inner, item in zip(value, encoded, strict=True)]
    return encoded


def _is_struct(value: object) -> bool:
    return (
        attrs.has(type(value))
        or dataclasses.is_dataclass(value)
        or hasattr(type(value), "__pydantic_validator__")
    )
