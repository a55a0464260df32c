"""The server, or the way to it, fails under load; afterwards all clients work as before."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from faults.conftest import LONG, Plant
from faults.proxy import Proxy
from faults.server import Server, fill, small_disk
from faults.worker import Book
from riverrun import verbs

LASTS_S = 30.0 if LONG else 2.0
TIMES = 10 if LONG else 2
DONE = "SELECT count(*) FROM {s}.river_job WHERE state = 'completed'"


def lasting(seconds: float = LASTS_S) -> None:
    """Wait while a fault lasts."""
    threading.Event().wait(seconds)


def immediate_shutdown(server: Server, proxy: Proxy, plant: Plant) -> None:
    """The server stops as after a power failure, and recovers."""
    for _ in range(TIMES):
        server.shut_down()
        lasting(1)
        server.start_again()
        lasting(1)


def fast_shutdown(server: Server, proxy: Proxy, plant: Plant) -> None:
    """The server is restarted in order, which clients are notified of."""
    server.shut_down(signal.SIGINT)
    lasting()
    server.start_again()


def crashed_backend(server: Server, proxy: Proxy, plant: Plant) -> None:
    """One of the server's processes is killed, and the server terminates the others."""
    for _ in range(TIMES):
        server.crash_a_backend()
        lasting(1)
        server.wait_until_up()


def terminated_backends(server: Server, proxy: Proxy, plant: Plant) -> None:
    """An administrator terminates every connection, again and again."""
    for _ in range(3 * TIMES):
        server.cut_all()
        lasting(0.3)


