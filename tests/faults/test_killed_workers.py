"""Workers are killed and paused; the database is then checked against what is promised."""

import logging
import random
import signal
import subprocess
import threading
import time
from typing import Any

import pytest

from faults.conftest import LONG, Plant
from faults.worker import Book, Send
from riverrun import verbs

logger = logging.getLogger(__name__)

RESCUE_S = 30.0
"""Seconds within which the jobs of a dead client are rescued, with default settings."""

ROUNDS = 200 if LONG else 10


def test_nothing_is_lost_and_nothing_stuck(plant: Plant) -> None:
    """Five workers, one of them the leader, are killed; a sixth is paused until it counts as dead.

    Every job is completed. An effect that is committed with the completion happens once; any other
    effect may happen once more for each rescue. Each job of a dead worker is rescued within 30 s,
    and its errors say so.
    """
    names = [f"worker-{n}" for n in range(6)]
    doomed = plant.workers(*names)
    # Long jobs first, so that each worker has some when it is killed; then many short ones.
    jobs: list[Any] = [Book(8.0) for _ in range(12)] + [Send(8.0) for _ in range(12)]
    verbs.insert_many(plant.engine, jobs, schema=plant.schema)
    verbs.insert_many(
        plant.engine,
        [kind() for _ in range(300) for kind in (Book, Send)],
        schema=plant.schema,
    )
    busy = "SELECT count(DISTINCT attempted_by[1]) FROM {s}.river_job WHERE state = 'running'"
    plant.wait(lambda: plant.one(busy) == len(names), "every worker at work", 20)
    leader = plant.one("SELECT leader_id FROM {s}.river_leader")
    assert leader in names
    paused = next(p for p, name in zip(doomed, names, strict=True) if name != leader)
    paused.send_signal(signal.SIGSTOP)
    rng, pause = random.Random(7), threading.Event()
    for process in doomed:
        if process is not paused:
            pause.wait(rng.random() * 0.2)
            process.kill()
    killed_at = plant.one("SELECT clock_timestamp()")
    sleeper = names[doomed.index(paused)]
    owned = (
        "SELECT id FROM {s}.river_job WHERE state = 'running' AND"
        " attempted_by[array_length(attempted_by, 1)] "
    )
    of_the_dead = f"{owned} NOT IN ('survivor', '{sleeper}')"
    # A short job of the paused worker may be between its statement and its commit and hold its row.
    of_the_sleeper = f"{owned} = '{sleeper}' AND id <= 24"
    lost = {row.id for row in plant.rows(of_the_dead)}
    assert lost
    survivor = plant.worker("survivor")
    plant.wait(lambda: not plant.rows(of_the_dead), "the jobs of the dead are back", RESCUE_S)
    plant.wait(lambda: not plant.rows(of_the_sleeper), "those of the sleeper are back", RESCUE_S)
    # The paused worker continues. It must not commit jobs that belong to another worker by now.
    paused.send_signal(signal.SIGCONT)
    unfinished = "SELECT count(*) FROM {s}.river_job WHERE state <> 'completed'"
    plant.wait(lambda: plant.one(unfinished) == 0, "every job is completed", 60)
    for process in (paused, survivor):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

    effects = plant.audit(set(), faults=len(names))
    assert len(effects) == 624
    assert all(row.effects <= 1 + row.rescues for row in effects)
    rescued = plant.rows(
        "SELECT id, errors[1]->>'error' AS error, attempted_at FROM {s}.river_job"
        " WHERE metadata ? 'river:rescue_count'"
    )
    assert lost <= {row.id for row in rescued}
    for row in rescued:
        assert row.error == "Stuck job rescued by JobRescuer"
        assert (row.attempted_at - killed_at).total_seconds() < RESCUE_S + 10
    assert plant.one("SELECT count(*) FROM {s}.riverrun_client") == 0


def test_a_worker_that_is_started_again_under_its_name(plant: Plant) -> None:
    """Jobs of a killed worker are rescued within 30 s, even if another starts under its name."""
    first = plant.worker("ada")
    verbs.insert_many(plant.engine, [Book(60.0) for _ in range(3)], schema=plant.schema)
    running = "SELECT count(*) FROM {s}.river_job WHERE state = 'running'"
    plant.wait(lambda: plant.one(running) == 3, "it is at work", 20)
    first.kill()
    plant.worker("ada")
    back = "SELECT count(*) FROM {s}.river_job WHERE metadata->>'river:rescue_count' = '1'"
    plant.wait(lambda: plant.one(back) == 3, "its jobs are back", RESCUE_S + 10)


@pytest.mark.timeout(ROUNDS * 10 + 120)
def test_killed_at_random_moments(plant: Plant) -> None:
    """Whichever worker is killed or paused, and at whatever moment, every job is completed.

    An effect may happen once more for each time that its job was rescued.
    """
    rng, pause = random.Random(20), threading.Event()
    names = ("w0", "w1", "w2")
    living = dict(zip(names, plant.workers(*names), strict=True))
    asleep: list[tuple[float, subprocess.Popen[str]]] = []
    awake: list[subprocess.Popen[str]] = []
    leader = "SELECT max(leader_id) FROM {s}.river_leader WHERE expires_at > clock_timestamp()"

    def wake() -> None:
        """Let the first paused worker continue and then stop in order."""
        process = asleep.pop(0)[1]
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        awake.append(process)

    with plant.load() as ids:
        for turn in range(ROUNDS):
            pause.wait(rng.random())
            leading = plant.one(leader)
            name = leading if turn % 3 == 0 and leading in living else rng.choice(list(living))
            process = living.pop(name)
            if turn % 5 == 4:
                process.send_signal(signal.SIGSTOP)
                asleep.append((time.monotonic() + 25, process))
            else:
                process.kill()
            while asleep and asleep[0][0] < time.monotonic():
                wake()
            successor = f"w{turn + 3}"
            living[successor] = plant.worker(successor)
    # Wake them before all jobs are done: a worker that was paused between a statement and its
    # commit holds its job's row.
    while asleep:
        pause.wait(max(0.0, asleep[0][0] - time.monotonic()))
        wake()
    plant.wait_until_done(90)
    assert {process.wait(60) for process in awake} == {0}
    jobs = plant.audit(ids, faults=ROUNDS)
    assert not [job for job in jobs if job.effects > 1 + job.rescues], "too often"
    logger.info(
        "%s rounds: %s jobs, %s of them rescued, %s had their effect once more",
        ROUNDS,
        len(jobs),
        sum(job.rescues > 0 for job in jobs),
        sum(job.effects > 1 for job in jobs),
    )
