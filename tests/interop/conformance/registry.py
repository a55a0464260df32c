"""River's conformance scenarios and their results, which docs/conformance.md shows.

The names and tiers of scenarios are those of River's conformance/scenarios/core.json, 0.49
(adapter version 18, protocol revision 1). A decorator on the test of a scenario's name records
the result:

- `@passed`: River's own assertion holds. Both River and riverrun must meet the same assertions:
  the test may not distinguish the sides, and test_registry.py checks its source for that.
- `@differs`: it does not hold. The decorator states River's assertion, riverrun's, and why.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import TypeVar

import attrs

Test = TypeVar("Test", bound=Callable[..., object])

HERE = Path(__file__).parent


def _stated(_: object, field: "attrs.Attribute[str]", value: str) -> None:
    if not value.strip():
        raise ValueError(
            f"{field.name} is empty; a row that differs states both assertions and why"
        )


@attrs.frozen(kw_only=True)
class Passed:
    """River's assertion holds.

    Attributes:
        asks: What the scenario tests.
        form: How the run is smaller than River's; empty if it is not.
        candidate_only: Whether River runs it against the other implementation alone.
    """

    asks: str
    form: str = ""
    candidate_only: bool = False

    @property
    def result(self) -> str:
        """The result as the table shows it."""
        return f"passed in a smaller form: {self.form}" if self.form else "passed"


@attrs.frozen(kw_only=True)
class Differs:
    """River's assertion does not hold.

    Attributes:
        asks: What the scenario tests.
        river: What River asserts.
        riverrun: What is asserted of riverrun in its place.
        because: The reason.
    """

    asks: str
    river: str = attrs.field(validator=_stated)
    riverrun: str = attrs.field(validator=_stated)
    because: str = attrs.field(validator=_stated)

    @property
    def result(self) -> str:
        """The result as the table shows it."""
        return f"differs. River: {self.river}. riverrun: {self.riverrun}. Reason: {self.because}"


@attrs.frozen(kw_only=True)
class NotOffered:
    """The scenario needs a feature that riverrun does not have."""

    asks: str
    because: str = attrs.field(validator=_stated)

    @property
    def result(self) -> str:
        """The result as the table shows it."""
        return f"not offered: {self.because}"


Outcome = Passed | Differs | NotOffered


def passed(asks: str, *, form: str = "", candidate_only: bool = False) -> Callable[[Test], Test]:
    """Mark a test in which River's own assertion holds."""
    return _noted(Passed(asks=asks, form=form, candidate_only=candidate_only))


def differs(asks: str, *, river: str, riverrun: str, because: str) -> Callable[[Test], Test]:
    """Mark a test whose assertion differs from River's."""
    return _noted(Differs(asks=asks, river=river, riverrun=riverrun, because=because))


def _noted(outcome: Outcome) -> Callable[[Test], Test]:
    def note(test: Test) -> Test:
        test.__dict__["outcome"] = outcome
        return test

    return note


