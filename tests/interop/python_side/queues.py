"""Methods that read, pause and resume queues, and that change what the client works."""

from typing import Any

import attrs

from riverrun import QueueConfig
from riverrun.client.queues import Queues
from riverrun.db.transactions import Tx

from .protocol import REJECTED, Failure, method
from .shapes import shown_queue
from .state import State


@attrs.frozen(kw_only=True)
class Name:
    name: str


@attrs.frozen(kw_only=True)
class Limit:
    limit: int = 100


@attrs.frozen(kw_only=True)
class Metadata(Name):
    metadata: dict[str, Any] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Adding(Name):
    max_workers: int = 4


@method
def queue_get(state: State, params: Name) -> Any:
    return shown_queue(state.client().queues.get(state.engine, params.name))


@method
def queue_list(state: State, params: Limit) -> Any:
    return listed(state.client().queues, state.engine, params.limit)


@method
def queue_pause(state: State, params: Name) -> Any:
    state.client().queues.pause(state.engine, params.name)


@method
def queue_resume(state: State, params: Name) -> Any:
    state.client().queues.resume(state.engine, params.name)


@method
def queue_update(state: State, params: Metadata) -> Any:
    queue = state.client().queues.update(state.engine, params.name, metadata=params.metadata)
    return shown_queue(queue)


@method
def queue_add(state: State, params: Adding) -> Any:
    queues = _worked(state)
    if params.name in queues:
        queues.remove(params.name)
    queues.add(params.name, QueueConfig(max_workers=params.max_workers))


@method
def queue_remove(state: State, params: Name) -> Any:
    _worked(state).remove(params.name)


def listed(queues: Queues, tx: Tx, limit: int) -> dict[str, Any]:
    return {"queues": [shown_queue(queue) for queue in queues.list(tx, limit=limit)]}


def _worked(state: State) -> Queues:
    if state.running is None:
        raise Failure(REJECTED, "no client is running")
    return state.running.client.queues
