"""Methods that read and break things directly: raw rows, connections, leadership."""

import json
from typing import Any

import attrs
from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from riverrun import JobState, models
from riverrun.models import Leader

from .protocol import INVALID_PARAMS, NOT_FOUND, Empty, Failure, method
from .shapes import KIND, Job, shown_job, shown_time
from .state import State

OF_APPLICATION = (
    "FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"
)
LISTENING = " AND (query LIKE 'LISTEN %' OR (query = 'SELECT 1' AND state = 'idle'))"
RAW = (
    "args",
    "attempted_at",
    "attempted_by",
    "created_at",
    "errors",
    "finalized_at",
    "metadata",
    "scheduled_at",
    "tags",
    "unique_states",
)
OTHERS = " AND pid <> pg_backend_pid()"


@attrs.frozen(kw_only=True)
class Application:
    application_name: str


@attrs.frozen(kw_only=True)
class Resign:
    handle: str = ""


@attrs.frozen(kw_only=True)
class Id:
    id: int


@attrs.frozen(kw_only=True)
class Finalize(Id):
    state: JobState
    metadata: dict[str, Any] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Exact:
    id: int | None = None
    metadata_json: str = '{"negative":-9223372036854775808}'


@attrs.frozen(kw_only=True)
class Raw(Job):
    kind: str = KIND


@method
def leader(state: State, params: Empty) -> Any:
    statement = select(Leader.leader_id, Leader.elected_at).where(text("expires_at >= now()"))
    with state.engine.begin() as connection:
        row = connection.execute(statement).one_or_none()
    if row is None:
        return {"elected_at": None, "leader_id": None}
    return {"elected_at": shown_time(row.elected_at), "leader_id": row.leader_id}


@method
def request_resign(state: State, params: Resign) -> Any:
    where = state.transaction(params.handle) if params.handle else state.engine
    state.client().request_resign(where)


@method
def listener_count(state: State, params: Empty) -> Any:
    return _count(state, f"SELECT count(*) {OF_APPLICATION}{LISTENING}")


@method
def connection_count(state: State, params: Empty) -> Any:
    return _count(state, f"SELECT count(*) {OF_APPLICATION}")


@method
def fault_disconnect_listeners(state: State, params: Empty) -> Any:
    cut = f"SELECT count(pg_terminate_backend(pid)) {OF_APPLICATION}{OTHERS}{LISTENING}"
    return _count(state, cut)


@method
def fault_disconnect_application(state: State, params: Application) -> Any:
    if not params.application_name.startswith("river-conformance-"):
        raise Failure(INVALID_PARAMS, f"{params.application_name!r} begins with nothing of ours")
    cut = f"SELECT count(pg_terminate_backend(pid)) {OF_APPLICATION}{OTHERS}"
    return _count(state, cut, params.application_name)


@method
def fault_expire_leader(state: State, params: Empty) -> Any:
    with state.engine.begin() as connection:
        connection.execute(text("UPDATE river_leader SET expires_at = now() - interval '1 second'"))


@method
def raw_finalize(state: State, params: Finalize) -> Any:
    problem = {
        "at": "2026-02-03T04:05:06.789Z",
        "attempt": 1,
        "error": "external discard",
        "trace": "external trace",
    }
    errors = [json.dumps(problem)] if params.state is JobState.discarded else []
    row = _row(
        state,
        "UPDATE river_job SET state = cast(:state AS river_job_state), finalized_at = now(),"
        " metadata = metadata || cast(:metadata AS jsonb),"
        " errors = CASE WHEN cardinality(cast(:errors AS jsonb[])) = 0 THEN errors"
        " ELSE errors || cast(:errors AS jsonb[]) END"
        " WHERE id = :id AND state = 'running' RETURNING id",
        id=params.id,
        state=params.state.value,
        metadata=json.dumps(params.metadata),
        errors=errors,
    )
    return shown_job(state.client().get(state.engine, row.id))


