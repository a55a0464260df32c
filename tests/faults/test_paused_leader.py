"""A leader paused for longer than its term is replaced, and knows that when it continues."""

import signal
from typing import Any

TERM_S = 15.0


def test_a_paused_leader_is_followed_and_does_not_come_back(plant: Any) -> None:
    """After SIGSTOP another client leads in time, and after SIGCONT it goes on leading.

    The change takes at most a term and the interval between two elections.
    """
    processes = {name: plant.worker(name) for name in ("ada", "bob")}
    leader = "SELECT max(leader_id) FROM {s}.river_leader WHERE expires_at > clock_timestamp()"
    plant.wait(lambda: plant.one(leader) in processes, "a leader", 20)
    first = plant.one(leader)
    processes[first].send_signal(signal.SIGSTOP)
    plant.wait(lambda: plant.one(leader) not in {None, first}, "another leader", TERM_S + 10)
    second = plant.one(leader)
    since = "SELECT elected_at FROM {s}.river_leader"
    elected_at = plant.one(since)
    processes[first].send_signal(signal.SIGCONT)
    # Longer than the five seconds between two elections.
    moment = plant.one("SELECT clock_timestamp()")
    later = "SELECT extract(epoch FROM clock_timestamp() - '{}'::timestamptz)"
    plant.wait(lambda: plant.one(later.format(moment)) > 7, "seven seconds", 20)
    assert (plant.one(leader), plant.one(since)) == (second, elected_at)
    for process in processes.values():
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
