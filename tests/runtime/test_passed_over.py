"""A job that cannot be claimed keeps no other job of its queue from being worked."""

import pytest
from sqlalchemy import Engine

from factories import insert_job
from riverrun.jobs.states import JobState
from riverrun.verbs import get
from runtime.conftest import App
from waiting import until

ACTIONS = {"raises": "RAISE EXCEPTION 'no';", "ignores": "RETURN NULL;"}


@pytest.mark.parametrize("action", ACTIONS)
def test_the_others_are_worked(
    app: App, engine: Engine, schema: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client works the other jobs, and those once the trigger is gone."""
    monkeypatch.setattr("riverrun.runtime.passed_over.PASS_S", 0.5)
    bad = [insert_job(engine, schema, kind="task", tags=["bad"]) for _ in range(9)]
    good = [insert_job(engine, schema, kind="task") for _ in range(9)]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {ACTIONS[action]} END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.river_job FOR EACH ROW"
            f" WHEN (NEW.tags = '{{bad}}') EXECUTE FUNCTION {schema}.refuse()"
        )
    app.run()

    def states(ids: list[int]) -> set[JobState]:
        return {get(engine, job_id, schema=schema).state for job_id in ids}

    until(lambda: states(good) == {JobState.completed}, "the jobs that can be claimed are worked")
    assert states(bad) == {JobState.available}
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER refuse ON {schema}.river_job")
    until(lambda: states(bad) == {JobState.completed}, "the others are worked, too")
