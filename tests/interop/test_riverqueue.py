"""River's own Python client, which only inserts, on the same database as riverrun."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import riverqueue
from riverqueue.driver import riversqlalchemy
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import ProgrammingError

from interop.clients import Clients, Echo
from interop.peers import StartPeer
from riverrun.migrations import Line, migrate


@dataclass
class EchoArgs:
    """The args of Echo in the form that riverqueue requires."""

    message: str
    kind: str = "conformance_echo"

    def to_json(self) -> str:
        """Return the args as JSON."""
        return json.dumps({"behavior": "", "duration_ms": 0, "message": self.message})


@pytest.fixture
def theirs(engine: Engine, schema: str) -> Iterator[Engine]:
    """An engine whose search path is the test's schema: riverqueue has no schema option."""
    theirs = create_engine(engine.url, connect_args={"options": f"-csearch_path={schema}"})
    yield theirs
    theirs.dispose()


def test_its_jobs_are_worked(theirs: Engine, here: Clients) -> None:
    """Jobs that riverqueue inserts, with all of its options, are worked by riverrun."""
    client = riverqueue.Client(riversqlalchemy.Driver(theirs))
    opts = riverqueue.InsertOpts(max_attempts=3, priority=2, queue="default", tags=["from_python"])
    one = client.insert(EchoArgs("日本 <&>"), insert_opts=opts).job
    with theirs.connect() as connection:
        with connection.begin() as transaction:
            dropped = client.insert_tx(connection, EchoArgs("dropped")).job
            transaction.rollback()
        with connection.begin():
            client.insert_many_tx(connection, [EchoArgs(str(number)) for number in range(20)])

    got: list[str] = []
    ours = here.run(lambda args, _: got.append(args.message))
    completed = "SELECT count(*) FROM river_job WHERE state = 'completed'"
    here.wait(lambda: here.one(completed) == 21, "21 jobs completed")
    assert sorted(got) == sorted(["日本 <&>", *map(str, range(20))])
    row = ours.get(here.engine, one.id)
    assert (row.max_attempts, row.priority, row.tags) == (3, 2, ("from_python",))
    assert here.one("SELECT count(*) FROM river_job WHERE id = :id", id=dropped.id) == 0


def test_ours_are_read_by_it(theirs: Engine, here: Clients) -> None:
    """If riverqueue's insert is a duplicate of riverrun's job, it returns that job as a whole."""
    ours = here.inserter().insert(here.engine, Echo(message="first")).job
    states = [riverqueue.JobState.AVAILABLE]
    unique = riverqueue.UniqueOpts(by_queue=True, by_state=states)
    client = riverqueue.Client(riversqlalchemy.Driver(theirs))
    result = client.insert(EchoArgs("second"), riverqueue.InsertOpts(unique_opts=unique))
    assert (result.unique_skipped_as_duplicated, result.job.id) == (True, ours.id)
    assert result.job.args == {"behavior": "", "duration_ms": 0, "message": "first"}
    assert result.job.created_at == ours.created_at


@pytest.mark.parametrize("by_go", [False, True])
def test_its_unique_keys_are_of_an_older_river(
    empty_go_peer: StartPeer, empty_database: Engine, by_go: bool
) -> None:
    """With default states riverqueue needs an index that River dropped in version 6.

    So its unique inserts fail on Go's tables, too. Its keys are hashed from another text than
    River's are today, so no key could equal riverrun's.
    """
    if by_go:
        empty_go_peer().call("migrate")
    else:
        migrate(empty_database, line=Line.main)
    client = riverqueue.Client(riversqlalchemy.Driver(empty_database))
    unique = riverqueue.InsertOpts(unique_opts=riverqueue.UniqueOpts(by_args=True))
    with pytest.raises(ProgrammingError, match="no unique or exclusion constraint matching"):
        client.insert(EchoArgs("once"), unique)
