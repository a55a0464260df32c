"""Methods that insert, read, list, update, cancel, retry and delete jobs."""

import math
import time
from collections.abc import Sequence
from typing import Any

import attrs

from riverrun import Client, InsertResult, JobListParams, JobState
from riverrun.db.transactions import Tx

from .protocol import INVALID_PARAMS, Failure, method, named
from .shapes import Echo, Job, shown_job
from .state import State

ABSENT = object()


@attrs.frozen(kw_only=True)
class Insert(Job):
    schema: str = ""


@attrs.frozen(kw_only=True)
class InsertMany:
    jobs: list[Job]


@attrs.frozen(kw_only=True)
class Id:
    id: int


@attrs.frozen(kw_only=True)
class Get(Id):
    schema: str = ""


@attrs.frozen(kw_only=True)
class Update(Id):
    output: Any = ABSENT


@attrs.frozen(kw_only=True)
class Filters:
    ids: list[int] | None = None
    kinds: list[str] | None = None
    limit: int = 100
    queues: list[str] | None = None
    states: list[JobState] | None = None


@attrs.frozen(kw_only=True)
class Deletion(Filters):
    all: bool = False


@attrs.frozen(kw_only=True)
class Listing(Filters):
    after: str | None = None
    direction: str = "asc"
    metadata: dict[str, Any] | None = None
    order_by: str = "id"
    priorities: list[int] | None = None
    tags_all: list[str] | None = None
    tags_any: list[str] | None = None


@attrs.frozen(kw_only=True)
class Benchmark:
    jobs: int


@method
def insert(state: State, params: Insert) -> Any:
    client = state.client(params.schema)
    return inserted(state, client, state.engine, params)


@method
def insert_many(state: State, params: InsertMany) -> Any:
    return inserted_many(state, state.client(), state.engine, params.jobs)


@method
def benchmark_enqueue(state: State, params: Benchmark) -> Any:
    client, took = state.client(), []
    began = time.perf_counter_ns()
    for _ in range(params.jobs):
        start = time.perf_counter_ns()
        client.insert(state.engine, Echo(message="benchmark"))
        took.append(time.perf_counter_ns() - start)
    whole = time.perf_counter_ns() - began
    p95 = sorted(took)[max(0, math.ceil(len(took) * 0.95) - 1)]
    return {"duration_ns": whole, "p95_ns": p95}


@method
def get(state: State, params: Get) -> Any:
    return shown_job(state.client(params.schema).get(state.engine, params.id))


@method
def cancel(state: State, params: Id) -> Any:
    return shown_job(state.client().cancel(state.engine, params.id))


@method
def retry(state: State, params: Id) -> Any:
    return retried(state, state.client(), state.engine, params.id)


@method
def delete(state: State, params: Id) -> Any:
    return shown_job(state.client().delete(state.engine, params.id))


@method
def update(state: State, params: Update) -> Any:
    return updated(state.client(), state.engine, params.id, params.output)


@method
def delete_many(state: State, params: Deletion) -> Any:
    return deleted(state.client(), state.engine, params)


@named("list")
def list_jobs(state: State, params: Listing) -> Any:
    return listed(state.client(), state.engine, params)


def inserted(state: State, client: Client, tx: Tx, job: Job) -> dict[str, Any]:
    args, opts = job.pair()
    result = client.insert(tx, args, opts)
    state.announced(client, tx)
    return shown_job(result.job)


def inserted_many(state: State, client: Client, tx: Tx, jobs: Sequence[Job]) -> dict[str, Any]:
    results = client.insert_many(tx, [job.pair() for job in jobs])
    state.announced(client, tx)
    return {"results": [_shown_result(result) for result in results]}


def retried(state: State, client: Client, tx: Tx, job_id: int) -> dict[str, Any]:
    job = client.retry(tx, job_id)
    state.announced(client, tx)
    return shown_job(job)


def updated(client: Client, tx: Tx, job_id: int, output: Any) -> dict[str, Any]:
    values = {} if output is ABSENT else {"output": output}
    return shown_job(client.update(tx, job_id, metadata={}, **values))


def deleted(client: Client, tx: Tx, params: Deletion) -> dict[str, Any]:
    wanted = attrs.asdict(params, filter=lambda field, _: field.name != "all")
    jobs = client.delete_many(tx, JobListParams(**wanted), unsafe_all=params.all)
    return {"jobs": [shown_job(job) for job in jobs]}


def listed(client: Client, tx: Tx, params: Listing) -> dict[str, Any]:
    if params.direction not in {"asc", "desc"}:
        raise Failure(INVALID_PARAMS, f"direction {params.direction!r}; expected asc or desc")
    wanted = attrs.asdict(params, recurse=False)
    descending = wanted.pop("direction") == "desc"
    page = client.list_jobs(tx, JobListParams(**wanted, descending=descending))
    return {"cursor": page.cursor, "jobs": [shown_job(job) for job in page.jobs]}


def _shown_result(result: InsertResult) -> dict[str, Any]:
    return {
        "job": shown_job(result.job),
        "unique_skipped_as_duplicate": result.skipped_as_duplicate,
    }
