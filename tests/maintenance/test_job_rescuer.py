"""Rescues by the leader, and what is logged of them."""

import logging
from random import Random
from typing import Any, cast

import attrs
import pytest
from sqlalchemy import Engine

from factories import insert_job
from riverrun.maintenance.job_rescuer import JobRescuer
from riverrun.policies.backoff import Backoff, Constant


@attrs.frozen
class Attempts:
    """The part of the client's attempts that a rescuer asks."""

    def backoff_of(self, _kind: str) -> Backoff:
        """Return the backoff of every kind."""
        return Constant(delay=0)

    def timeouts_s(self) -> dict[str, float | None]:
        """Return no timeouts."""
        return {}


def rescue_all(engine: Engine, schema: str) -> None:
    """Rescue all running jobs."""
    attempts = cast("Any", Attempts())
    rescuer = JobRescuer(
        engine, stuck_s=1, attempts=attempts, schema=schema, rng=Random(1), dead_s=1
    )
    rescuer.run_once()


def test_a_few_rescues_are_a_line_each(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A WARNING names a rescued job and its new state."""
    job_id = insert_job(engine, schema, state="running")
    rescue_all(engine, schema)
    [record] = caplog.records
    assert record.getMessage() == f"rescued job {job_id}, now available"
    assert (record.levelno, vars(record)["job_id"]) == (logging.WARNING, job_id)


def test_many_rescues_are_one_line(
    engine: Engine, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The jobs of a client that died with many are counted by state in one WARNING."""
    ids = [insert_job(engine, schema, state="running", max_attempts=2) for _ in range(12)]
    last = insert_job(engine, schema, state="running", max_attempts=1)
    rescue_all(engine, schema)
    [record] = caplog.records
    text = f"rescued 13 jobs, now 12 available, 1 discarded: jobs {ids[0]} to {last}"
    assert (record.levelno, record.getMessage()) == (logging.WARNING, text)
