"""What happens while the server can take no more notifications."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from factories import insert_job
from riverrun import Client, RawArgs, UniqueOpts
from riverrun.jobs.states import JobState
from riverrun.verbs import cancel, claim, get
from riverrun.verbs.claim import claim_jobs
from riverrun.verbs.elect import elect, request_resign, resign
from riverrun.verbs.give_back import give_back
from riverrun.verbs.notify import notify_inserted
from riverrun.verbs.queues import pause_queue, upsert_queues
from riverrun.verbs.schedule import schedule
from schemas import search_path_url

JOB = RawArgs(kind="greet", encoded={})


@pytest.fixture
def full(engine: Engine, schema: str) -> Iterator[Engine]:
    """An engine on a server whose queue of notifications is full, as far as its functions tell.

    The server itself raises this error at the COMMIT. To fill its queue takes 8 GB.
    """
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.pg_notification_queue_usage() RETURNS float8"
            " LANGUAGE sql AS 'SELECT 0.95::float8'"
        )
        connection.exec_driver_sql(
            f"CREATE FUNCTION {schema}.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'too many notifications in the NOTIFY queue'"
            " USING ERRCODE = '54000'; END $$"
        )
    full = create_engine(search_path_url(engine.url, schema, "pg_catalog"))
    yield full
    full.dispose()


@pytest.mark.parametrize("notify", ["adaptive", "after_commit", "in_transaction"])
def test_inserts(full: Engine, notify: Any) -> None:
    """Jobs are inserted without a notification, whenever it was to be sent."""
    client = Client(full, notify=notify, queues=["default"])
    with Session(full) as session:
        ids = {
            client.insert(session, JOB).job.id,
            client.insert(session, JOB, unique=UniqueOpts(by_args=True)).job.id,
            *(result.job.id for result in client.insert_many(session, [JOB, JOB])),
        }
        session.commit()
    client.stop()
    assert len(ids) == 4
    assert {get(full, job_id).state for job_id in ids} == {JobState.available}


def due(full: Engine) -> object:
    """Make a job available that is due."""
    job_id = insert_job(full, state="scheduled")
    schedule(full)
    return get(full, job_id).state is JobState.available


def given_back(full: Engine) -> object:
    """Give a claimed job back."""
    insert_job(full)
    return give_back(full, claim_jobs(full, "default", limit=1, client_id="me"), client_id="me")


def cancelled(full: Engine) -> object:
    """Cancel a running job."""
    insert_job(full)
    [job] = claim(full, client_id="me")
    cancel(full, job.id)
    return "cancel_attempted_at" in get(full, job.id).metadata


def paused(full: Engine) -> object:
    """Pause a queue."""
    upsert_queues(full, ["default"])
    pause_queue(full, "default")
    return True


def resigned(full: Engine) -> object:
    """Resign as the leader."""
    request_resign(full)
    term = elect(full, "me", ttl_s=60)
    return term is not None and resign(full, term)


def notified(full: Engine) -> object:
    """Announce jobs after their commit."""
    notify_inserted(full, ["default"])
    return True


@pytest.mark.parametrize("act", [due, given_back, cancelled, paused, resigned, notified])
def test_all_else(full: Engine, act: Callable[[Engine], object]) -> None:
    """Whatever also notifies is done without the notification."""
    assert act(full)
