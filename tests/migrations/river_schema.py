"""The tables as River's version 7 has them on PostgreSQL, and riverrun's own, written down as data.

Source: River 0.51, riverdriver/riverpgxv5/migration/main, migrated 1 to 8 and read from the
catalog. A schema's name, where PostgreSQL shows it, is left out.
"""

RIVER = {
    "columns": [
        ("river_job", "id", "bigint", True, "nextval('river_job_id_seq'::regclass)"),
        ("river_job", "state", "river_job_state", True, "'available'::river_job_state"),
        ("river_job", "attempt", "smallint", True, "0"),
        ("river_job", "max_attempts", "smallint", True, "25"),
        ("river_job", "attempted_at", "timestamp with time zone", False, None),
        ("river_job", "created_at", "timestamp with time zone", True, "now()"),
        ("river_job", "finalized_at", "timestamp with time zone", False, None),
        ("river_job", "scheduled_at", "timestamp with time zone", True, "now()"),
        ("river_job", "priority", "smallint", True, "1"),
        ("river_job", "args", "jsonb", True, None),
        ("river_job", "attempted_by", "text[]", False, None),
        ("river_job", "errors", "jsonb[]", False, None),
        ("river_job", "kind", "text", True, None),
        ("river_job", "metadata", "jsonb", True, "'{}'::jsonb"),
        ("river_job", "queue", "text", True, "'default'::text"),
        ("river_job", "tags", "character varying(255)[]", True, "'{}'::character varying[]"),
        ("river_job", "unique_key", "bytea", False, None),
        ("river_job", "unique_states", "bit(8)", False, None),
        ("river_leader", "elected_at", "timestamp with time zone", True, None),
        ("river_leader", "expires_at", "timestamp with time zone", True, None),
        ("river_leader", "leader_id", "text", True, None),
        ("river_leader", "name", "text", True, "'default'::text"),
        ("river_migration", "line", "text", True, None),
        ("river_migration", "version", "bigint", True, None),
        ("river_migration", "created_at", "timestamp with time zone", True, "now()"),
        (
            "river_notification",
            "id",
            "bigint",
            True,
            "nextval('river_notification_id_seq'::regclass)",
        ),
        ("river_notification", "created_at", "timestamp with time zone", True, "now()"),
        ("river_notification", "payload", "text", True, None),
        ("river_notification", "topic", "text", True, None),
        ("river_queue", "name", "text", True, None),
        ("river_queue", "created_at", "timestamp with time zone", True, "now()"),
        ("river_queue", "metadata", "jsonb", True, "'{}'::jsonb"),
        ("river_queue", "paused_at", "timestamp with time zone", False, None),
        ("river_queue", "updated_at", "timestamp with time zone", True, "CURRENT_TIMESTAMP"),
    ],
    "unlogged": [("river_leader",)],
    "constraints": [
        (
            "river_job",
            "finalized_or_finalized_at_null",
            (
                "CHECK ((((finalized_at IS NULL) AND (state <> ALL "
                "(ARRAY['cancelled'::river_job_state, 'completed'::river_job_state, "
                "'discarded'::river_job_state]))) OR ((finalized_at IS NOT NULL) AND (state "
                "= ANY (ARRAY['cancelled'::river_job_state, 'completed'::river_job_state, "
                "'discarded'::river_job_state])))))"
            ),
        ),
        (
            "river_job",
            "kind_length",
            "CHECK (((char_length(kind) > 0) AND (char_length(kind) < 128)))",
        ),
        ("river_job", "max_attempts_is_positive", "CHECK ((max_attempts > 0))"),
        ("river_job", "priority_in_range", "CHECK (((priority >= 1) AND (priority <= 4)))"),
        (
            "river_job",
            "queue_length",
            "CHECK (((char_length(queue) > 0) AND (char_length(queue) < 128)))",
        ),
        ("river_job", "river_job_pkey", "PRIMARY KEY (id)"),
        (
            "river_leader",
            "leader_id_length",
            "CHECK (((char_length(leader_id) > 0) AND (char_length(leader_id) < 128)))",
        ),
        ("river_leader", "name_length", "CHECK ((name = 'default'::text))"),
        ("river_leader", "river_leader_pkey", "PRIMARY KEY (name)"),
        (
            "river_migration",
            "line_length",
            "CHECK (((char_length(line) > 0) AND (char_length(line) < 128)))",
        ),
        ("river_migration", "river_migration_pkey1", "PRIMARY KEY (line, version)"),
        ("river_migration", "version_gte_1", "CHECK ((version >= 1))"),
        ("river_notification", "river_notification_pkey", "PRIMARY KEY (id)"),
        (
            "river_notification",
            "topic_length",
            "CHECK (((length(topic) > 0) AND (length(topic) < 128)))",
        ),
        ("river_queue", "river_queue_pkey", "PRIMARY KEY (name)"),
    ],
    "indexes": [
        ("CREATE INDEX river_job_args_index ON river_job USING gin (args)",),
        ("CREATE INDEX river_job_kind ON river_job USING btree (kind)",),
        ("CREATE INDEX river_job_metadata_index ON river_job USING gin (metadata)",),
        (
            (
                "CREATE INDEX river_job_prioritized_fetching_index ON river_job USING btree "
                "(state, queue, priority, scheduled_at, id)"
            ),
        ),
        (
            (
                "CREATE INDEX river_job_state_and_finalized_at_index ON river_job USING btree "
                "(state, finalized_at) WHERE (finalized_at IS NOT NULL)"
            ),
        ),
        (
            (
                "CREATE INDEX river_notification_created_at_idx ON river_notification USING "
                "btree (created_at)"
            ),
        ),
        (
            (
                "CREATE INDEX river_notification_topic_id_idx ON river_notification USING btree "
                "(topic, id)"
            ),
        ),
        ("CREATE UNIQUE INDEX river_job_pkey ON river_job USING btree (id)",),
        (
            (
                "CREATE UNIQUE INDEX river_job_unique_idx ON river_job USING btree (unique_key) "
                "WHERE ((unique_key IS NOT NULL) AND (unique_states IS NOT NULL) AND "
                "river_job_state_in_bitmask(unique_states, state))"
            ),
        ),
        ("CREATE UNIQUE INDEX river_leader_pkey ON river_leader USING btree (name)",),
        (
            (
                "CREATE UNIQUE INDEX river_migration_pkey1 ON river_migration USING btree (line, "
                "version)"
            ),
        ),
        ("CREATE UNIQUE INDEX river_notification_pkey ON river_notification USING btree (id)",),
        ("CREATE UNIQUE INDEX river_queue_pkey ON river_queue USING btree (name)",),
    ],
    "functions": [
        (
            "river_job_state_in_bitmask",
            "bitmask bit, state river_job_state",
            "boolean",
            "i",
            (
                "SELECT CASE state WHEN 'available' THEN get_bit(bitmask, 7) WHEN 'cancelled' "
                "THEN get_bit(bitmask, 6) WHEN 'completed' THEN get_bit(bitmask, 5) WHEN "
                "'discarded' THEN get_bit(bitmask, 4) WHEN 'pending' THEN get_bit(bitmask, 3) "
                "WHEN 'retryable' THEN get_bit(bitmask, 2) WHEN 'running' THEN "
                "get_bit(bitmask, 1) WHEN 'scheduled' THEN get_bit(bitmask, 0) ELSE 0 END = "
                "1;"
            ),
        )
    ],
    "triggers": [],
    "states": [
        ("available",),
        ("cancelled",),
        ("completed",),
        ("discarded",),
        ("pending",),
        ("retryable",),
        ("running",),
        ("scheduled",),
    ],
}

