"""Values that both sides compute, send and store alike."""

import time
from typing import Any

import psycopg
import pytest

from goldens import CRON, CRON_IN_ZONES, CRON_INVALID, DELAYS_NS, NOW, UNIQUE
from interop.conformance.fleet import BOTH, PYTHON, WAYS, Fleet, failed, moment
from interop.conformance.registry import differs, passed
from interop.rpc import REJECTED, UNSUPPORTED, Process, RpcError
from waiting import until

METHODS = """
    barrier_create barrier_release benchmark_enqueue cancel clock_set connection_count
    cron_next delete delete_many fault_disconnect_application fault_disconnect_listeners
    fault_expire_leader get handshake insert insert_many leader list listener_count migrate
    queue_add queue_get queue_list queue_pause queue_remove queue_resume queue_update
    raw_finalize raw_insert_exact_json raw_insert_full_row raw_insert_no_notify
    raw_job_exact_json raw_job_row raw_job_timestamps request_resign reset retry retry_delay
    rng_seed runtime_stats start stop tx_begin tx_cancel tx_commit tx_delete tx_delete_many
    tx_fail tx_get tx_insert tx_insert_many tx_list tx_queue_get tx_queue_list tx_queue_pause
    tx_queue_resume tx_queue_update tx_retry tx_rollback tx_update unique_key update wait work
"""
NO_METHOD = -32601
INVALID_PARAMS = -32602
ALL_STATES = [
    "available",
    "cancelled",
    "completed",
    "discarded",
    "pending",
    "retryable",
    "running",
    "scheduled",
]
# Numbers that a double cannot hold or distinguish.
NUMBERS = (
    '{"negative":-9223372036854775808,"big_integer":123456789012345678901234567890,'
    '"beyond_float":1e400,"long_decimal":0.1000000000000000055511151231257827}'
)
# Unsorted keys, characters that Go escapes, and an escape that re-encoding would drop.
QUEUE_METADATA = r'{"zeta":"<&>","alpha":1,"path":"a\/b"}'


@passed("the profile's methods; unknown ones and unknown parameters are refused")
def test_adapter_handshake_and_capabilities(fleet: Fleet) -> None:
    """Both sides offer the profile postgres-full and refuse unknown methods and params."""
    hellos = {name: fleet.side(name).call("handshake") for name in BOTH}
    for name, hello in hellos.items():
        assert (hello["profile"], hello["protocol_revision"]) == ("postgres-full-v1", 1), name
        assert set(hello["methods"]) >= set(METHODS.split()), name
    mine = hellos["python"]
    assert mine["methods"] == METHODS.split()
    for field in ("adapter_version", "backend", "capabilities", "migration_lines"):
        assert mine[field] == hellos["go"][field]
    for process in (fleet.go, fleet.python):
        failed(process, NO_METHOD, "no_such_method")
        failed(process, INVALID_PARAMS, "insert", no_such_param=1)
        failed(process, INVALID_PARAMS, "insert", opts={"no_such_param": 1})
        failed(process, REJECTED, "stop")
        for tuning in ("elect_interval_ms", "rescuer_interval_ms", "scheduler_interval_ms"):
            failed(process, UNSUPPORTED, "start", client_id="tuned", **{tuning: 100})


@differs(
    "the next times of 45 expressions, 9 of them in named zones; 21 invalid ones are refused",
    river="an expression for a date that never comes is valid, and has no next time",
    riverrun="the same times for all others; that expression is refused",
    because="a schedule that never runs is a mistake, and is reported when it is made",
)
@pytest.mark.parametrize("name", BOTH)
def test_cron_schedule_goldens(fleet: Fleet, name: str) -> None:
    """Both sides compute the golden times of every expression, and refuse invalid ones."""
    process = fleet.side(name)
    for case, (expression, reference, times) in {**CRON, **CRON_IN_ZONES}.items():
        asked: dict[str, Any] = {"count": 5, "expression": expression, "from": reference}
        if name == PYTHON and not times:
            failed(process, REJECTED, "cron_next", **asked)
            continue
        found = list(map(moment, process.call("cron_next", **asked)["next"] or []))
        expected = list(map(moment, times))
        assert found == expected, case
        if case in CRON:  # a time in a named zone may be shown in any zone
            assert [at.utcoffset() for at in found] == [at.utcoffset() for at in expected], case
    for expression in CRON_INVALID:
        failed(process, REJECTED, "cron_next", count=1, expression=expression, **{"from": NOW})


