"""Methods that use a caller's transaction, which a handle identifies."""

from contextlib import suppress
from typing import Any

import attrs
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from . import jobs, queues
from .protocol import REJECTED, Failure, method
from .shapes import Job, shown_job, shown_queue
from .state import ANSWER_S, State


@attrs.frozen(kw_only=True)
class Handle:
    handle: str


@attrs.frozen(kw_only=True)
class Insert(Handle):
    job: Job


@attrs.frozen(kw_only=True)
class InsertMany(jobs.InsertMany):
    handle: str


@attrs.frozen(kw_only=True)
class Id(jobs.Id):
    handle: str


@attrs.frozen(kw_only=True)
class Update(jobs.Update):
    handle: str


@attrs.frozen(kw_only=True)
class Deletion(jobs.Deletion):
    handle: str


@attrs.frozen(kw_only=True)
class Listing(jobs.Listing):
    handle: str


@attrs.frozen(kw_only=True)
class Name(queues.Name):
    handle: str


@attrs.frozen(kw_only=True)
class Limit(queues.Limit):
    handle: str


@attrs.frozen(kw_only=True)
class Metadata(queues.Metadata):
    handle: str


@method
def tx_begin(state: State, params: Handle) -> Any:
    if params.handle in state.transactions:
        raise Failure(REJECTED, f"transaction {params.handle!r} is open already")
    connection = state.engine.connect()
    connection.begin()
    state.transactions[params.handle] = connection


@method
def tx_commit(state: State, params: Handle) -> Any:
    connection = state.transaction(params.handle)
    del state.transactions[params.handle]
    with connection:
        connection.commit()
    state.client().flush_announcements(ANSWER_S)


@method
def tx_rollback(state: State, params: Handle) -> Any:
    connection = state.transaction(params.handle)
    del state.transactions[params.handle]
    with connection:
        connection.rollback()
    state.client().flush_announcements(ANSWER_S)


@method
def tx_fail(state: State, params: Handle) -> Any:
    where = state.transaction(params.handle)
    with suppress(SQLAlchemyError):
        where.execute(text("SELECT 1 / 0"))


@method
def tx_insert(state: State, params: Insert) -> Any:
    return jobs.inserted(state, state.client(), state.transaction(params.handle), params.job)


@method
def tx_insert_many(state: State, params: InsertMany) -> Any:
    where = state.transaction(params.handle)
    return jobs.inserted_many(state, state.client(), where, params.jobs)


@method
def tx_get(state: State, params: Id) -> Any:
    return shown_job(state.client().get(state.transaction(params.handle), params.id))


@method
def tx_cancel(state: State, params: Id) -> Any:
    return shown_job(state.client().cancel(state.transaction(params.handle), params.id))


@method
def tx_retry(state: State, params: Id) -> Any:
    return jobs.retried(state, state.client(), state.transaction(params.handle), params.id)


@method
def tx_delete(state: State, params: Id) -> Any:
    return shown_job(state.client().delete(state.transaction(params.handle), params.id))


@method
def tx_update(state: State, params: Update) -> Any:
    where = state.transaction(params.handle)
    return jobs.updated(state.client(), where, params.id, params.output)


@method
def tx_delete_many(state: State, params: Deletion) -> Any:
    wanted = jobs.Deletion(**_without_handle(params))
    return jobs.deleted(state.client(), state.transaction(params.handle), wanted)


@method
def tx_list(state: State, params: Listing) -> Any:
    wanted = jobs.Listing(**_without_handle(params))
    return jobs.listed(state.client(), state.transaction(params.handle), wanted)


@method
def tx_queue_get(state: State, params: Name) -> Any:
    where = state.transaction(params.handle)
    return shown_queue(state.client().queues.get(where, params.name))


@method
def tx_queue_list(state: State, params: Limit) -> Any:
    where = state.transaction(params.handle)
    return queues.listed(state.client().queues, where, params.limit)


@method
def tx_queue_pause(state: State, params: Name) -> Any:
    state.client().queues.pause(state.transaction(params.handle), params.name)


@method
def tx_queue_resume(state: State, params: Name) -> Any:
    state.client().queues.resume(state.transaction(params.handle), params.name)


@method
def tx_queue_update(state: State, params: Metadata) -> Any:
    where = state.transaction(params.handle)
    queue = state.client().queues.update(where, params.name, metadata=params.metadata)
    return shown_queue(queue)


def _without_handle(params: Deletion | Listing) -> dict[str, Any]:
    return {k: v for k, v in attrs.asdict(params, recurse=False).items() if k != "handle"}
