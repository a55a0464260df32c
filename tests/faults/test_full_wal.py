"""The disk of the write-ahead log is full: PostgreSQL cannot even start."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy.exc import OperationalError

from faults.conftest import planted
from faults.server import Server, fill, small_disk
from faults.test_server import DONE, LASTS_S, lasting
from riverrun.embedded import PostgresNotStarted


@pytest.fixture
def cramped() -> Iterator[tuple[Server, Path]]:
    """A server whose write-ahead log is on a disk of four segments, and the file that fills it."""
    with Server() as server:
        server.run("ALTER SYSTEM SET min_wal_size = '32MB'")
        server.run("ALTER SYSTEM SET max_wal_size = '32MB'")
        server.shut_down(signal.SIGINT)
        wal, small = server.directory / "data" / "pg_wal", server.directory / "small"
        with small_disk(small, "64m") as ballast:
            shutil.copytree(wal, small / "pg_wal")
            for path in (small / "pg_wal", *(small / "pg_wal").rglob("*")):
                shutil.chown(path, small.stat().st_uid)
            shutil.rmtree(wal)
            wal.symlink_to(small / "pg_wal")
            server.start_again()
            yield server, ballast
            server.shut_down()


@pytest.mark.timeout(240)
def test_a_full_wal_loses_nothing(cramped: tuple[Server, Path]) -> None:
    """When the log's disk has room again, PostgreSQL starts and all workers recover."""
    server, ballast = cramped
    with planted(server.engine()) as plant:
        plant.workers("ada", "bob")
        with plant.load() as ids:
            fill(ballast)
            with suppress(OperationalError):
                while True:
                    server.run("SELECT pg_logical_emit_message(false, '', repeat('x', 4000000))")
            assert server.has_said("PANIC:  could not write to file"), "the log has room"
            cut_off, end = 1, monotonic() + LASTS_S
            while monotonic() < end:
                lasting(0.3)
                if server.has_ended():
                    with suppress(PostgresNotStarted):
                        server.start_again()
                        cut_off += 1
            ballast.unlink()
            if server.has_ended():
                server.start_again()
            server.wait_until_up()
            before = plant.one(DONE)
            plant.wait(lambda: plant.one(DONE) > before + 50, "work goes on", 60)
        plant.wait_until_done(120)
        plant.audit(ids, faults=cut_off)
        plant.prove_alive()