def refused_connections(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Nothing listens at the server's address."""
    proxy.refuse()
    lasting(30 if LONG else 5)
    proxy.accept()


def connections_used_up(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Other clients hold every connection that the server allows."""
    with ExitStack() as held:

        def hold() -> None:
            with suppress(SQLAlchemyError):
                while True:
                    held.enter_context(server.engine().connect())

        hold()
        proxy.cut()
        end = threading.Event()
        for _ in range(int(LASTS_S / 0.1)):
            hold()
            end.wait(0.1)


def timeouts(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Every statement times out because another transaction has locked the table."""
    with server.settings_changed(statement_timeout="100ms", lock_timeout="50ms"):
        locked(server, proxy, plant)


def locked(server: Server, proxy: Proxy, plant: Plant) -> None:
    """A migration of the application has locked the table."""
    with plant.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql("SET lock_timeout = 0")
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"LOCK TABLE {plant.schema}.river_job")
        lasting()
        connection.exec_driver_sql("ROLLBACK")


def read_only(server: Server, proxy: Proxy, plant: Plant) -> None:
    """The address leads to a server that is not the primary any more, or not yet."""
    with server.settings_changed(default_transaction_read_only="on"):
        proxy.cut()
        lasting()


def delays(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Each direction takes 100 ms longer."""
    proxy.delay_s = 0.1
    lasting()
    proxy.delay_s = 0.0


def cuts(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Connections are reset, again and again."""
    for _ in range(3 * TIMES):
        proxy.cut()
        lasting(0.3)


def lost_answers(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Requests are executed, but their answers never arrive."""
    for _ in range(TIMES):
        proxy.deafen()
        lasting(0.5)
        proxy.cut()
        lasting(0.5)


def silence(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Nothing gets through, and no connection is closed; later everything gets through again."""
    proxy.silence()
    lasting()
    proxy.heal()


def disk_full(server: Server, proxy: Proxy, plant: Plant) -> None:
    """The disk with the jobs on it is full, and later has room again."""
    table, small = f"{plant.schema}.river_job", server.directory / "small"
    with small_disk(small, "16m") as ballast:
        server.run(f"CREATE TABLESPACE small LOCATION '{small}'")
        server.run(f"ALTER TABLE {table} SET TABLESPACE small")
        fill(ballast)
        for _ in range(int(LASTS_S)):
            with pytest.raises(OperationalError, match="No space left on device"):
                plant.rows(
                    "INSERT INTO {s}.effect SELECT 0, 0, '' WHERE false;"
                    "INSERT INTO {s}.river_job (kind, max_attempts, args)"
                    " SELECT 'book', 25, '{{}}' FROM generate_series(1, 100000)"
                )
            lasting(1)
        before = plant.one(DONE)
        ballast.unlink()
        plant.wait(lambda: plant.one(DONE) > before + 50, "work goes on", 60)
        server.run(f"ALTER TABLE {table} SET TABLESPACE pg_default")
        server.run("DROP TABLESPACE small")


def deadlocks(server: Server, proxy: Proxy, plant: Plant) -> None:
    """Two transactions of the application lock jobs in opposite orders.

    Batches of riverrun skip locked rows, so a deadlock needs two other transactions.
    """
    found = "SELECT sum(deadlocks) FROM pg_stat_database"
    before, end = plant.one(found), time.monotonic() + LASTS_S
    while time.monotonic() < end or plant.one(found) == before:
        assert time.monotonic() < end + 60, "no deadlock came"
        threads = [
            threading.Thread(target=_touch_all, args=(plant, order)) for order in ("ASC", "DESC")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _touch_all(plant: Plant, order: str) -> None:
    with suppress(OperationalError), plant.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        running = f"SELECT id FROM {plant.schema}.river_job WHERE state = 'running'"
        for (job_id,) in connection.exec_driver_sql(f"{running} ORDER BY id {order}").all():
            touch = f"UPDATE {plant.schema}.river_job SET tags = tags WHERE id = {job_id}"
            connection.exec_driver_sql(touch)
        connection.exec_driver_sql("COMMIT")


def long_transaction(server: Server, proxy: Proxy, plant: Plant) -> None:
    """A transaction of the application that inserted jobs stays open; other jobs go on."""
    engine = plant.engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        verbs.insert_many(connection, [Book() for _ in range(50)], schema=plant.schema)
        before = plant.one(DONE)
        lasting(120 if LONG else 3)
        plant.wait(lambda: plant.one(DONE) > before + 50, "others' jobs go on", 30)


def zones(server: Server, proxy: Proxy, plant: Plant) -> None:
    """The server's time zone changes to one with summer time, as an administrator may set it."""
    for zone in ("Europe/Berlin", "Pacific/Kiritimati", "America/St_Johns"):
        with server.settings_changed(timezone=zone):
            proxy.cut()
            lasting(1)


FAULTS: list[tuple[Callable[[Server, Proxy, Plant], None], int]] = [
    (immediate_shutdown, TIMES),
    (fast_shutdown, 1),
    (crashed_backend, TIMES),
    (terminated_backends, 3 * TIMES),
    (refused_connections, 1),
    (connections_used_up, 1),
    (timeouts, TIMES),
    (locked, 0),
    (read_only, 1),
    (delays, 0),
    (cuts, 3 * TIMES),
    (lost_answers, 2 * TIMES),
    (silence, 0),
    (disk_full, TIMES),
    (deadlocks, 3 * TIMES),
    (long_transaction, 0),
    (zones, 3),
]


@pytest.mark.timeout(1200 if LONG else 240)
@pytest.mark.parametrize(
    ("fault", "cut_off"), FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_nothing_is_lost_stuck_or_doubled(
    fault: Callable[[Server, Proxy, Plant], None],
    cut_off: int,
    server: Server,
    proxy: Proxy,
    shaken: Any,
) -> None:
    """Whatever the server does under load, all jobs are worked, with effects as promised.

    Afterwards each client receives notifications, works and can lead as before.
    """
    shaken.workers("ada", "bob")
    with shaken.load() as ids:
        fault(server, proxy, shaken)
    shaken.wait_until_done(120)
    shaken.audit(ids, faults=cut_off)
    shaken.prove_alive()
