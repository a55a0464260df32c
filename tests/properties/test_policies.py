"""Unique keys and backoff, on whatever comes."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from factories import job_row
from riverrun.jobs.args import RawArgs
from riverrun.jobs.options import InsertOpts
from riverrun.policies.backoff import Constant, Exponential, Linear, RiverBackoff
from riverrun.policies.uniqueness import UniqueOpts
from riverrun.verbs.draft import draft
from riverrun.wire.go_json import encode

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECT = st.dictionaries(TEXT, VALUE, max_size=5)
MOMENT = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
)


def floats(value: Any) -> Any:
    """Return `value` with its integers as floats."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case dict():
            return {name: floats(item) for name, item in value.items()}
        case list():
            return [floats(item) for item in value]
    return value


def key(encoded: dict[str, Any], unique: UniqueOpts, **opts: Any) -> bytes:
    """Return the key of a job with these args."""
    ready = draft(RawArgs(kind="any_kind", encoded=encoded), InsertOpts(**opts))
    return unique(ready, NOW).key


@given(VALUE)
@example(1e22)
@example(-1e-7)
@example(123e-20)
def test_gos_text_means_the_same_value(value: Any) -> None:
    """Whatever is written as Go would write it reads back as it was."""
    # Go writes 1e20 as an integer, so a number is compared as the float it stands for.
    assert json.loads(encode(value), parse_int=float) == floats(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_in_as_few_digits_as_python_needs(value: float) -> None:
    """The digits are the shortest that read back as the same float."""
    digits = [c for c in encode(value).partition("e")[0] if c.isdigit()]
    shortest = [c for c in repr(value).partition("e")[0] if c.isdigit()]
    assert "".join(digits).strip("0") == "".join(shortest).strip("0")


@given(OBJECT, st.randoms())
def test_the_order_of_outermost_keys_does_not_matter(encoded: dict[str, Any], rng: Any) -> None:
    """The same args in another order have the same key."""
    items = list(encoded.items())
    rng.shuffle(items)
    unique = UniqueOpts(by_args=True)
    assert key(dict(items), unique) == key(encoded, unique)


@given(OBJECT, OBJECT)
def test_different_args_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Args that are not the same JSON do not share a key."""
    assume(json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True))
    # As JSON numbers 1 and 1.0 are one; Go writes both alike.
    assume(one != other)
    unique = UniqueOpts(by_args=True)
    assert key(one, unique) != key(other, unique)


@given(OBJECT, VALUE)
def test_only_the_named_fields_count(encoded: dict[str, Any], other: Any) -> None:
    """What is not named in by_args may differ."""
    unique = UniqueOpts(by_args=["customer_id"])
    one = {**encoded, "customer_id": 1}
    assert key({**one, "trace": other}, unique) == key(one, unique)
    assert key({**one, "customer_id": 2}, unique) != key(one, unique)


@given(MOMENT, st.integers(1, 10**9))
def test_a_period_holds_its_moment(moment: datetime, period_s: int) -> None:
    """The bound is not after the moment, nor a period before it."""
    unique = UniqueOpts(by_period=period_s)
    ready = draft(RawArgs(kind="any_kind", encoded={}), InsertOpts(scheduled_at=moment))
    text = unique.describe(ready, NOW).partition("&period=")[2]
    bound = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(0) <= moment - bound < timedelta(seconds=period_s)
    assert (bound - datetime(1, 1, 1, tzinfo=UTC)).total_seconds() % period_s == 0


@given(
    st.sampled_from([RiverBackoff, Exponential, Linear, Constant]),
    st.integers(0, 40),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_delay_is_jittered_by_no_more_than_it_says(
    policy: Any, failures: int, jitter: float, dice: float
) -> None:
    """A delay lies within its jitter of the one without, and never before now."""
    row = job_row(errors=({},) * failures)
    plain = (policy(jitter=0)(row, NOW) - NOW).total_seconds()
    delay = (policy(jitter=jitter, rng=lambda: dice)(row, NOW) - NOW).total_seconds()
    assert max(0, plain * (1 - jitter) - 1e-5) <= delay <= plain * (1 + jitter) + 1e-5


@given(st.sampled_from([RiverBackoff, Exponential, Linear, Constant]), st.integers(0, 40))
def test_delays_never_grow_shorter(policy: Any, failures: int) -> None:
    """Without jitter, the next delay is at least as long."""
    one = policy(jitter=0)(job_row(errors=({},) * failures), NOW)
    assert policy(jitter=0)(job_row(errors=({},) * (failures + 1)), NOW) >= one
