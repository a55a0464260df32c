"""The leader samples what was finalized, turn by turn, by a clock that the tests move."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, text

from factories import insert_job
from riverrun.maintenance import sampler as service
from riverrun.maintenance.sampler import Sampler
from riverrun.migrations import migrate
from riverrun.models import Job, Sample
from riverrun.queries import samples as queries
from riverrun.testing.clock import FrozenClock
from riverrun.verbs import samples as verbs
from riverrun.verbs.samples import KEPT_S, Samples, list_samples, percentile

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Leader:
    """Samples a schema as its leader, and reads the samples."""

    def __init__(self, engine: Engine, schema: str) -> None:
        self.engine, self.schema = engine, schema
        self.clock = FrozenClock()
        self.sampler = self.another()

    def another(self) -> Sampler:
        """Return the sampler of another leader, or of another term."""
        return Sampler(self.engine, schema=self.schema, clock=self.clock, rng=random.Random(1))

    def sample(self, now: datetime) -> None:
        """Take turns until nothing is left to do at `now`."""
        while (done := self.sampler.run_once(now)) is not None and done.more:
            pass

    def list(self, now: datetime, **options: Any) -> Samples:
        """Return the samples that a chart shows at `now`."""
        return list_samples(self.engine, schema=self.schema, now=now, **options)

    def rows(self) -> dict[int, int]:
        """Return the number of samples of each length."""
        return self._by_step(func.count())

    def totals(self) -> dict[int, int]:
        """Return the number of jobs in the samples of each length."""
        return self._by_step(func.sum(Sample.count))

    def _by_step(self, what: Any) -> dict[int, int]:
        statement = select(Sample.step_s, what).group_by(Sample.step_s)
        options = {"schema_translate_map": {None: self.schema}}
        with self.engine.connect() as connection:
            found = connection.execute(statement, execution_options=options)
            return {step_s: int(value) for step_s, value in found}

    def finish(self, at: datetime, **changes: Any) -> None:
        """Insert a job that was finalized at `at`, after 1 s of waiting and 2 s of running."""
        values = {"state": "completed", "scheduled_at": at - 3 * SECOND, **changes}
        values.setdefault("attempted_at", at - 2 * SECOND)
        insert_job(self.engine, self.schema, finalized_at=at, **values)

    def finish_many(self, *rows: dict[str, Any]) -> None:
        """Insert jobs that were finalized."""
        options = {"schema_translate_map": {None: self.schema}}
        with self.engine.begin() as connection:
            connection.execute(
                insert(Job).values([{"args": {}, **row} for row in rows]),
                execution_options=options,
            )


@pytest.fixture
def leader(engine: Engine, schema: str) -> Leader:
    """The leader of the test's schema."""
    return Leader(engine, schema)


def names(samples: Samples) -> dict[str | None, int]:
    """Return the count of each series, in their order."""
    return {series.name: series.count for series in samples.series}


def test_what_was_finalized_is_counted_by_each_key(leader: Leader) -> None:
    """Each job counts once, in the ten seconds in which it was finalized, with its wait and run."""
    leader.finish(T0, kind="a", queue="x")
    leader.finish(T0 + 9 * SECOND, kind="a", queue="y")
    leader.finish(T0 + 10 * SECOND, kind="b", queue="x", state="discarded")
    leader.finish(T0 + 10 * SECOND, kind="b", queue="x", state="cancelled")
    insert_job(leader.engine, leader.schema, state="running")
    now = T0 + 24 * SECOND
    for _ in range(2):
        leader.sample(now)
    by_queue = leader.list(now, span="15m")
    assert (by_queue.kept, by_queue.step_s) == (True, 10)
    assert (by_queue.from_at, by_queue.until_at) == (
        T0 + 30 * SECOND - 15 * MINUTE,
        T0 + 30 * SECOND,
    )
    assert names(by_queue) == {"x": 3, "y": 1}
    first, second = by_queue.series[0].points
    assert (first.at, first.count, first.discarded) == (T0, 1, 0)
    assert (second.at, second.count, second.discarded) == (T0 + 10 * SECOND, 2, 1)
    assert (first.wait_s, first.run_s) == (1.0, 2.0)
    # The one that was discarded by an attempt has a wait and a run, the cancelled one has none.
    assert (second.wait_s, second.run_s) == (1.0, 2.0)
    assert first.wait_p95_s == pytest.approx(1.0, rel=1)
    assert first.run_p95_s == pytest.approx(2.0, rel=1)
    assert names(leader.list(now, by="kind")) == {"a": 2, "b": 2}
    assert names(leader.list(now, by="state")) == {"completed": 2, "cancelled": 1, "discarded": 1}
    assert names(leader.list(now, by="kind", queue="x")) == {"b": 2, "a": 1}
    assert names(leader.list(now, by="queue", kind="a")) == {"x": 1, "y": 1}
    assert names(leader.list(now, by="queue", state="discarded")) == {"x": 1}
    assert names(leader.list(now, by="queue", kind="none")) == {}


