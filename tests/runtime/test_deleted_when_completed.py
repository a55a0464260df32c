"""Jobs of a client that keeps completed jobs for no time."""

from typing import Any

from sqlalchemy import text

from riverrun import JobContext
from riverrun.events import JobCompleted, JobFailed
from runtime.task import Task
from waiting import DEADLINE_S, until


def rows(app: Any) -> list[tuple[int, str]]:
    """Return the id and the state of each job."""
    with app.engine.connect() as connection:
        found = connection.execute(
            text(f"SELECT id, state FROM {app.schema}.river_job ORDER BY id")
        )
        return [(row.id, row.state) for row in found]


def test_completed_jobs_are_deleted_at_once(app: Any) -> None:
    """A job that is completed is gone with its event, with its output too; a failed one stays."""

    def body(args: Task, ctx: JobContext) -> None:
        if args.number == 1:
            ctx.record_output("x")
        if args.number == 2:
            raise ValueError

    client, events = app.run(body, completed_retention=0)
    results = client.insert_many(app.engine, [Task(number) for number in range(3)])
    seen = {
        event.job.args["number"]: type(event) for event in (events.get(DEADLINE_S) for _ in "abc")
    }
    assert seen == {0: JobCompleted, 1: JobCompleted, 2: JobFailed}
    assert [job_id for job_id, _ in rows(app)] == [results[2].job.id]


def test_a_job_that_may_not_be_deleted_is_completed(app: Any) -> None:
    """A job to which a row of the application refers is completed by an update."""
    client, events = app.run(completed_retention=0)
    with app.engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE TABLE {app.schema}.note (job_id bigint REFERENCES {app.schema}.river_job)"
            )
        )
        kept = client.insert(connection, Task()).job.id
        connection.execute(text(f"INSERT INTO {app.schema}.note VALUES ({kept})"))
        client.insert(connection, Task())
    for _ in range(2):
        assert isinstance(events.get(DEADLINE_S), JobCompleted)
    until(lambda: rows(app) == [(kept, "completed")], "the completion of a job that cannot go")
