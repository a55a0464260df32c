"""Wall clocks that are wrong, that jump, and that pass through the end of summer time."""

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from faults.conftest import Plant, planted
from faults.server import Server
from faults.test_server import lasting
from needs import need


class WallClock:
    """A wall clock for processes that is off by the seconds in its file.

    Monotonic time is not changed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": need("libfaketime"),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_s: float) -> None:
        """From now on, let the clock be `offset_s` seconds ahead of the true time."""
        # Replace the file in one step: a half-written file is not a number.
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+.0f}\n")
        new.chmod(0o644)
        new.replace(self._file)

    def offset_s(self) -> float:
        """Return how many seconds the clock is ahead, as a program that reads it sees it."""
        printed = subprocess.run(
            ["date", "+%s"],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(printed.stdout) - time.time()


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[list[WallClock]]:
    """Two wall clocks."""
    need("libfaketime")
    # A folder that every user can read: the server runs as another user.
    folder = Path("/tmp") / f"riverrun-clocks-{os.getpid()}"
    folder.mkdir()
    clocks = [WallClock(folder / name) for name in ("ada", "bob")]
    yield clocks
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.timeout(300)
def test_clocks_of_hosts_do_not_count(shaken: Plant, clocks: list[WallClock]) -> None:
    """Two workers' clocks, ten minutes apart, jump past each other: no effect happens twice.

    The leader goes on leading.
    """
    for name, clock, offset_s in zip(("ada", "bob"), clocks, (300, -300), strict=True):
        clock.set(offset_s)
        assert abs(clock.offset_s() - offset_s) < 30
        shaken.worker(name, environment={**clock.environment, "TZ": "Europe/Berlin"})
    term = "SELECT leader_id, elected_at FROM {s}.river_leader"
    shaken.wait(lambda: bool(shaken.rows(term)), "a leader", 20)
    elected = shaken.rows(term)
    with shaken.load() as ids:
        for offset_s in (-300, 300, 3600):
            for clock in clocks:
                clock.set(offset_s)
                offset_s = -offset_s
            lasting(2)
    shaken.wait_until_done(120)
    shaken.audit(ids, faults=0)
    shaken.prove_alive()
    assert shaken.rows(term) == elected


@pytest.mark.timeout(300)
def test_the_clock_of_the_server_jumps(
    clocks: list[WallClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summer time ends, then the server's clock jumps ahead five minutes: no job is lost.

    For a moment all clients seem dead, so an effect may happen once more.
    """
    end_of_summer = datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()
    offset_s = end_of_summer - 20 - time.time()
    clocks[0].set(offset_s)
    with monkeypatch.context() as patch:
        for name, value in clocks[0].environment.items():
            patch.setenv(name, value)
        server = Server()
        server.start()
    with server, planted(server.engine()) as plant:
        now = "SELECT extract(epoch FROM clock_timestamp())::float"
        assert abs(plant.one(now) - end_of_summer) < 120, "the server goes by another clock"
        with server.settings_changed(timezone="Europe/Berlin"):
            plant.worker("ada")
            plant.worker("bob")
            with plant.load() as ids:
                plant.wait(lambda: plant.one(now) > end_of_summer + 2, "summer's end", 60)
                clocks[0].set(offset_s + 300)
                lasting(8)
            plant.wait_until_done(120)
            plant.audit(ids, faults=1)
            plant.prove_alive()
