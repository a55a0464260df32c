"""River's scenarios, what each asks for, and what came of it; docs/conformance.md shows them.

The names and tiers are those of River's conformance/scenarios/core.json, 0.49 (adapter version 18,
protocol revision 1); the words are ours.
"""

import attrs

PASSED = "passed"
DIFFERS = "differs"
SMALL = "passed, small form"
TWO_SIDES = "passed with Go and Python"
NOT_OFFERED = "not offered"
SMALL_SIDES = "passed with Go and Python, small form"


@attrs.frozen
class Scenario:
    """One scenario."""

    name: str
    asks: str
    result: str = PASSED
    note: str = ""


CODEC = (
    Scenario("adapter_handshake_and_capabilities", "the profile's methods, strict params"),
    Scenario(
        "cron_schedule_goldens",
        "45 expressions' next times, 9 of them in named zones; 21 that are refused",
        note="a date that never comes is refused when its schedule is made, not left to never run",
    ),
    Scenario("cross_language_unique_conflict", "an insert waits for the other's of the same key"),
    Scenario(
        "deterministic_retry_clock_rng",
        "delays by a set clock and seed, within the golden bounds",
        note="Go's policy has no seed: its delays are checked against the bounds alone",
    ),
    Scenario(
        "job_row_round_trip_all_fields",
        "every column, big numbers kept to the digit",
        note="a decimal of a `JobRow` is a float; `models.Job` obeys the engine's deserializer",
    ),
    Scenario("notification_payload_bytes", "what is told of jobs, queues and leaders, to the byte"),
    Scenario("unique_column_bytes", "key and states of a row, to the bit"),
    Scenario(
        "unique_hash_goldens",
        "the keys of all cases",
        note="args are objects: an array is refused, an empty one too; the case of names that look"
        " like paths runs on riverrun's side, its struct is of River's harness",
    ),
    Scenario("unsafe_int64_job_ids_rpc_list_cursors", "ids beyond a double"),
)

STORAGE = (
    Scenario("bulk_delete_safety", "no deletion without a filter, none of running jobs"),
    Scenario("candidate_migrator_reference_runtime", "Go at work on riverrun's migrations"),
    Scenario("differential_job_crud", "get, update, cancel, retry, delete alike"),
    Scenario("differential_job_list_filters_and_cursors", "every filter and order lists alike"),
    Scenario("differential_queue_crud", "queues alike"),
    Scenario(
        "historical_migration_down_up",
        "version by version down and up, sides taking turns",
        note="riverrun's own line, which stands on River's, is taken down before it",
    ),
    Scenario("job_list_cursor_interchange", "a listing goes on with the other's cursor"),
    Scenario("migration_mixed_case_schema", "a schema whose name needs quotes"),
    Scenario("multi_engine_job_list_cursor_interchange", "pages from four processes", TWO_SIDES),
    Scenario("queue_names_and_unknown_queue_control", "odd names; no such queue"),
    Scenario("reference_migrator_candidate_runtime", "riverrun at work on Go's migrations"),
    Scenario("transaction_abort_rollback_visibility", "nothing of an aborted transaction"),
    Scenario("transaction_commit_visibility", "seen from the commit on"),
    Scenario("transaction_rollback_visibility", "never seen after a rollback"),
    Scenario(
        "transactional_batch_insertion",
        "a batch, with duplicates, from the commit on",
        note="one key twice in a batch: the second is a duplicate of the first; River fails",
    ),
    Scenario("transactional_completion", "a worker completes its job in its own transaction"),
    Scenario("transactional_crud_commit_rollback", "updates and deletions, committed or not"),
    Scenario("transactional_queue_operations", "pauses and descriptions, committed or not"),
    Scenario("typed_batch_insertion", "6,000 in order, all or nothing, none from no jobs"),
)

