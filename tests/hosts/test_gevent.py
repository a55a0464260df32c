"""A process that gevent has patched, as gunicorn's gevent workers are: nothing holds it up."""

import subprocess
import sys

import pytest

pytest.importorskip("gevent")

HEAD = """
import os, sys
if "late" not in sys.argv:
    from gevent import monkey
    monkey.patch_all()
from sqlalchemy import create_engine, text
from riverrun import Client, JobCompleted, QueueConfig, RawArgs, Workers

workers = Workers()

@workers.register(kind="task")
def work(args: RawArgs) -> None: ...

engine = create_engine(sys.argv[1])
schema = sys.argv[2]
queues = {"default": QueueConfig(max_workers=4, poll_interval=0.1)}
client = Client(engine, workers=workers, queues=queues, schema=schema)
JOB = RawArgs(kind="task", encoded={})
"""

LOCK = """
import gevent

# The one that looks for jobs, and not a heartbeat.
waiting = text(
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%river_job%'"
    " AND query LIKE '%queue%'"
)
with client.subscribe(JobCompleted) as done, client:
    client.insert_many(engine, [JOB] * 20)
    for _ in range(20):
        assert done.get(timeout=30)
    with engine.begin() as connection, engine.connect() as other:
        connection.execute(text(f'LOCK TABLE "{schema}".river_job'))
        while not other.scalar(waiting):
            other.rollback()
            gevent.sleep(0.01)
    client.insert(engine, JOB)
    assert done.get(timeout=30)
print("went on")
"""

LATE = """
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
from gevent import monkey
monkey.patch_all()
import gevent, threading

turns = 0
client.insert_many(engine, [JOB] * 200)
assert client.flush_announcements(30)
while any(each.name == "riverrun.announcer" for each in threading.enumerate()):
    gevent.sleep(0.001)
    turns += 1
assert turns > 20, turns
print("went on", flush=True)
os._exit(0)
"""

PROCESS = """
workers.register(kind="other", executor="process")(work)
try:
    client.start()
except Exception as error:
    print(error)
"""


def _run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_client_that_waits_for_a_lock_holds_up_nothing_else(
    database_url: str, schema: str
) -> None:
    """While a client's statement waits for a lock, other greenlets go on, and may release it."""
    assert _run(LOCK, database_url, schema) == "went on"


def test_patches_after_a_fork(database_url: str, schema: str) -> None:
    """In a child of `gunicorn --preload -k gevent`, patched late, an insert holds up nothing."""
    assert _run(LATE, database_url, schema, "late") == "went on"


def test_workers_in_processes_are_refused(database_url: str, schema: str) -> None:
    """A client with workers of `executor="process"`, which would all fail there, does not start."""
    error = _run(PROCESS, database_url, schema)
    assert "executor='process', which gevent's patches do not allow" in error
