"""Unique keys are hashed from the same text in Go's encoder and in riverrun's."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from interop.clients import Clients
from interop.peers import Peers, StartPeer
from interop.rpc import Process
from riverrun import InsertOpts, JobArgs, UniqueOpts
from riverrun.errors import InvalidArgs
from riverrun.jobs.args import RawArgs, encode
from riverrun.jobs.states import JobState, mask_of
from riverrun.policies.uniqueness import REQUIRED_STATES
from riverrun.verbs.draft import JobDraft, draft

# One call to the Go process for each batch: a call for each case would take most of the time.
BATCH = 16
MS = timedelta(milliseconds=1)

# A failure shows the text that was hashed, and shrinking would take minutes.
GENERATE = (Phase.explicit, Phase.generate)


@attrs.frozen
class Nested:
    """A struct in a struct, whose fields are not sorted by name."""

    zulu: str
    able: dict[str, Any]
    maybe: int | None


@attrs.frozen
class Typed(JobArgs, kind="interop_typed"):
    """One field of each type that Go encodes in its own way."""

    zeta: str
    alpha: int
    huge: int
    ratio: float
    flag: bool
    maybe: str | None
    values: list[Any]
    labels: dict[str, Any]
    nested: Nested


@attrs.frozen
class Account:
    """An object in the args of which only some fields count for uniqueness."""

    region: str
    note: str
    id: int


@attrs.frozen
class Subset(JobArgs, kind="interop_subset"):
    """Args of which only some fields count: those that the Go struct marks `unique`."""

    zeta: str
    trace: str
    alpha: int
    ratio: float
    account: Account
    labels: dict[str, Any]


MARKED = ("zeta", "alpha", ("account", "region"), ("account", "id"), "labels")

# jsonb cannot hold NUL, and no encoding a lone surrogate. A list makes the characters that Go
# escapes frequent; `st.text` would draw from all of its alphabet alike.
texts = st.lists(
    st.one_of(
        st.sampled_from('<>&\u2028\u2029"\\/\b\f\n\r\t\x1f\x7f\x80é日😀.'),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=12,
).map("".join)
int64 = st.integers(-(2**63), 2**63 - 1)
floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e-6, 9.99e-7, 1e-7, 1e20, 1e21, 1e22, -0.0, 5e-324, 1.7976931348623157e308]),
)


def comes_back(value: float) -> bool:
    """Return whether jsonb, which expands whole numbers, returns a number equal to `value`."""
    return value % 1 != 0 or int(value) == int(Decimal(repr(value)))


# Where args may hold any value, insert refuses other floats: see the last test.
kept_floats = floats.filter(comes_back)
scalars = st.one_of(st.none(), st.booleans(), int64, kept_floats, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
maps = st.dictionaries(texts, values, max_size=4)

typed = st.builds(
    Typed,
    zeta=texts,
    alpha=int64,
    huge=st.integers(0, 2**64 - 1),
    ratio=floats,
    flag=st.booleans(),
    maybe=st.none() | texts,
    values=st.lists(values, max_size=4),
    labels=maps,
    nested=st.builds(Nested, zulu=texts, able=maps, maybe=st.none() | int64),
)
subset = st.builds(
    Subset,
    zeta=texts,
    trace=texts,
    alpha=int64,
    ratio=floats,
    account=st.builds(Account, region=texts, note=texts, id=int64),
    labels=maps,
)

moments = st.datetimes(
    datetime(1900, 1, 1),
    datetime(9000, 1, 1),
    timezones=st.timezones(),
)
queues = st.sampled_from(["default", "mail", "a-b_c|d"])
states = st.none() | st.sets(st.sampled_from(JobState)).map(lambda more: more | REQUIRED_STATES)
periods = st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=4000))


@st.composite
def unique(draw: st.DrawFn, by_args: Any) -> UniqueOpts:
    """Options of every kind, by args or not."""
    chosen = draw(st.sampled_from([by_args, by_args, False]))
    period, queue, by_state = draw(periods), draw(st.booleans()), draw(states)
    if not (chosen or period or queue or by_state):
        chosen = by_args
    return UniqueOpts(
        by_args=chosen,
        by_period=period,
        by_queue=queue,
        by_state=by_state,
        # River, like riverrun, refuses it if nothing else would distinguish jobs.
        exclude_kind=bool(chosen or period or queue) and draw(st.booleans()),
    )


@attrs.frozen
class Case:
    """A job with unique options."""

    args: Any
    opts: InsertOpts
    now: datetime

    @property
    def unique(self) -> UniqueOpts:
        """The job's unique options."""
        assert isinstance(self.opts.unique, UniqueOpts)
        return self.opts.unique

    def draft(self) -> JobDraft:
        """Return the draft that riverrun would insert."""
        return draft(self.args, self.opts, now=self.now)