RUNTIME = (
    Scenario("barrier_wait_and_release", "one attempt, however long"),
    Scenario(
        "claim_time_cancellation",
        "a cancel between claim and beginning",
        note="riverrun does not call the worker of such an attempt; a plugin sees it",
    ),
    Scenario("cooperative_remote_cancellation", "the other side's cancel reaches a running job"),
    Scenario("default_retry_policy_schedule", "delays of River's policy after real failures"),
    Scenario("dynamic_queue_add_reconfigure_remove", "queues while a client runs"),
    Scenario("error_handler_cancel_override", "an error handler cancels instead of a retry"),
    Scenario("extension_hook_middleware_order", "middleware around hooks"),
    Scenario("hard_shutdown_soft_stop_classification", "what a hard stop makes of each worker"),
    Scenario(
        "leadership_renewal_under_slow_maintenance",
        "a slow cleaner costs no lease",
        SMALL,
        "one deletion of 8 s",
    ),
    Scenario("leadership_same_client_id_term_replacement", "terms, not names, tell leaders apart"),
    Scenario("maintenance_job_cleaner_retention", "each state's retention, or none"),
    Scenario("maintenance_queue_cleaner_keeps_active_queues", "queues nobody worked for a day go"),
    Scenario("maintenance_reindexer_skips_artifacts", "indexes missing or with an artifact"),
    Scenario("maintenance_rescuer_full_batch_of_unexpired_jobs", "10,000 that may run on, and one"),
    Scenario("maintenance_rescuer_stale_selection", "not what was completed or claimed meanwhile"),
    Scenario("panic_attempt_trace", "a trace of where a worker broke"),
    Scenario("periodic_due_job_available", "a due periodic job needs no scheduler"),
    Scenario("periodic_run_on_start", "once, with its id in the metadata"),
    Scenario("periodic_unique_cross_engine", "unique also over a change of leaders"),
    Scenario("refetched_attempt_cancellation", "a snoozed job fetched again is cancelled"),
    Scenario("resumable_retry", "completed steps are skipped"),
    Scenario("resumable_validation", "names twice, empty steps, malformed cursors"),
    Scenario("shutdown_after_cancel_attempt", "cancelled, not given back"),
    Scenario("single_implementation_worker_outcomes", "each outcome's row"),
    Scenario("snooze_once_metadata_transition", "no attempt spent; short ones at once"),
    Scenario("stuck_job_detection", "said once of a worker that ignores its end"),
    Scenario("timeout_cancellation", "a failed attempt when the time is over"),
)

MIXED = (
    Scenario("candidate_insert_reference_work", "riverrun inserts, Go works"),
    Scenario(
        "claimed_row_decode_isolation",
        "odd rows fail by themselves",
        note="asked of riverrun; of Go only that other jobs go on",
    ),
    Scenario("clock_boundary_scheduling", "never before it is due"),
    Scenario("custom_schema_candidate_migrate_reference_work", "Go in riverrun's schema"),
    Scenario("custom_schema_reference_migrate_candidate_work", "riverrun in Go's schema"),
    Scenario("external_terminal_completion_race", "what ended a job from outside stands"),
    Scenario("leader_election_disabled_both_directions", "works, never leads"),
    Scenario("mixed_leader_failover_both_directions", "the next leads at once"),
    Scenario("mixed_request_resign_terms", "asked to resign, at the commit if at all"),
    Scenario("mixed_skip_locked_competition", "each job once"),
    Scenario(
        "mixed_unknown_kind_error",
        "River's words, retried or discarded by its attempts",
        note="what was lost is retried whatever its kind, as another client may know it: riverrun's"
        " leader discards no job for its kind",
    ),
    Scenario("multi_engine_competition", "each job once, all processes", TWO_SIDES),
    Scenario(
        "multi_engine_directed_candidate_work_notification_cancellation",
        "each works, wakes and cancels for each",
        TWO_SIDES,
    ),
    Scenario("multi_engine_leader_election_disabled", "the one that may leads", TWO_SIDES),
    Scenario("multi_engine_leader_failover", "the lead goes through all", TWO_SIDES),
    Scenario("multi_engine_resumable_cursor", "attempts in three processes", TWO_SIDES),
    Scenario("notification_only_wakeups", "told, not polled"),
    Scenario("pause_resume_notification", "held at once, others go on"),
    Scenario("reference_insert_candidate_work", "Go inserts, riverrun works"),
    Scenario("remote_cancel_notification", "told, not polled"),
    Scenario("remote_queue_subscription_events", "one event for each change"),
    Scenario("reserved_metadata_cross_engine", "River's names, and the application's kept"),
    Scenario("resumable_cross_engine_cursor", "attempts take turns"),
    Scenario("rolling_deployment_same_protocol", "one side replaces the other at work"),
    Scenario("transactional_cross_language_cancel", "a cancel, at the commit if at all"),
    Scenario("transactional_insert_notification_commit_only", "told at the commit if at all"),
)

