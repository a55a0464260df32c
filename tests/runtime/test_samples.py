"""A running leader takes samples."""

from datetime import UTC, datetime, timedelta

from factories import insert_job
from riverrun.verbs.samples import list_samples
from waiting import until

from .conftest import App


def test_a_leader_samples(app: App) -> None:
    """A client that leads samples what was finalized, also shortly before its term."""
    at = datetime.now(UTC) - timedelta(minutes=1)
    insert_job(app.engine, app.schema, state="completed", finalized_at=at, queue="mail")
    app.run()

    def found() -> bool:
        series = list_samples(app.engine, schema=app.schema).series
        return [(each.name, each.count) for each in series] == [("mail", 1)]

    until(found, "a sample of the job")
