"""Find the periodic jobs that cannot be inserted, so that they do not hold up the others.

All due jobs are inserted in one transaction with the plan of their next runs. A job that a trigger,
a constraint or a plugin of the application refuses would make each such transaction fail.
"""

from collections.abc import Sequence

from sqlalchemy import Engine

from riverrun.db.refusals import Fault, fault_of
from riverrun.db.transactions import joined, own_connection
from riverrun.execution.plugins import Plugin, around_insert
from riverrun.periodic_jobs import PeriodicJob
from riverrun.verbs.draft import JobDraft
from riverrun.verbs.insert import insert_drafts


def find_refused(
    engine: Engine,
    drafts: Sequence[tuple[PeriodicJob, JobDraft]],
    *,
    plugins: Sequence[Plugin],
    schema: str | None,
) -> list[tuple[PeriodicJob, Exception]]:
    """Return the jobs that cannot be inserted, each with the error. Nothing is inserted.

    If there is no job that can be inserted, none is at fault, and none is returned.

    Args:
        engine: The database. Each draft is tried in a transaction of its own.
        drafts: The drafts, each with its periodic job.
        plugins: The client's plugins.
        schema: The schema of River's tables.
    """
    refused: list[tuple[PeriodicJob, Exception]] = []
    for job, drafted in drafts:
        if any(job is other for other, _ in refused):
            continue
        try:
            _try_insert(engine, drafted, plugins, schema)
        except Exception as error:
            if fault_of(error) is Fault.connection:
                return []
            refused.append((job, error))
    return refused if len(refused) < len({id(job) for job, _ in drafts}) else []


def _try_insert(
    engine: Engine, drafted: JobDraft, plugins: Sequence[Plugin], schema: str | None
) -> None:
    with own_connection(engine) as connection, joined(connection, schema) as transaction:
        around_insert(
            plugins, [drafted], lambda: insert_drafts(transaction, [drafted], schema=schema)
        )
        connection.rollback()
