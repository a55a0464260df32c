"""Uniqueness: keys equal River's to the byte."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import attrs
import pytest

from goldens import UNIQUE
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.jobs.args import JobArgs, RawArgs, encode
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.states import JobState, mask_of
from riverrun.policies.uniqueness import UniqueKey, UniqueOpts
from riverrun.verbs.draft import draft

NOW = datetime(2026, 11, 24, 0, 8, 34, tzinfo=UTC)


@attrs.frozen
class VecA(JobArgs, kind="vec_a"):
    zeta: str
    alpha: int
    map: Mapping[str, Any] | None
    f: float
    u: str


@attrs.frozen
class VecB(JobArgs, kind="vec_b"):
    trace_id: str
    region: str
    customer_id: int


@attrs.frozen
class VecE(JobArgs, kind="vec_e"):
    pass


@attrs.frozen
class Nested:
    z: int
    a: int


@attrs.frozen
class NestedArgs(JobArgs, kind="nested"):
    nested: Nested


@attrs.frozen
class StandIn:
    """A draft of a job, without checks."""

    kind: str
    args: object
    encoded: Mapping[str, Any]
    queue: str
    scheduled_at: datetime | None


def key(args: object, unique: UniqueOpts, now: datetime = NOW, **opts: Any) -> str:
    """Return the key of `args` in hexadecimal."""
    return unique(draft(args, InsertOpts(**opts)), now).key.hex()


SUBSET = UniqueOpts(by_args=["customer_id", "region"])
VECTORS = [
    # Source: produced by River (Go) 0.43.
    (
        VecA(
            zeta="z<&>é\u2028",
            alpha=7,
            map={"b": 1, "a": [1.5, None, True, "x"]},
            f=1e21,
            u='日本 "q" \\ /',
        ),
        UniqueOpts(by_args=True),
        {},
        None,
    ),
    (
        VecA(zeta="plain", alpha=9007199254740993, map=None, f=0.1, u=""),
        UniqueOpts(by_args=True),
        {},
        "21b0c172a4f3071b56d0f990b9437ba96b6d0c8433720719c2ff1877ced6e48a",
    ),
    (
        VecB(trace_id="t", region="eu", customer_id=5),
        SUBSET,
        {},
        "240efee80ac25f3fae48f903017d31c1bc216baf919fb8b75f016874202de636",
    ),
    (
        VecE(),
        UniqueOpts(by_args=True),
        {},
        "b52c107b77922cdb7b9a9d239641d17b28400d7034d499dff7a4739c952a5306",
    ),
    (
        VecE(),
        UniqueOpts(by_queue=True),
        {"queue": "mail"},
        "7037d819b70705cf5c0cf59e9bbf0106fb3347791c07debf0e1096faaccbf9f9",
    ),
    (
        VecB(trace_id="t", region="eu", customer_id=5),
        attrs.evolve(SUBSET, by_queue=True, exclude_kind=True),
        {"queue": "mail"},
        "90115a188c3b51244c4ad8d5013b63d81fb8cb7f2715465939315e4198fc2ea7",
    ),
    (
        VecE(),
        UniqueOpts(by_period=timedelta(minutes=15)),
        {},
        "b8277c4a464d439d848028c082ebd3176427fa09682c2d06cdfbda4b6c5d555a",
    ),
    (
        VecE(),
        UniqueOpts(by_period=timedelta(hours=7)),
        {},
        "82b3b5064b12e363962ca4eadc2bdaf88ed9e3753ba82e1d6ef4e56b329165f9",
    ),
    (
        VecE(),
        UniqueOpts(by_period=timedelta(days=7)),
        {},
        "bc5419d2c5ae318cb85f17e5d57425bfd7cc6e72ae62dd4b65b03fbcf5b07690",
    ),
    (
        VecE(),
        UniqueOpts(by_state=["available", "pending", "running", "scheduled"]),
        {},
        "b47d9be3b5534d98a7e5473ca4c23efa2f4d6d5be0b067203ce59ccf6806dbe3",
    ),
]
VECTORS[0] = (*VECTORS[0][:3], "d7b943fa6d7c83cd351db3f56512b69b6dd18fcd13fef4914996367a3889e206")


@pytest.mark.parametrize(("args", "unique", "opts", "expected"), VECTORS)
def test_the_key_is_rivers(
    args: object, unique: UniqueOpts, opts: dict[str, Any], expected: str
) -> None:
    """The key equals the one that River computes for the same job."""
    assert key(args, unique, **opts) == expected


@pytest.mark.parametrize("name", UNIQUE)
def test_the_key_is_that_of_the_golden_data(name: str) -> None:
    """Each of River's golden keys is computed, or refused if River refuses it."""
    case = UNIQUE[name]
    # A minus zero is an int in Python's JSON, and loses its sign.
    encoded = json.loads(case.args, parse_int=lambda text: -0.0 if text == "-0" else int(text))
    options = dict(case.options)
    period = timedelta(microseconds=options.pop("by_period_nanos", 0) // 1_000)
    if case.fields is not None:
        options["by_args"] = case.fields
    unique = UniqueOpts(**options, by_period=period or None)
    args = RawArgs(kind=case.kind, encoded=encoded)
    at = case.scheduled_at and datetime.fromisoformat(case.scheduled_at)
    opts = InsertOpts(queue=case.queue, scheduled_at=at or None)
    if case.key is None:
        with pytest.raises(InvalidArgs):
            draft(args, opts)
        return
    # Compute the key only: jsonb could not hold the NUL character of one case.
    job = StandIn(case.kind, args, encoded, case.queue, opts.scheduled_at)
    mark = unique(job, datetime.fromisoformat(case.now))
    assert (mark.key.hex(), mask_of(mark.states)) == (case.key, case.mask)


def test_a_nested_subset_is_assembled_in_the_order_of_its_paths() -> None:
    """Nested fields are named by tuples; their order is that of their dotted paths."""
    args = RawArgs(
        kind="k1",
        encoded={
            "path/key": "slash",
            "account": {"region": "west", "id": "acct", "secret": "x"},
        },
    )
    unique = UniqueOpts(by_args=[("path/key",), ("account", "region"), ("account", "id")])
    text = unique.describe(draft(args), NOW)
    assert text == '&kind=k1&args={"account":{"id":"acct","region":"west"},"path/key":"slash"}'


def test_structs_keep_their_order_and_maps_do_not() -> None:
    """Nested classes are written as declared, nested mappings by key, as Go's encoder does."""
    unique = UniqueOpts(by_args=True)
    nested = NestedArgs(nested=Nested(z=1, a=2))
    assert unique.describe(draft(nested), NOW).endswith('&args={"nested":{"z":1,"a":2}}')
    one = VecA(zeta="", alpha=1, map={"z": 1, "a": 2}, f=1.0, u="")
    other = attrs.evolve(one, map={"a": 2, "z": 1})
    assert encode(one) == encode(other)
    assert key(one, unique) == key(other, unique)


def test_a_period_does_not_depend_on_the_time_zone() -> None:
    """The same instant is in the same period, whatever its time zone."""
    unique = UniqueOpts(by_period=timedelta(hours=7))
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    assert key(VecE(), unique, NOW) == key(VecE(), unique, tokyo)


def test_the_masks_are_rivers() -> None:
    """Default states are stored as 245, the required ones alone as 209."""
    default = UniqueOpts(by_args=True)(draft(VecE()), NOW)
    required = UniqueOpts(by_state=["available", "pending", "running", "scheduled"])
    assert mask_of(default.states) == 245
    assert mask_of(required(draft(VecE()), NOW).states) == 209


@pytest.mark.parametrize(
    "refused",
    [
        {},
        {"exclude_kind": True},
        {"exclude_kind": True, "by_state": ["available", "pending", "running", "scheduled"]},
        {"by_period": 0.5},
        {"by_period": float("nan")},
        {"by_args": "customer_id"},
        {"by_args": []},
        {"by_args": [1]},
        {"by_state": ["available"]},
        {"by_state": ["available", "nonsense"]},
    ],
)
def test_what_river_refuses_is_refused(refused: dict[str, Any]) -> None:
    """Empty options, and options that River does not accept, are refused when made."""
    with pytest.raises(InvalidOption):
        UniqueOpts(**refused)


def test_a_plain_key_names_the_job() -> None:
    """Jobs of one kind with one UniqueKey count as the same, whatever their args."""
    unique = UniqueKey("invoice-7")
    one = unique(draft(VecB(trace_id="a", region="eu", customer_id=1)), NOW)
    assert one == unique(draft(VecB(trace_id="b", region="us", customer_id=2)), NOW)
    assert one != unique(draft(VecE()), NOW)
    assert one != UniqueKey("invoice-8")(draft(VecB("a", "eu", 1)), NOW)
    shared = UniqueKey("invoice-7", exclude_kind=True)
    assert shared(draft(VecE()), NOW) == shared(draft(VecB("a", "eu", 1)), NOW)


def test_a_plain_key_cannot_be_one_of_rivers() -> None:
    """No UniqueKey can equal a key that River computes from options."""
    river = UniqueOpts(by_queue=True, exclude_kind=True)(draft(VecE()), NOW).key
    assert UniqueKey("&queue=default", exclude_kind=True)(draft(VecE()), NOW).key != river


@pytest.mark.parametrize("refused", ["", 7, "a\x00b"])
def test_a_plain_key_is_text(refused: Any) -> None:
    """A UniqueKey is a text that is not empty."""
    with pytest.raises(InvalidOption):
        UniqueKey(refused)


def test_a_plain_key_keeps_the_required_states() -> None:
    """Its states are checked as River's are."""
    with pytest.raises(InvalidOption, match="required states"):
        UniqueKey("a", by_state=[JobState.available])


class Name(str, Enum):  # noqa: UP042  StrEnum has no such text
    """Names as many applications keep them: an f-string shows `Name.vec_e`, not `vec_e`."""

    kind = "vec_e"
    queue = "mail"
    tag = "night"


@attrs.frozen
class ByName(JobArgs, kind=Name.kind):
    pass


@pytest.mark.parametrize(
    "unique", [UniqueOpts(by_args=True, by_queue=True), UniqueKey(Name.queue)], ids=["opts", "key"]
)
def test_names_that_are_members_of_an_enum(unique: Any) -> None:
    """A kind, queue, tag or key that is a member of a str Enum counts as its value."""
    named = draft(ByName(), InsertOpts(queue=Name.queue, tags=[Name.tag], unique=unique), now=NOW)
    plain_unique = UniqueKey("mail") if isinstance(unique, UniqueKey) else unique
    plain = draft(VecE(), InsertOpts(queue="mail", tags=["night"], unique=plain_unique), now=NOW)
    assert named.mark == plain.mark
    assert [type(each) for each in (named.kind, named.queue, *named.tags)] == [str, str, str]


def test_keys_of_raw_args_that_are_members_of_an_enum() -> None:
    """A key of RawArgs that is a member of a str Enum counts as its value."""
    marks = [
        draft(
            RawArgs(kind="raw", encoded={key: 1}),
            InsertOpts(unique=UniqueOpts(by_args=True)),
            now=NOW,
        ).mark
        for key in (Name.tag, "night")
    ]
    assert marks[0] == marks[1]


@pytest.mark.parametrize(
    ("args", "by_args", "problem"),
    [
        (VecB("t", "eu", 7), ["custmer_id"], "not 'custmer_id'; they are 'trace_id', 'region'"),
        (VecB("t", "eu", 7), ["region", "customer.id"], "not 'customer.id'"),
        (NestedArgs(Nested(1, 2)), [("nested", "b")], "of Nested, not 'b'; they are 'z', 'a'"),
        (VecB("t", "eu", 7), [("region", "customer_id")], "no parts of 'region'"),
        (VecE(), ["id"], "they are none"),
    ],
)
def test_by_args_that_names_no_field(args: object, by_args: Any, problem: str) -> None:
    """A name that is no field's is refused: without it, jobs of any args would be the same."""
    with pytest.raises(InvalidOption, match=problem):
        draft(args, InsertOpts(unique=UniqueOpts(by_args=by_args)), now=NOW)


def test_by_args_that_a_map_lacks() -> None:
    """A key that a map or raw JSON lacks is left out, as in River."""
    for args, path in (
        (VecA("z", 1, {"x": 1}, 1.0, "u"), ("map", "y")),
        (VecA("z", 1, None, 1.0, "u"), ("map", "y")),
        (RawArgs(kind="raw", encoded={"a": 1}), ("b", "c")),
    ):
        assert draft(args, InsertOpts(unique=UniqueOpts(by_args=[path])), now=NOW).mark