@passed("the unique keys of all golden cases; args that are no object are refused")
@pytest.mark.parametrize("name", BOTH)
def test_unique_hash_goldens(fleet: Fleet, name: str) -> None:
    """Both sides compute the golden key and states of every job."""
    process = fleet.side(name)
    for case, unique in UNIQUE.items():
        if unique.key is None:
            with pytest.raises(RpcError) as caught:
                process.call_text("unique_key", unique.request())
            assert caught.value.code == REJECTED, case
            continue
        found = process.call_text("unique_key", unique.request())
        assert (found["sha256"], found["state_mask"]) == (unique.key, unique.mask), case


@passed("retry delays by a set clock and seed are within the golden bounds")
@pytest.mark.parametrize("name", BOTH)
def test_deterministic_retry_clock_rng(fleet: Fleet, name: str) -> None:
    """With a clock and a seed, the delays of both sides are within the golden bounds."""
    process = fleet.side(name)
    process.call("clock_set", now=NOW)
    process.call("rng_seed", seed=4_711)
    for failures, (shortest, longest) in DELAYS_NS.items():
        found = process.call("retry_delay", error_count=failures, job_id=42)
        assert shortest <= found["delay_ns"] <= longest, failures


@passed("an insert waits for the other side's uncommitted one of the same key, and returns its job")
@pytest.mark.parametrize(("winner", "loser"), WAYS)
def test_cross_language_unique_conflict(fleet: Fleet, winner: str, loser: str) -> None:
    """An insert waits for the other side's insert of the same key, and returns that job."""
    won, lost = fleet.side(winner), fleet.side(loser)
    past = moment(fleet.one("SELECT to_json(now() - interval '1 minute')")).isoformat()
    by_args: dict[str, Any] = {"unique": {"by_args": True}}
    cases: dict[str, dict[str, Any]] = {
        "by_args": by_args,
        "by_period": {"scheduled_at": past, "unique": {"by_period_ms": 60_000}},
        "by_queue": {"queue": "unique_queue", "unique": {"by_queue": True}},
        "by_state": {"unique": {"by_state": ALL_STATES}},
    }
    for case, opts in cases.items():
        fleet.do("TRUNCATE river_job")
        job = {"message": f"once {case}", "opts": opts}
        won.call("tx_begin", handle="winner")
        lost.call("tx_begin", handle="loser")
        first = won.call("tx_insert", handle="winner", job=job)
        with fleet.waiting(lost, "tx_insert", handle="loser", job=job) as answer:
            fleet.lock_awaited(lost)
            won.call("tx_commit", handle="winner")
            assert answer() == first, case
        lost.call("tx_commit", handle="loser")
        assert fleet.go.call("list")["jobs"] == [first], case
    fleet.do("TRUNCATE river_job")
    again = {"message": "one after the other", "opts": by_args}
    assert won.call("insert", **again) == lost.call("insert", **again)