def cases(args: Any, by_args: Any) -> st.SearchStrategy[list[Case]]:
    """Return batches of jobs with args from `args`."""
    opts = st.builds(
        InsertOpts,
        queue=queues,
        unique=unique(by_args),
        scheduled_at=st.none() | moments,
    )
    case = st.builds(Case, args=args, opts=opts, now=moments)
    return st.lists(case, min_size=BATCH // 2, max_size=BATCH)


typed_cases = cases(typed, True)
subset_cases = cases(subset, MARKED)


@pytest.fixture(scope="module")
def peer(engine: Engine, peer_program: Path) -> Iterator[Process]:
    """One Go process for all cases, which writes nothing."""
    peers = Peers(engine, None)
    yield peers.go(peer_program)
    peers.close()


def go_keys(peer: Process, batch: Sequence[Case]) -> list[tuple[str, int]]:
    """Return each job's key and state mask as Go computes them."""
    asked = []
    for case in batch:
        job, chosen = case.draft(), case.unique
        period = chosen.by_period or timedelta()
        nanos = period // timedelta(microseconds=1) * 1000
        options = {**in_go(chosen), "by_period_nanos": nanos}
        asked.append(
            {
                "args": job.encoded,
                "kind": job.kind,
                "now": rfc3339(case.now),
                "options": options,
                "queue": job.queue,
                "scheduled_at": rfc3339(job.scheduled_at) if job.scheduled_at else None,
            }
        )
    keys = peer.call("interop_unique_keys", cases=asked)["keys"]
    return [(key["sha256"], key["state_mask"]) for key in keys]


def in_go(unique: UniqueOpts) -> dict[str, Any]:
    """Return unique options in Go's form, without the period."""
    options: dict[str, Any] = {
        "by_args": bool(unique.by_args),
        "by_queue": unique.by_queue,
        "exclude_kind": unique.exclude_kind,
    }
    if unique.by_state:
        options["by_state"] = sorted(unique.by_state)
    return options


def rfc3339(moment: datetime) -> str:
    """Return `moment` as Go's JSON encodes it."""
    return moment.astimezone(UTC).isoformat()


def our_key(case: Case) -> tuple[str, int]:
    """Return a job's key and state mask as riverrun computes them."""
    mark = case.draft().mark
    assert mark is not None
    return mark.key.hex(), mask_of(mark.states)


def show(case: Case) -> str:
    """Return the text that riverrun hashed, for a failure's message."""
    return case.unique.describe(case.draft(), case.now)


def agree(peer: Process, batch: Sequence[Case]) -> None:
    """Check that both sides compute the same key and state mask for each job."""
    for case, go in zip(batch, go_keys(peer, batch), strict=True):
        assert our_key(case) == go, show(case)


@settings(max_examples=40, phases=GENERATE)
@given(batch=typed_cases)
def test_keys_by_whole_args_are_equal(peer: Process, batch: list[Case]) -> None:
    """For nested args, unicode, floats and large ints, Go hashes the same text as riverrun."""
    agree(peer, batch)


@settings(max_examples=25, phases=GENERATE)
@given(batch=subset_cases)
def test_keys_by_some_fields_are_equal(peer: Process, batch: list[Case]) -> None:
    """The fields that a Go struct marks equal those that `by_args` names, in the same order."""
    agree(peer, batch)


@settings(max_examples=25, phases=GENERATE)
@given(
    batch=cases(
        st.builds(
            RawArgs,
            kind=st.just("interop_raw"),
            encoded=st.dictionaries(texts, int64 | texts | st.lists(texts, max_size=3), max_size=5),
        ),
        True,
    )
)
def test_keys_of_raw_args_are_equal(peer: Process, batch: list[Case]) -> None:
    """JSON without a type has the key of the Go struct that encodes to it, with any field names."""
    agree(peer, batch)


def test_a_duplicate_of_the_other_sides_job_is_skipped(go_peer: StartPeer, here: Clients) -> None:
    """A job that one side has inserted is a duplicate for the other, which returns it."""
    peer, client = go_peer(), here.inserter()

    def by_python(batch: Sequence[Case]) -> list[tuple[int, bool]]:
        results = client.insert_many(here.engine, [(case.args, case.opts) for case in batch])
        return [(result.job.id, result.skipped_as_duplicate) for result in results]

    def by_go(batch: Sequence[Case]) -> list[tuple[int, bool]]:
        results = peer.call("interop_insert_many", jobs=[go_job(case) for case in batch])["results"]
        return [(result["job"]["id"], result["unique_skipped_as_duplicate"]) for result in results]

    @settings(max_examples=12, phases=GENERATE)
    @given(batch=typed_cases | subset_cases)
    def both_ways(batch: list[Case]) -> None:
        jobs = list({our_key(case)[0]: case for case in map(storable, batch)}.values())
        for first, second in ((by_python, by_go), (by_go, by_python)):
            here.do("TRUNCATE river_job")
            inserted = first(jobs)
            assert not any(skipped for _, skipped in inserted)
            assert second(jobs) == [(job_id, True) for job_id, _ in inserted]

    both_ways()


def storable(case: Case) -> Case:
    """Return `case` with a period in whole milliseconds and with a fixed time."""
    scheduled_at = case.opts.scheduled_at or datetime(2026, 3, 1, tzinfo=UTC)
    unique = case.unique
    if unique.by_period is not None:
        unique = attrs.evolve(unique, by_period=unique.by_period // MS * MS)
    return attrs.evolve(
        case, opts=attrs.evolve(case.opts, unique=unique, scheduled_at=scheduled_at)
    )


def go_job(case: Case) -> dict[str, Any]:
    """Return a job in Go's form."""
    job, period = case.draft(), case.unique.by_period
    assert job.scheduled_at is not None
    return {
        "kind": job.kind,
        "args": job.encoded,
        "opts": {
            "queue": job.queue,
            "scheduled_at": rfc3339(job.scheduled_at),
            "unique": {**in_go(case.unique), "by_period_ms": (period or timedelta()) // MS},
        },
    }


@settings(max_examples=100, phases=GENERATE)
@given(value=floats | st.floats(1e15, 1e300).map(round).map(float))
def test_only_floats_that_come_back_are_taken_where_anything_may_stand(value: float) -> None:
    """A float is refused exactly if jsonb would return it as another number."""
    args = Nested(zulu="", able={"value": value}, maybe=None)
    job = Typed(
        zeta="",
        alpha=0,
        huge=0,
        ratio=0.0,
        flag=False,
        maybe=None,
        values=[],
        labels={},
        nested=args,
    )
    if comes_back(value):
        encode(job)
        return
    with pytest.raises(InvalidArgs, match="its worker would get"):
        encode(job)
