"""Values that both sides compute, send and store alike."""

from datetime import datetime
from typing import Any

import psycopg
import pytest

from goldens import CRON, CRON_IN_ZONES, CRON_INVALID, DELAYS_NS, NOW, UNIQUE
from interop.conformance.fleet import BOTH, WAYS, Fleet, failed, moment
from interop.rpc import REJECTED, UNSUPPORTED, Process

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
# Its args are a struct of River's harness, which Go's peer has not.
ONLY_HERE = "conformance_dotted_selected_args"


def test_adapter_handshake_and_capabilities(fleet: Fleet) -> None:
    """Both offer the profile postgres-full, and refuse what no method takes."""
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
        failed(fleet.python, UNSUPPORTED, "start", client_id="tuned", **{tuning: 100})


@pytest.mark.parametrize("name", BOTH)
def test_cron_schedule_goldens(fleet: Fleet, name: str) -> None:
    """Both find the golden times of every expression, and refuse what is none."""
    process = fleet.side(name)
    for case, (expression, reference, times) in {**CRON, **CRON_IN_ZONES}.items():
        asked: dict[str, Any] = {"count": 5, "expression": expression, "from": reference}
        found = process.call("cron_next", **asked)["next"] or []
        assert list(map(moment, found)) == list(map(datetime.fromisoformat, times)), case
    for expression in CRON_INVALID:
        failed(process, REJECTED, "cron_next", count=1, expression=expression, **{"from": NOW})


@pytest.mark.parametrize("name", BOTH)
def test_unique_hash_goldens(fleet: Fleet, name: str) -> None:
    """Both compute the golden key and states of every job."""
    process = fleet.side(name)
    for case, unique in UNIQUE.items():
        if unique.key is None or (name == "go" and unique.kind == ONLY_HERE):
            continue
        found = process.call_text("unique_key", unique.request())
        assert (found["sha256"], found["state_mask"]) == (unique.key, unique.mask), case


@pytest.mark.parametrize("name", BOTH)
def test_deterministic_retry_clock_rng(fleet: Fleet, name: str) -> None:
    """With a clock and a seed the delays are the same again, and within the golden bounds."""
    process = fleet.side(name)

    def delays() -> list[int]:
        process.call("clock_set", now=NOW)
        process.call("rng_seed", seed=4_711)
        asked = [process.call("retry_delay", error_count=n, job_id=42) for n in DELAYS_NS]
        return [each["delay_ns"] for each in asked]

    first = delays()
    if name == "python":  # River's own policy draws from no generator that could be seeded
        assert delays() == first
    for delay, (shortest, longest) in zip(first, DELAYS_NS.values(), strict=True):
        assert shortest <= delay <= longest


@pytest.mark.parametrize(("winner", "loser"), WAYS)
def test_cross_language_unique_conflict(fleet: Fleet, winner: str, loser: str) -> None:
    """An insert waits for the other side's of the same key, and then returns that one's job."""
    won, lost = fleet.side(winner), fleet.side(loser)
    unique = {"unique": {"by_args": True, "by_queue": True}}
    job = {"message": "once", "opts": unique}
    won.call("tx_begin", handle="winner")
    first = won.call("tx_insert", handle="winner", job=job)
    with fleet.waiting(lost, "insert_many", jobs=[job]) as answer:
        fleet.lock_awaited(lost)
        won.call("tx_commit", handle="winner")
        (second,) = answer()["results"]
    assert second["unique_skipped_as_duplicate"]
    assert (second["job"]["id"], second["job"]["unique_key"]) == (first["id"], first["unique_key"])
    assert fleet.one("SELECT count(*) FROM river_job") == 1