@passed("every column, and numbers beyond a double, are read as they were written")
@pytest.mark.parametrize(("by", "to"), WAYS)
def test_job_row_round_trip_all_fields(fleet: Fleet, by: str, to: str) -> None:
    """A row with every column filled, or with extreme numbers, is the same job to both sides."""
    inserter, reader = fleet.side(by), fleet.side(to)
    full = inserter.call("raw_insert_full_row")
    assert reader.call("get", id=full["id"]) == full
    assert (full["state"], full["attempt"], len(full["errors"])) == ("discarded", 3, 1)
    assert full["args"] == {"nested": {"enabled": True}, "values": [1, "two", None]}
    assert full["attempted_by"] == ["go-client", "candidate-client"]
    assert (full["attempted_at"], full["created_at"], full["finalized_at"]) == (
        "2026-01-02T03:04:06.123456Z",
        "2026-01-02T03:04:05.6789Z",
        "2026-01-02T03:04:07.000001Z",
    )
    assert full["errors"] == [
        {
            "at": "2026-01-02T03:04:06.123456Z",
            "attempt": 3,
            "error": 'worker failed: escaped "detail"',
            "trace": "frame one\nframe two",
        }
    ]
    assert full["unique_key"] == "ab" * 32
    assert full["unique_states"] == [
        each for each in ALL_STATES if each not in {"cancelled", "discarded"}
    ]
    exact = inserter.call("raw_insert_exact_json")["id"]
    for process in (inserter, reader):
        numbers = process.call("raw_job_exact_json", id=exact)
        assert numbers["decimal"] == "0.12345678901234567890123456789"
        assert numbers["integer"] == "9223372036854775807"
        assert numbers["negative"] == "-9223372036854775808"
    large = inserter.call("raw_insert_exact_json", metadata_json=NUMBERS)["id"]
    before = inserter.call("raw_job_exact_json", id=large)
    assert before["big_integer"] == "123456789012345678901234567890"
    assert before["long_decimal"] == "0.1000000000000000055511151231257827"
    assert before["beyond_float"]
    stored = fleet.one("SELECT metadata::text FROM river_job WHERE id = :id", id=large)
    reader.call("update", id=large, output="preserved")
    kept = fleet.one("SELECT (metadata - 'output')::text FROM river_job WHERE id = :id", id=large)
    assert kept == stored
    for process in (inserter, reader):
        assert process.call("raw_job_exact_json", id=large) == before
    mine = inserter.call(
        "insert",
        behavior="output",
        duration_ms=7,
        message="<é & 'quotes' \"too\">\u2028😀",
        opts={
            "max_attempts": 3,
            "metadata": {"nested": {"list": [1, 2.5, None, True]}, "text": "<&>\u2028"},
            "priority": 3,
            "queue": "all_fields",
            "scheduled_at": "2040-01-02T03:04:05.678901Z",
            "tags": ["alpha", "beta_2"],
            "unique": {"by_args": True, "by_state": None},
        },
    )
    assert fleet.agreed(mine["id"]) == mine


@passed("ids that a double cannot hold")
def test_unsafe_int64_job_ids_rpc_list_cursors(fleet: Fleet) -> None:
    """Ids that a double cannot hold pass through every method and cursor."""
    ids = [9_007_199_254_740_993, 9_007_199_254_740_995, 9_223_372_036_854_775_806]
    for job_id, process in zip(ids, (fleet.go, fleet.python, fleet.go), strict=True):
        assert process.call("raw_insert_exact_json", id=job_id) == {"id": job_id}
    for process in (fleet.go, fleet.python):
        other = fleet.other(process)
        assert process.call("get", id=ids[0])["id"] == ids[0]
        first = process.call("list", limit=1)
        rest = other.call("list", after=first["cursor"], limit=10)
        assert [job["id"] for job in (*first["jobs"], *rest["jobs"])] == ids
        found = process.call("list", ids=[ids[1]])
        assert [job["id"] for job in found["jobs"]] == [ids[1]]
    assert fleet.go.call("cancel", id=ids[0])["id"] == ids[0]
    assert fleet.python.call("cancel", id=ids[1])["id"] == ids[1]
    assert fleet.python.call("retry", id=ids[0])["state"] == "available"
    assert fleet.go.call("delete", id=ids[2])["id"] == ids[2]
    assert fleet.python.call("delete", id=ids[0])["id"] == ids[0]


@passed("a row's unique key and states, to the bit")
def test_unique_column_bytes(fleet: Fleet) -> None:
    """The same job has the same key and states, to the bit, whichever side inserts it."""
    at = "2031-02-03T04:05:06.789Z"
    everything = {"by_args": True, "by_period_ms": 86_400_000, "by_queue": True}
    cases: dict[str, dict[str, Any]] = {
        "by_args": {"unique": {"by_args": True}},
        "by_args_exclude_kind": {"unique": {"by_args": True, "exclude_kind": True}},
        "by_period": {"scheduled_at": at, "unique": {"by_period_ms": 3_600_000}},
        "by_queue": {"queue": "unique_queue", "unique": {"by_queue": True}},
        "by_state": {
            "unique": {"by_state": ["available", "pending", "running", "scheduled"]},
        },
        "combined": {
            "queue": "unique_queue",
            "scheduled_at": at,
            "unique": {**everything, "by_state": ALL_STATES},
        },
        "not unique": {},
    }
    for case, opts in cases.items():
        rows = []
        for process in (fleet.go, fleet.python):
            job = process.call("insert", message=f"bytes {case}", opts=opts)
            row = process.call("raw_job_row", id=job["id"])
            rows.append((row["unique_key"], row["unique_states"], row["args"]))
            assert row == fleet.other(process).call("raw_job_row", id=job["id"])
            process.call("delete", id=job["id"])
        assert rows[0] == rows[1], case
        key, states, _ = rows[0]
        if "unique" in opts:
            assert (len(key), len(states)) == (64, 8), case
        else:
            assert (key, states) == (None, None), case