@method
def raw_insert_exact_json(state: State, params: Exact) -> Any:
    row = _row(
        state,
        "INSERT INTO river_job (id, args, kind, max_attempts, metadata) VALUES ("
        "coalesce(cast(:id AS bigint), nextval(pg_get_serial_sequence('river_job', 'id'))),"
        """ '{"decimal": 0.12345678901234567890123456789, "integer": 9223372036854775807}',"""
        " 'conformance_exact_json', 25, cast(:metadata AS jsonb)) RETURNING id",
        id=params.id,
        metadata=params.metadata_json,
    )
    return {"id": row.id}


@method
def raw_insert_full_row(state: State, params: Empty) -> Any:
    error = {
        "at": "2026-01-02T03:04:06.123456Z",
        "attempt": 3,
        "error": 'worker failed: escaped "detail"',
        "trace": "frame one\nframe two",
    }
    row = _row(
        state,
        "INSERT INTO river_job (args, attempt, attempted_at, attempted_by, created_at, errors,"
        " finalized_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags,"
        " unique_key, unique_states) VALUES (cast(:args AS jsonb), 3,"
        " '2026-01-02T03:04:06.123456Z', '{go-client,candidate-client}',"
        " '2026-01-02T03:04:05.6789Z', ARRAY[cast(:error AS jsonb)],"
        " '2026-01-02T03:04:07.000001Z', 'conformance_full_row', 4, cast(:metadata AS jsonb), 2,"
        " 'priority_jobs', '2026-01-02T03:04:05.999999Z', 'discarded', '{alpha_tag,beta_tag}',"
        " decode(repeat('ab', 32), 'hex'), B'11110101') RETURNING id",
        args=json.dumps({"nested": {"enabled": True}, "values": [1, "two", None]}),
        error=json.dumps(error),
        metadata=json.dumps({"output": {"ok": True}, "river:rescue_count": 2, "user": "metadata"}),
    )
    return shown_job(state.client().get(state.engine, row.id))


@method
def raw_insert_no_notify(state: State, params: Raw) -> Any:
    args = {
        "behavior": params.behavior,
        "duration_ms": params.duration_ms,
        "message": params.message,
    }
    row = _row(
        state,
        "INSERT INTO river_job (args, kind, max_attempts, queue)"
        " VALUES (cast(:args AS jsonb), :kind, :max_attempts, :queue) RETURNING id",
        args=json.dumps(args),
        kind=params.kind,
        max_attempts=params.opts.max_attempts or 25,
        queue=params.opts.queue or "default",
    )
    return shown_job(state.client().get(state.engine, row.id))


@method
def raw_job_exact_json(state: State, params: Id) -> Any:
    # Numbers of mapped jobs depend on the engine's json_deserializer; this one's are exact.
    with Session(state.exact_engine) as session:
        job = session.get_one(models.Job, params.id)
        numbers = {**job.args, **job.metadata_}
    names = ("decimal", "integer", "negative", "big_integer", "beyond_float", "long_decimal")
    return {name: str(numbers[name]) for name in names if name in numbers}


@method
def raw_job_row(state: State, params: Id) -> Any:
    row = _row(
        state,
        f"SELECT {', '.join(f'cast({name} AS text)' for name in RAW)}, NULL AS jsonb,"
        " upper(encode(unique_key, 'hex')) AS unique_key, NULL AS unique_key_type,"
        " NULL AS unique_states_type FROM river_job WHERE id = :id",
        id=params.id,
    )
    return dict(row._mapping)


@method
def raw_job_timestamps(state: State, params: Id) -> Any:
    row = _row(
        state,
        "SELECT cast(created_at AS text), cast(scheduled_at AS text) FROM river_job WHERE id = :id",
        id=params.id,
    )
    return dict(row._mapping)


def _count(state: State, statement: str, name: str | None = None) -> dict[str, int]:
    with state.engine.begin() as connection:
        params = {"name": name or state.application}
        return {"count": connection.execute(text(statement), params).scalar_one()}


def _row(adapter: State, statement: str, /, **params: Any) -> Row[Any]:
    with adapter.engine.begin() as connection:
        row = connection.execute(text(statement), params).one_or_none()
    if row is None:
        raise Failure(NOT_FOUND, f"job {params.get('id')} is not there, or does not run")
    return row