def test_outcomes_that_come_a_little_late_count(leader: Leader) -> None:
    """Ten seconds are sampled 3 s after their end, not before, and once."""
    leader.finish(T0 + 5 * SECOND)
    leader.sample(T0 + 12 * SECOND)
    assert leader.totals() == {}
    leader.finish(T0 + 6 * SECOND)
    for now in (13, 14, 23):
        leader.sample(T0 + now * SECOND)
        assert leader.totals() == {10: 2}


def test_two_that_both_believe_to_lead_count_once(leader: Leader) -> None:
    """Another leader goes on where the last one ended, and makes up for 10 min at most."""
    leader.finish(T0)
    leader.sample(T0 + 13 * SECOND)
    for gap in (timedelta(0), 9 * MINUTE):
        leader.finish(T0 + 10 * SECOND + gap)
        now = T0 + 23 * SECOND + gap
        for sampler in (leader.another(), leader.another()):
            leader.sampler = sampler
            leader.sample(now)
    assert leader.totals()[10] == 3
    leader.finish(T0 + 20 * MINUTE)
    leader.sampler = leader.another()
    leader.sample(T0 + 40 * MINUTE)
    assert leader.totals()[10] == 3


def test_odd_times_are_counted_without_a_wait(leader: Leader) -> None:
    """Times that a clock, another program or a hand has written make no sample fail."""
    odd: list[dict[str, Any]] = [
        {"scheduled_at": T0 + HOUR},
        {"attempted_at": T0 + HOUR},
        {"attempted_at": None},
    ]
    for changes in odd:
        leader.finish(T0, **changes)
    with leader.engine.begin() as connection:
        for column, value in (
            ("scheduled_at", "-infinity"),
            ("attempted_at", "infinity"),
            ("scheduled_at", "0044-03-15 BC"),
        ):
            job_id = insert_job(
                connection, leader.schema, state="completed", finalized_at=T0, attempted_at=T0
            )
            connection.execute(
                text(f"UPDATE {leader.schema}.river_job SET {column} = '{value}' WHERE id = :id"),
                {"id": job_id},
            )
    leader.sample(T0 + 13 * SECOND)
    [series] = leader.list(T0 + 13 * SECOND).series
    [point] = series.points
    assert point.count == 6
    assert point.run_s == 0.0  # of the one that was due in 44 BC, which is only long ago


def test_the_samples_of_a_time_are_bounded(leader: Leader) -> None:
    """Beyond 50 series, the less frequent ones are one for each state, and no job is lost."""
    rows: list[dict[str, Any]] = []
    for number in range(60):
        row = {"kind": f"kind_{number:02}", "queue": "default", "finalized_at": T0}
        rows += [{**row, "state": "completed"}] * (2 if number < 50 else 1)
    rows += [{"kind": "rare", "queue": "q", "state": "discarded", "finalized_at": T0}]
    leader.finish_many(*rows)
    leader.sample(T0 + 2 * MINUTE)
    assert leader.rows() == {10: 52, 60: 52}
    assert leader.totals() == {10: 111, 60: 111}
    by_kind = leader.list(T0 + 2 * MINUTE, by="kind")
    assert len(by_kind.series) == 21
    assert by_kind.series[0].name == "kind_00"
    assert (by_kind.series[-1].name, sum(names(by_kind).values())) == (None, 111)
    assert names(leader.list(T0 + 2 * MINUTE, by="state")) == {"completed": 110, "discarded": 1}