CHAOS = (
    Scenario(
        "candidate_process_kill_reference_rescue",
        "Go rescues a killed riverrun's job",
        note="River's rescuer has no option for its interval, so the lead changes hands first",
    ),
    Scenario(
        "completion_row_lock_wait",
        "a completion waits for its row",
        DIFFERS,
        "riverrun skips a locked row, completes others and writes this one once it is free",
    ),
    Scenario("completion_transient_failure_retry", "a completion refused once is tried again"),
    Scenario("database_unavailable_reconnect", "all connections cut, three times"),
    Scenario(
        "ignored_cancellation_hard_abort",
        "a hard stop ends, the job is given back",
        note="riverrun raises in the worker's thread; Go has no such means, its process is killed",
    ),
    Scenario("listener_backend_disconnect_reconnect", "hears again"),
    Scenario("lost_notification_poll_recovery", "polling finds what was not told"),
    Scenario("mixed_leader_death_failover_both_directions", "a lease that ends is taken"),
    Scenario("multi_engine_fault_recovery", "connections cut, four processes", TWO_SIDES),
    Scenario("multi_engine_process_kill_rescue_failover", "a leader killed at work", TWO_SIDES),
    Scenario(
        "process_kill_restart_and_rescue",
        "rescues its own",
        note="a riverrun client is dead 20 s after its last heartbeat, however short rescue_after"
        " is: the test sets the heartbeat back",
    ),
    Scenario("reference_process_kill_candidate_rescue", "riverrun rescues a killed Go's job"),
)

PERFORMANCE = (
    Scenario(
        "completion_batching", "far fewer transactions than jobs", SMALL, "200 jobs, not 1,000"
    ),
    Scenario("mixed_connection_pool_bound", "at most 20 connections", SMALL, "400 jobs"),
    Scenario("mixed_soak", "all verbs for a while, no job lost or doubled", SMALL, "4 s"),
    Scenario(
        "multi_engine_release_performance",
        "four processes at one queue",
        SMALL_SIDES,
        "within 40 times Go's time, see below",
    ),
    Scenario("multi_engine_resource_bound", "at most 20 connections each", SMALL_SIDES, "800 jobs"),
    Scenario("multi_engine_soak", "as mixed_soak, four processes", SMALL_SIDES, "4 s"),
    Scenario("pool_pressure_completion", "600 jobs, 100 workers, few connections"),
    Scenario("release_enqueue_performance", "inserts", SMALL, "within 40 times Go's time"),
    Scenario("release_mixed_performance", "both at work", SMALL, "within 40 times Go's time"),
    Scenario("release_worker_performance", "work", SMALL, "within 40 times Go's time"),
)

# Added to River's harness after 0.49.
NEWER = (
    Scenario("claim_order", "priority, then due time, then id"),
    Scenario("cross_language_cancel_retry_race", "either is the last, the row is whole"),
    Scenario("exhausted_job_retry", "one more attempt"),
    Scenario(
        "heterogeneous_fleet",
        "a client that claims known kinds alone",
        NOT_OFFERED,
        "riverrun has no such option; kinds that some clients lack belong in a queue of their own",
    ),
    Scenario(
        "job_cleaner_queue_filters",
        "retention for some queues only",
        NOT_OFFERED,
        "a setting of River's extension point, not of its client",
    ),
    Scenario("kind_alias_rename", "a worker of two kinds", note="asked of riverrun"),
    Scenario(
        "rescuer_unknown_kind",
        "a lost job of a kind that the leader does not know",
        note="asked of riverrun: it is retried",
    ),
    Scenario("scheduler_unique_conflict_discard", "due while another has its key"),
    Scenario("unique_skip_keeps_existing_kind", "a duplicate changes nothing"),
)

TIERS = {
    "codec": CODEC,
    "storage": STORAGE,
    "runtime": RUNTIME,
    "mixed": MIXED,
    "chaos": CHAOS,
    "performance": PERFORMANCE,
    "newer": NEWER,
}


def table() -> str:
    """Return the tables of docs/conformance.md."""
    parts = []
    for tier, scenarios in TIERS.items():
        lines = [f"### {tier}", "", "| Scenario | Asks for | Result |", "|---|---|---|"]
        for scenario in scenarios:
            result = scenario.result + (f": {scenario.note}" if scenario.note else "")
            lines.append(f"| `{scenario.name}` | {scenario.asks} | {result} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