@pytest.mark.parametrize(("by", "to"), WAYS)
def test_job_row_round_trip_all_fields(fleet: Fleet, by: str, to: str) -> None:
    """A row with every column filled, or with extreme numbers, is the same job to both."""
    inserter, reader = fleet.side(by), fleet.side(to)
    full = inserter.call("raw_insert_full_row")
    assert reader.call("get", id=full["id"]) == full
    assert (full["state"], full["attempt"], len(full["errors"])) == ("discarded", 3, 1)
    numbers = '{"negative":-9223372036854775808,"beyond_float":1e400,"big_integer":1%s}' % (
        "0" * 40
    )
    exact = inserter.call("raw_insert_exact_json", metadata_json=numbers)["id"]
    for process in (inserter, reader):
        said = process.call("raw_job_exact_json", id=exact)
        assert said["decimal"] == "0.12345678901234567890123456789"
        assert said["integer"] == "9223372036854775807"
        assert said["negative"] == "-9223372036854775808"
    plain = '{"negative":-9223372036854775808,"big_integer":123456789012345678901234567890}'
    kept = inserter.call("raw_insert_exact_json", metadata_json=plain)["id"]
    before = fleet.one("SELECT metadata::text FROM river_job WHERE id = :id", id=kept)
    reader.call("update", id=kept, output={"seen": True})
    after = fleet.one("SELECT (metadata - 'output')::text FROM river_job WHERE id = :id", id=kept)
    assert after == before
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


def test_unsafe_int64_job_ids_rpc_list_cursors(fleet: Fleet) -> None:
    """Ids beyond what a double holds pass through every method and cursor."""
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


def test_unique_column_bytes(fleet: Fleet) -> None:
    """The same job gets the same key and states, to the bit, whoever inserts it."""
    for states in (None, ["available", "pending", "running", "scheduled", "retryable"]):
        unique = {"by_args": True, "by_period_ms": 86_400_000, "by_queue": True}
        opts = {"unique": unique | ({"by_state": states} if states else {})}
        rows = []
        for process in (fleet.go, fleet.python):
            job = process.call("insert", message="bytes", opts=opts)
            row = process.call("raw_job_row", id=job["id"])
            rows.append((row["unique_key"], row["unique_states"], row["args"]))
            assert row == fleet.other(process).call("raw_job_row", id=job["id"])
            process.call("delete", id=job["id"])
        assert rows[0] == rows[1]
        assert len(rows[0][0]) == 64
        assert len(rows[0][1]) == 8


def test_notification_payload_bytes(fleet: Fleet) -> None:
    """What each says to workers and leaders has the other's bytes."""
    url = fleet.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    heard: dict[str, list[tuple[str, str]]] = {}
    topics = ("river_insert", "river_control", "river_leadership")
    with psycopg.connect(url, autocommit=True) as connection:
        for topic in topics:
            connection.execute(f'LISTEN "{fleet.schema}.{topic}"')
        for name in BOTH:
            heard[name] = _said(fleet.side(name), fleet, connection)
            fleet.do("TRUNCATE river_job, river_queue, river_leader RESTART IDENTITY")
    assert heard["python"] == heard["go"]
    assert {channel for channel, _ in heard["go"]} == {
        f"{fleet.schema}.{topic}" for topic in topics
    }


def _said(process: Process, fleet: Fleet, connection: Any) -> list[tuple[str, str]]:
    """Return the notifications of one side that does all that is announced, without the clock's."""
    process.call("insert", opts={"queue": "tenant|emails"})
    waiting = process.call("insert", opts={"scheduled_at": "2040-01-01T00:00:00Z"})
    process.call("cancel", id=waiting["id"])
    fleet.do("INSERT INTO river_queue (name, updated_at) VALUES ('tenant|emails', now())")
    process.call("queue_pause", name="tenant|emails")
    process.call("queue_resume", name="tenant|emails")
    process.call(
        "queue_update", name="tenant|emails", metadata={"<b>": "é & \u2028", "a": [1, None]}
    )
    process.call("queue_pause", name="*")
    process.call("queue_resume", name="*")
    process.call("request_resign")
    found = [(n.channel, n.payload) for n in connection.notifies(timeout=1.0)]
    assert found, process.said
    return found