def test_samples_are_summed_up_and_cleaned(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two days of a job a minute no level loses one, and none keeps more than its time."""
    # A turn of 50 min stands for 300 turns of 10 s.
    monkeypatch.setattr(verbs, "GAP_S", 3_600.0)
    monkeypatch.setattr(verbs, "CHUNK_S", 3_600.0)
    begin, span = T0, 54 * HOUR
    count = span // MINUTE
    row: dict[str, Any] = {"kind": "k", "queue": "q", "state": "completed"}
    leader.finish_many(*({**row, "finalized_at": begin + n * MINUTE} for n in range(count)))
    now = begin
    while now < begin + span:
        now += 50 * MINUTE
        leader.sample(now)
        leader.sampler = leader.another()
    totals, rows = leader.totals(), leader.rows()
    assert totals[3_600] == 60 * ((now - T0) // HOUR)
    assert totals[43_200] == 720 * ((now - T0) // (12 * HOUR))
    assert totals[60] == rows[60] <= KEPT_S[60] / 60
    assert rows[10] <= KEPT_S[10] / 60 + 1
    assert rows[900] <= KEPT_S[900] / 900
    [days] = leader.list(now, span="2d").series
    assert days.count in range(47 * 60, 48 * 60 + 1)
    [quarter] = leader.list(now, span="90d").series
    assert quarter.count == totals[3_600]


def test_the_table_is_bounded_for_good(leader: Leader) -> None:
    """After 90 days there are at most 310,050 samples: the kept time of each length, in series."""
    most = sum(kept_s / step_s for step_s, kept_s in KEPT_S.items())
    assert most * (queries.SERIES_MAX + 3) <= 310_050
    values = text(
        f"INSERT INTO {leader.schema}.riverrun_sample SELECT :step,"
        " date_bin(make_interval(secs => :step), CAST(:now AS timestamptz), '2000-01-01 00:00+00')"
        " - n * make_interval(secs => :step), 'q', 'k', 'completed', 1, 0, 0, '{}', '{}'"
        " FROM generate_series(0, :n) n"
    )
    now = T0 + 7 * SECOND
    with leader.engine.begin() as connection:
        for step_s, kept_s in KEPT_S.items():
            binds = {"step": step_s, "now": now, "n": int(kept_s / step_s) + 500}
            connection.execute(values, binds)
    leader.sample(now)
    rows = leader.rows()
    for step_s, kept_s in KEPT_S.items():
        assert rows[step_s] in range(int(kept_s / step_s), int(kept_s / step_s) + 2), step_s


def test_cleaning_goes_in_batches(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn deletes at most so many samples of each length, and says that there are more."""
    monkeypatch.setattr(service, "BATCH", 4)
    for number in range(10):
        leader.finish(T0 + number * 10 * SECOND)
    leader.sample(T0 + 2 * MINUTE)
    done = leader.sampler.run_once(T0 + 100 * timedelta(days=1))
    assert done is not None
    assert (done.deleted, done.more) == (4 + 1, True)  # of 10 s and of 1 min
    leader.sample(T0 + 100 * timedelta(days=1))
    assert leader.rows() == {}


def test_the_index_serves_the_count(leader: Leader) -> None:
    """Jobs are found by the index of what was finalized, in each of the three states."""
    compiled = queries.count_final().compile(
        dialect=leader.engine.dialect,
        schema_translate_map={None: leader.schema},
        render_schema_translate=True,
    )
    params = {**compiled.params, "since": T0, "until": T0 + 10 * SECOND}
    with leader.engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        rows = connection.exec_driver_sql(f"EXPLAIN {compiled}", params).scalars()
        plan = "\n".join(rows)
        connection.rollback()
    assert plan.count("river_job_state_and_finalized_at_index") >= 3, plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    "statement",
    [
        queries.marks,
        queries.clean,
        queries.sum_up,
        lambda: queries.list_samples("kind", 10, None),
        lambda: queries.list_samples("queue", 900, 60),
    ],
)
def test_the_primary_key_serves_the_samples(leader: Leader, statement: Callable[[], Any]) -> None:
    """No statement of a turn or a chart reads the whole table."""
    compiled = statement().compile(
        dialect=leader.engine.dialect,
        schema_translate_map={None: leader.schema},
        render_schema_translate=True,
    )
    times = {name: T0 for name in compiled.params if name.startswith("before_")}
    now = T0 + 4_000 * MINUTE
    lengths = {"step_s": 60, "from_s": 10}
    params = {**compiled.params, **times, **lengths}
    params |= {"since": now - HOUR, "until": now, "limit": 10_000}
    with leader.engine.connect() as connection:
        connection.execute(
            text(
                f"INSERT INTO {leader.schema}.riverrun_sample SELECT step,"
                " CAST(:now AS timestamptz) - 60 * n * interval '1 s', 'q', 'k' || n, 'completed',"
                " 1, 0, 0, '{}', '{}' FROM generate_series(0, 4000) n,"
                " unnest('{10,60,900,3600,43200}'::int[]) step"
            ),
            {"now": now},
        )
        connection.execute(text(f"ANALYZE {leader.schema}.riverrun_sample"))
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}", params).scalars())
        connection.rollback()
    assert "riverrun_sample_pkey" in plan
    assert "Seq Scan" not in plan, plan


def test_at_version_2_nothing_is_sampled(leader: Leader) -> None:
    """Without version 3 a turn does nothing, a list is empty and says so."""
    migrate(leader.engine, line="riverrun", to=2, schema=leader.schema)
    leader.finish(T0)
    assert leader.sampler.run_once(T0 + MINUTE) is None
    assert not leader.sampler.turn()
    found = leader.list(T0 + MINUTE)
    assert (found.kept, found.series) == (False, [])
    migrate(leader.engine, line="riverrun", schema=leader.schema)
    leader.clock.advance(MINUTE)
    leader.sample(T0 + MINUTE)
    assert names(leader.list(T0 + MINUTE)) == {"default": 1}


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([], 0.95, None),
        ([0, 0, 0], 0.95, None),
        ([100], 0.5, 0.0005),
        ([0, 100], 0.5, 0.0015),
        ([50, 50], 0.95, 0.0019),
        ([0, 0, 10, 0], 1.0, 0.004),
        ([0] * 23 + [5], 0.95, 0.001 * 2**22),
        ([1, *[0] * 22, 1], 0.5, 0.001),
    ],
)
def test_a_percentile(counts: list[int], share: float, value: float | None) -> None:
    """A percentile lies in the class that has it, and at the last bound beyond that."""
    found = percentile(counts, share)
    assert found == (None if value is None else pytest.approx(value))