@differs(
    "what each operation publishes, to the byte",
    river="a retry publishes nothing, and a queue's metadata is sent in the caller's text",
    riverrun="a retry publishes the insert notification, metadata is sent with sorted keys;"
    " all other payloads are equal",
    because="a retried job need not wait for a poll; metadata comes as a dict, not as text",
)
def test_notification_payload_bytes(fleet: Fleet) -> None:
    """Both sides' notifications are equal to the byte, except for retry and queue metadata."""
    url = fleet.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    topics = ("river_insert", "river_control", "river_leadership")
    with psycopg.connect(url, autocommit=True) as connection:
        for topic in topics:
            connection.execute(f'LISTEN "{fleet.schema}.{topic}"')
        go, python = (published(fleet, fleet.side(name), connection) for name in BOTH)
    channels = {channel for notifications in go.values() for channel, _ in notifications}
    assert channels == {f"{fleet.schema}.{topic}" for topic in topics}
    insert = [(f"{fleet.schema}.river_insert", '{"queue": "tenant|emails"}')]
    assert (go.pop("retry"), python.pop("retry")) == ([], insert)
    control = f"{fleet.schema}.river_control"
    (theirs,), (ours,) = go.pop("update"), python.pop("update")
    changed = r'{"action":"metadata_changed","metadata":{%s},"queue":"default"}'
    text = r'"zeta":"\u003c\u0026\u003e","alpha":1,"path":"a\/b"'
    sorted_keys = r'"alpha":1,"path":"a/b","zeta":"\u003c\u0026\u003e"'
    assert (theirs, ours) == ((control, changed % text), (control, changed % sorted_keys))
    assert python == go
    for quiet in ("insert scheduled", "start"):
        assert go.pop(quiet) == []
    assert all(go.values()), go


Notifications = list[tuple[str, str]]


def published(fleet: Fleet, process: Process, connection: Any) -> dict[str, Notifications]:
    """Return the notifications that one side sends for each operation."""
    fleet.do("TRUNCATE river_job, river_queue, river_leader RESTART IDENTITY")
    found: dict[str, Notifications] = {}

    def record(operation: str) -> None:
        # Notifications arrive in commit order, so the marker comes after all of this operation's.
        connection.execute(f"NOTIFY \"{fleet.schema}.river_control\", 'marker'")
        found[operation] = []
        for each in connection.notifies(timeout=10):
            if each.payload == "marker":
                return
            found[operation].append((each.channel, each.payload))
        raise AssertionError(f"no marker after {operation}: {process.output}")

    job = process.call("insert", opts={"queue": "tenant|emails"})["id"]
    record("insert")
    process.call("insert", opts={"scheduled_at": "2040-01-01T00:00:00Z"})
    record("insert scheduled")
    process.call("cancel", id=job)
    record("cancel")
    time.sleep(0.25)  # both sides send at most one insert notification for a queue in 0.1 s
    process.call("retry", id=job)
    record("retry")
    process.call("start", client_id="notifies")
    term = fleet.leads("notifies")
    record("start")
    process.call_text("queue_update", f'{{"name":"default","metadata":{QUEUE_METADATA}}}')
    record("update")
    for name in ("default", "*"):
        process.call("queue_pause", name=name)
        record(f"pause {name}")
        process.call("queue_resume", name=name)
        record(f"resume {name}")
    process.call("request_resign")
    until(lambda: fleet.go.call("leader")["elected_at"] not in {None, term}, "another term")
    record("request resign")
    process.call("stop")
    record("stop")
    return found