OWN = {
    "columns": [
        ("riverrun_action", "id", "bigint", True, None),
        ("riverrun_action", "created_at", "timestamp with time zone", True, "now()"),
        ("riverrun_action", "user_name", "text", True, None),
        ("riverrun_action", "action", "text", True, None),
        ("riverrun_action", "count", "bigint", True, None),
        ("riverrun_action", "job_ids", "bigint[]", True, "'{}'::bigint[]"),
        ("riverrun_action", "filter", "jsonb", True, "'{}'::jsonb"),
        ("riverrun_client", "id", "text", True, None),
        ("riverrun_client", "created_at", "timestamp with time zone", True, "now()"),
        ("riverrun_client", "heartbeat_at", "timestamp with time zone", True, "now()"),
        ("riverrun_client", "hostname", "text", True, None),
        ("riverrun_client", "pid", "integer", True, None),
        ("riverrun_client", "queues", "text[]", True, "'{}'::text[]"),
        ("riverrun_client", "metadata", "jsonb", True, "'{}'::jsonb"),
        ("riverrun_periodic", "id", "text", True, None),
        ("riverrun_periodic", "created_at", "timestamp with time zone", True, "now()"),
        ("riverrun_periodic", "updated_at", "timestamp with time zone", True, "now()"),
        ("riverrun_periodic", "next_run_at", "timestamp with time zone", True, None),
        ("riverrun_periodic", "last_run_at", "timestamp with time zone", False, None),
        ("riverrun_periodic", "kind", "text", False, None),
        ("riverrun_periodic", "queue", "text", False, None),
        ("riverrun_periodic", "schedule", "text", False, None),
        ("riverrun_periodic", "zone", "text", False, None),
        ("riverrun_periodic", "paused_at", "timestamp with time zone", False, None),
        ("riverrun_periodic", "resumed_at", "timestamp with time zone", False, None),
        ("riverrun_periodic", "run_now_at", "timestamp with time zone", False, None),
        ("riverrun_sample", "step_s", "integer", True, None),
        ("riverrun_sample", "at", "timestamp with time zone", True, None),
        ("riverrun_sample", "queue", "text", True, None),
        ("riverrun_sample", "kind", "text", True, None),
        ("riverrun_sample", "state", "text", True, None),
        ("riverrun_sample", "count", "bigint", True, None),
        ("riverrun_sample", "wait_s", "double precision", True, None),
        ("riverrun_sample", "run_s", "double precision", True, None),
        ("riverrun_sample", "wait_counts", "integer[]", True, None),
        ("riverrun_sample", "run_counts", "integer[]", True, None),
    ],
    "constraints": [
        ("riverrun_action", "riverrun_action_pkey", "PRIMARY KEY (id)"),
        (
            "riverrun_action",
            "riverrun_action_user_name_length",
            "CHECK (((char_length(user_name) > 0) AND (char_length(user_name) <= 200)))",
        ),
        (
            "riverrun_client",
            "riverrun_client_id_length",
            "CHECK (((char_length(id) > 0) AND (char_length(id) < 128)))",
        ),
        ("riverrun_client", "riverrun_client_pkey", "PRIMARY KEY (id)"),
        (
            "riverrun_periodic",
            "riverrun_periodic_id_length",
            "CHECK (((char_length(id) > 0) AND (char_length(id) < 128)))",
        ),
        ("riverrun_periodic", "riverrun_periodic_pkey", "PRIMARY KEY (id)"),
        (
            "riverrun_sample",
            "riverrun_sample_pkey",
            "PRIMARY KEY (step_s, at, queue, kind, state)",
        ),
    ],
    "indexes": [
        ("CREATE UNIQUE INDEX riverrun_action_pkey ON riverrun_action USING btree (id)",),
        (
            (
                "CREATE INDEX riverrun_client_heartbeat_at_idx ON riverrun_client USING btree "
                "(heartbeat_at)"
            ),
        ),
        ("CREATE UNIQUE INDEX riverrun_client_pkey ON riverrun_client USING btree (id)",),
        ("CREATE UNIQUE INDEX riverrun_periodic_pkey ON riverrun_periodic USING btree (id)",),
        (
            (
                "CREATE UNIQUE INDEX riverrun_sample_pkey ON riverrun_sample USING btree "
                "(step_s, at, queue, kind, state)"
            ),
        ),
    ],
}