TIERS: Mapping[str, tuple[str, ...]] = {
    "codec": (
        "adapter_handshake_and_capabilities",
        "cron_schedule_goldens",
        "cross_language_unique_conflict",
        "deterministic_retry_clock_rng",
        "job_row_round_trip_all_fields",
        "notification_payload_bytes",
        "unique_column_bytes",
        "unique_hash_goldens",
        "unsafe_int64_job_ids_rpc_list_cursors",
    ),
    "storage": (
        "bulk_delete_safety",
        "candidate_migrator_reference_runtime",
        "differential_job_crud",
        "differential_job_list_filters_and_cursors",
        "differential_queue_crud",
        "historical_migration_down_up",
        "job_list_cursor_interchange",
        "migration_mixed_case_schema",
        "multi_engine_job_list_cursor_interchange",
        "queue_names_and_unknown_queue_control",
        "reference_migrator_candidate_runtime",
        "transaction_abort_rollback_visibility",
        "transaction_commit_visibility",
        "transaction_rollback_visibility",
        "transactional_batch_insertion",
        "transactional_completion",
        "transactional_crud_commit_rollback",
        "transactional_queue_operations",
        "typed_batch_insertion",
    ),
    "runtime": (
        "barrier_wait_and_release",
        "claim_time_cancellation",
        "cooperative_remote_cancellation",
        "default_retry_policy_schedule",
        "dynamic_queue_add_reconfigure_remove",
        "error_handler_cancel_override",
        "extension_hook_middleware_order",
        "hard_shutdown_soft_stop_classification",
        "leadership_renewal_under_slow_maintenance",
        "leadership_same_client_id_term_replacement",
        "maintenance_job_cleaner_retention",
        "maintenance_queue_cleaner_keeps_active_queues",
        "maintenance_reindexer_skips_artifacts",
        "maintenance_rescuer_full_batch_of_unexpired_jobs",
        "maintenance_rescuer_stale_selection",
        "panic_attempt_trace",
        "periodic_due_job_available",
        "periodic_run_on_start",
        "periodic_unique_cross_engine",
        "refetched_attempt_cancellation",
        "resumable_retry",
        "resumable_validation",
        "shutdown_after_cancel_attempt",
        "single_implementation_worker_outcomes",
        "snooze_once_metadata_transition",
        "stuck_job_detection",
        "timeout_cancellation",
    ),
    "mixed": (
        "candidate_insert_reference_work",
        "claimed_row_decode_isolation",
        "clock_boundary_scheduling",
        "custom_schema_candidate_migrate_reference_work",
        "custom_schema_reference_migrate_candidate_work",
        "external_terminal_completion_race",
        "leader_election_disabled_both_directions",
        "mixed_leader_failover_both_directions",
        "mixed_request_resign_terms",
        "mixed_skip_locked_competition",
        "mixed_unknown_kind_error",
        "multi_engine_competition",
        "multi_engine_directed_candidate_work_notification_cancellation",
        "multi_engine_leader_election_disabled",
        "multi_engine_leader_failover",
        "multi_engine_resumable_cursor",
        "notification_only_wakeups",
        "pause_resume_notification",
        "reference_insert_candidate_work",
        "remote_cancel_notification",
        "remote_queue_subscription_events",
        "reserved_metadata_cross_engine",
        "resumable_cross_engine_cursor",
        "rolling_deployment_same_protocol",
        "transactional_cross_language_cancel",
        "transactional_insert_notification_commit_only",
    ),
    "chaos": (
        "candidate_process_kill_reference_rescue",
        "completion_row_lock_wait",
        "completion_transient_failure_retry",
        "database_unavailable_reconnect",
        "ignored_cancellation_hard_abort",
        "listener_backend_disconnect_reconnect",
        "lost_notification_poll_recovery",
        "mixed_leader_death_failover_both_directions",
        "multi_engine_fault_recovery",
        "multi_engine_process_kill_rescue_failover",
        "process_kill_restart_and_rescue",
        "reference_process_kill_candidate_rescue",
    ),
    "performance": (
        "completion_batching",
        "mixed_connection_pool_bound",
        "mixed_soak",
        "multi_engine_release_performance",
        "multi_engine_resource_bound",
        "multi_engine_soak",
        "pool_pressure_completion",
        "release_enqueue_performance",
        "release_mixed_performance",
        "release_worker_performance",
    ),
    # Scenarios that River added after 0.49.
    "newer": (
        "claim_order",
        "cross_language_cancel_retry_race",
        "exhausted_job_retry",
        "heterogeneous_fleet",
        "job_cleaner_queue_filters",
        "kind_alias_rename",
        "rescuer_unknown_kind",
        "scheduler_unique_conflict_discard",
        "unique_skip_keeps_existing_kind",
    ),
}

NOT_OFFERED: Mapping[str, NotOffered] = {
    "heterogeneous_fleet": NotOffered(
        asks="clients of one queue that each claim the kinds they know",
        because="riverrun has no such option; give kinds that some clients lack their own queue",
    ),
    "job_cleaner_queue_filters": NotOffered(
        asks="retention for some queues only",
        because="it is a setting of River's extension point, not of its client",
    ),
}


@cache
def scenario_tests() -> Mapping[str, FunctionType]:
    """Return the tests of this folder by the name of their scenario."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        if path.stem == "test_registry":
            continue
        module = importlib.import_module(f"interop.conformance.{path.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_"):
                found[name.removeprefix("test_")] = test
    return found


def outcomes() -> Mapping[str, Outcome]:
    """Return the result of each scenario, as its test's decorator records it."""
    marked = {
        name: test.__dict__["outcome"]
        for name, test in scenario_tests().items()
        if "outcome" in test.__dict__
    }
    return {**marked, **NOT_OFFERED}


def table() -> str:
    """Return the text of the tables in docs/conformance.md."""
    known = outcomes()
    sorts = Counter(type(outcome) for outcome in known.values())
    smaller = sum(isinstance(each, Passed) and bool(each.form) for each in known.values())
    summary = (
        f"Of {len(known)} scenarios {sorts[Passed]} passed, {smaller} of them in a smaller form;"
        f" {sorts[Differs]} differ;\n{sorts[NotOffered]} are not offered."
    )
    parts = [summary]
    for tier, names in TIERS.items():
        lines = [f"### {tier}", "", "| Scenario | Asks for | Result |", "|---|---|---|"]
        lines += [f"| `{name}` | {known[name].asks} | {known[name].result} |" for name in names]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
