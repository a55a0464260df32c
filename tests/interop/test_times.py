"""Times written into River's JSON columns equal Go's to the byte."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text

from interop.clients import Clients, Echo
from interop.peers import Peers
from interop.rpc import Process
from riverrun.jobs.row import AttemptError
from riverrun.outcome import error_json
from riverrun.queries.expressions import NOW, go_time
from riverrun.wire import go_json

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
GENERATE = (Phase.explicit, Phase.generate)
# Fractions of every length, so that most of them have trailing zeros.
fractions = st.integers(0, 6).flatmap(
    lambda zeros: st.integers(0, 10 ** (6 - zeros) - 1).map(lambda digits: digits * 10**zeros)
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.builds(
    lambda time, fraction, zone: time.replace(microsecond=fraction).astimezone(zone),
    # A day from the ends of the calendar, so that every zone can represent them.
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    fractions,
    zones,
)
moments = st.lists(times, min_size=20, max_size=60)
ODD = [
    datetime(2026, 1, 2, 3, 4, 5, microsecond, UTC)
    for microsecond in (0, 1, 10, 100_000, 120_000, 123_450, 999_990, 999_999)
]


@pytest.fixture(scope="module")
def peer(engine: Engine, peer_program: Path) -> Iterator[Process]:
    """One Go process for all cases, which writes nothing."""
    peers = Peers(engine, None)
    yield peers.go(peer_program)
    peers.close()


@settings(max_examples=25, phases=GENERATE)
@given(moments=moments)
@example(moments=ODD)
def test_attempt_errors_are_those_of_go(peer: Process, moments: list[datetime]) -> None:
    """An entry of a job's errors equals River's to the byte, at any time and in any zone."""
    asked = [(moment - EPOCH) // MICROSECOND for moment in moments]
    expected = peer.call("interop_attempt_errors", unix_micro=asked)["errors"]
    entries = [
        AttemptError(at=moment, attempt=number, error="failed", trace="main.go:1")
        for number, moment in enumerate(moments)
    ]
    assert [go_json.encode(error_json(entry)) for entry in entries] == expected


@settings(max_examples=10, phases=GENERATE)
@given(moments=moments, zone=st.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns"]))
@example(moments=ODD, zone="Asia/Kathmandu")
def test_times_in_statements_are_those_of_go(
    engine: Engine, moments: list[datetime], zone: str
) -> None:
    """A time that SQL writes into metadata equals Go's to the byte in any session time zone."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL timezone TO '{zone}'"))
        connection.execute(text("SET LOCAL datestyle TO 'German'"))
        for moment in moments:
            found = connection.scalar(select(go_time(NOW)), {"now": moment})
            assert found == go_json.time(moment)


def test_a_cancelled_job_has_its_time_in_rivers_form(here: Clients) -> None:
    """`cancel_attempted_at` is in UTC with a Z, as River writes it."""
    client = here.inserter()
    job = client.insert(here.engine, Echo()).job
    mark = client.cancel(here.engine, job.id).metadata["cancel_attempted_at"]
    stored = here.one("SELECT finalized_at FROM river_job WHERE id = :id", id=job.id)
    assert mark == go_json.time(stored)
