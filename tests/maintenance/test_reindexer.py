"""The leader rebuilds indexes."""

import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from riverrun.clock import Clock
from riverrun.maintenance.reindexer import Reindexer
from riverrun.verbs.reindex import INDEXES


def reindexer(engine: Engine, schema: str, **changes: Any) -> Reindexer:
    """Return a reindexer with an hour to spare."""
    options: dict[str, Any] = {
        "names": INDEXES,
        "schedule": lambda at: at + timedelta(days=1),
        "timeout_s": 60.0,
    }
    return Reindexer(engine, schema=schema, clock=Clock(), **(options | changes))


def filenodes(engine: Engine, schema: str) -> dict[str, int]:
    """Return the file of each index, by its name."""
    statement = text(
        "SELECT relname, relfilenode FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = :schema AND relkind = 'i'"
    )
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(statement, {"schema": schema})}


def test_every_index_of_the_job_table_is_built_anew(engine: Engine, schema: str) -> None:
    """Each index of River's list gets a new file, no other does, and nothing is left over."""
    before = filenodes(engine, schema)
    assert reindexer(engine, schema).run_once() == list(INDEXES)
    after = filenodes(engine, schema)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == set(INDEXES)


def test_an_index_that_is_not_there_is_passed_by(engine: Engine, schema: str) -> None:
    """An index that the application has dropped stays dropped."""
    with engine.begin() as connection:
        connection.execute(text(f"DROP INDEX {schema}.river_job_args_index"))
    done = reindexer(engine, schema).run_once()
    assert set(INDEXES) - set(done) == {"river_job_args_index"}


def test_what_is_beside_an_index_and_valid_is_left_alone(engine: Engine, schema: str) -> None:
    """An index that only looks like a leftover is kept, and the one beside it is not rebuilt."""
    with engine.begin() as connection:
        connection.execute(
            text(f"CREATE INDEX river_job_kind_ccnew1 ON {schema}.river_job (kind, queue)")
        )
    done = reindexer(engine, schema, names=["river_job_kind", "river_job_pkey"]).run_once()
    assert done == ["river_job_pkey"]
    assert "river_job_kind_ccnew1" in filenodes(engine, schema)


def test_what_an_earlier_rebuilding_left_is_removed(engine: Engine, schema: str) -> None:
    """Indexes left by a killed leader do not pile up, and do not stop later rebuilds."""
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as other, alone.connect() as killed:
        other.execute(text(f"LOCK TABLE {schema}.river_job IN ROW EXCLUSIVE MODE"))
        killed.exec_driver_sql("SET statement_timeout = 100")
        with pytest.raises(OperationalError, match="timeout"):
            killed.exec_driver_sql(f"REINDEX INDEX CONCURRENTLY {schema}.river_job_kind")
        killed.exec_driver_sql("RESET statement_timeout")
        other.rollback()
    assert "river_job_kind_ccnew" in filenodes(engine, schema)
    assert reindexer(engine, schema).run_once() == list(INDEXES)
    assert "river_job_kind_ccnew" not in filenodes(engine, schema)


def test_one_that_cannot_be_had_in_time_leaves_nothing(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A rebuild that waits too long for locks is given up, and its index is removed."""
    before = filenodes(engine, schema).keys()
    with engine.connect() as other:
        other.execute(text(f"LOCK TABLE {schema}.river_job IN ROW EXCLUSIVE MODE"))
        # The unfinished index can be dropped only when no transaction uses the table.
        free = threading.Timer(1, other.rollback)
        free.start()
        assert reindexer(engine, schema, timeout_s=0.05).run_once() == []
        free.join()
    assert "could not rebuild the index river_job_args_index" in caplog.text
    assert "QueryCanceled" in caplog.text
    assert filenodes(engine, schema).keys() == before


def test_a_stop_cancels_the_rebuilding(engine: Engine, schema: str) -> None:
    """A leader that resigns does not wait for a lock that another transaction holds."""
    service = reindexer(engine, schema, schedule=lambda at: at + timedelta(milliseconds=1))
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'REINDEX%' "
        "AND wait_event_type = 'Lock' AND datname = current_database()"
    )
    with engine.connect() as other, engine.connect() as watcher:
        other.execute(text(f"LOCK TABLE {schema}.river_job IN ROW EXCLUSIVE MODE"))
        service.start()
        pause = threading.Event()
        for _ in range(200):
            if watcher.execute(waits).scalar_one():
                break
            watcher.rollback()
            pause.wait(0.05)
        else:
            pytest.fail("the rebuilding did not begin within 10 s")
        # The unfinished index can be dropped only when no transaction uses the table.
        stopper = threading.Thread(target=service.stop)
        stopper.start()
        other.rollback()
        stopper.join(20)
        assert not stopper.is_alive()
    assert not [name for name in filenodes(engine, schema) if "_cc" in name]


class Waits(threading.Event):
    """A stop event that is set by the first wait for it, and keeps how long that was to last."""

    seconds = -1.0

    def wait(self, timeout: float | None = None) -> bool:
        """Keep `timeout`, and set the event."""
        assert timeout is not None
        self.seconds = timeout
        self.set()
        return True


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        (lambda _: datetime.max.replace(tzinfo=UTC), threading.TIMEOUT_MAX),
        (lambda now: now, 86_400.0),
        (lambda now: now - timedelta(hours=1), 86_400.0),
        (lambda now: now.replace(tzinfo=None), 86_400.0),
        (lambda _: None, 86_400.0),
        (lambda _: sys.exit(), 86_400.0),
    ],
    ids=["never", "now", "past", "naive", "none", "exit"],
)
def test_odd_times_of_a_schedule(
    engine: Engine, schema: str, schedule: Any, seconds: float
) -> None:
    """A schedule's time may be as late as can be; one that is no later time is due in a day."""
    service = reindexer(engine, schema, schedule=schedule)
    service.stopping = waits = Waits()
    service.run()
    assert waits.seconds == seconds
