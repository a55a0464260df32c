"""A process that forks, as servers do: which client its children have."""

import os
import signal
import subprocess
import sys

from sqlalchemy import Engine

from riverrun import verbs
from waiting import DEADLINE_S

FORKS = """
import os, sys
from sqlalchemy import create_engine
from riverrun import Client, QueueConfig, RawArgs, Workers, verbs

workers = Workers()

@workers.register(kind="task")
def work(args: RawArgs) -> None: ...

engine = create_engine(sys.argv[1])
queues = {"default": QueueConfig()}
client = Client(engine, workers=workers, queues=queues, schema=sys.argv[2])
named = Client(engine, workers=workers, schema=sys.argv[2], id="named")
client.start()
from_child, to_parent = os.pipe()
from_parent, to_child = os.pipe()
pid = os.fork()
if pid == 0:
    assert not client.running
    client.stop()  # nothing of the parent's
    client.start()
    assert named.id == "named"
    os.write(to_parent, client.id.encode())
    os.read(from_parent, 1)
    client.stop()
    os._exit(0)
child_id = os.read(from_child, 200).decode()
assert child_id != client.id
lives = {each.id for each in verbs.list_clients(engine, schema=sys.argv[2])}
assert lives == {child_id, client.id}, (lives, child_id, client.id)
os.write(to_child, b"x")
assert os.waitpid(pid, 0)[1] == 0
assert client.running and client.healthy
client.stop()
print("both worked")
"""


def test_a_forked_child_is_a_client_of_its_own(database_url: str, schema: str) -> None:
    """A child's client has an id of its own and none of the parent's threads.

    Parent and child each work and stop independently.
    """
    done = subprocess.run(
        [sys.executable, "-c", FORKS, database_url, schema],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "both worked\n", done.stderr


CONNECTS = """
import os, sys, threading
from sqlalchemy import create_engine
from riverrun import Client

engine = create_engine(sys.argv[1])
with engine.connect() as old:
    pid = old.connection.driver_connection.info.backend_pid
client = Client(engine)
def inherited() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink("/proc/self/fd/" + name))
        except FileNotFoundError:
            pass
    return {each for each in found if each.startswith("socket:")}

kept = []
for turn in range(40):
    files = [open(os.devnull) for _ in range(6)]
    made = []
    begin = threading.Barrier(4)

    def connect() -> None:
        begin.wait()
        made.append(engine.raw_connection())  # one of them the old one

    threads = [threading.Thread(target=connect) for _ in range(3)]
    for thread in threads:
        thread.start()
    begin.wait()
    threading.Event().wait(turn / 20_000)  # in each turn at another moment
    for file in files:  # their numbers are the next connections'
        file.close()
    threading.Event().wait(turn / 8_000)
    child = os.fork()
    if child == 0:
        # One closed socket stands in the place of all.
        os._exit(len(inherited()))
    kept.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for thread in threads:
        thread.join()
    for connection in made:
        if connection.driver_connection.info.backend_pid == pid:
            connection.close()
        else:
            connection.invalidate()
with engine.connect() as old:
    assert old.connection.driver_connection.info.backend_pid == pid
print(max(kept))
"""


def test_a_forked_child_holds_no_connection(database_url: str) -> None:
    """A child has none of the parent's connections.

    That holds for one opened before the client existed and for one opened during the fork.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONNECTS, database_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr


SERVES = """
import os, signal, sys, time
from sqlalchemy import create_engine
from riverrun import Client, QueueConfig, RawArgs, Workers

workers = Workers()

@workers.register(kind="task")
def work(args: RawArgs) -> None: ...

client = Client(
    create_engine(sys.argv[1]), workers=workers, queues={"default": QueueConfig(max_workers=2)},
    schema=sys.argv[2],
)
client.start()
child = os.fork()
if child == 0:
    os.close(1)
    os.close(2)
    signal.pause()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as a server's master does
print(child, flush=True)
while True:
    time.sleep(0.05)  # not pause(): the signal may come just before that
"""


def test_a_client_that_was_started_before_a_fork_lets_its_parent_end(
    database_url: str, schema: str, engine: Engine
) -> None:
    """A parent that exits on SIGTERM stops its client and ends, even while its children live."""
    master = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVES, database_url, schema],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with master:
        assert master.stdout is not None
        child = int(master.stdout.readline())
        try:
            master.terminate()
            assert master.wait(DEADLINE_S) == 0
            assert verbs.list_clients(engine, schema=schema) == []
            os.kill(child, 0)  # Raises if the child does not live.
        finally:
            master.kill()
            os.kill(child, signal.SIGTERM)
            assert master.stderr is not None
            assert master.stderr.read() == ""
