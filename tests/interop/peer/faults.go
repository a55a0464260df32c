package main

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

type countResult struct {
	Count int `json:"count"`
}

type leaderResult struct {
	ElectedAt *time.Time `json:"elected_at"`
	LeaderID  *string    `json:"leader_id"`
}

type resignParams struct {
	Handle string `json:"handle"`
}

type applicationParams struct {
	ApplicationName string `json:"application_name"`
}

type finalizeParams struct {
	ID       int64           `json:"id"`
	Metadata json.RawMessage `json:"metadata"`
	State    string          `json:"state"`
}

type exactParams struct {
	ID           *int64 `json:"id"`
	MetadataJSON string `json:"metadata_json"`
}

type exactResult struct {
	ID int64 `json:"id"`
}

type rawInsertParams struct {
	jobParams

	Kind string `json:"kind"`
}

// listening is the condition for a listener's connection: its last statement was LISTEN, or a ping since.
const listening = "(query LIKE 'LISTEN %' OR query = '-- ping')"

func (p *peer) addFaults() {
	add(p, "leader", p.leader)
	add(p, "request_resign", p.requestResign)
	add(p, "listener_count", func(ctx context.Context, _ *none) (any, error) {
		return p.count(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database() AND "+listening, p.application)
	})
	add(p, "connection_count", func(ctx context.Context, _ *none) (any, error) {
		return p.count(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()", p.application)
	})
	const cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()"
	add(p, "fault_disconnect_listeners", func(ctx context.Context, _ *none) (any, error) {
		return p.count(ctx, cut+" AND "+listening, p.application)
	})
	add(p, "fault_disconnect_application", func(ctx context.Context, params *applicationParams) (any, error) {
		if !strings.HasPrefix(params.ApplicationName, "river-conformance-") {
			return nil, failure(codeInvalidParams, "application_name %q begins with nothing of ours", params.ApplicationName)
		}
		return p.count(ctx, cut, params.ApplicationName)
	})
	add(p, "fault_expire_leader", func(ctx context.Context, _ *none) (any, error) {
		_, err := p.pool.Exec(ctx, "UPDATE river_leader SET expires_at = now() - interval '1 second'")
		return nil, err
	})
	add(p, "raw_finalize", p.rawFinalize)
	add(p, "raw_insert_exact_json", p.rawInsertExactJSON)
	add(p, "raw_insert_full_row", p.rawInsertFullRow)
	add(p, "raw_insert_no_notify", p.rawInsertNoNotify)
	add(p, "raw_job_exact_json", p.rawJobExactJSON)
	add(p, "raw_job_row", p.rawJobRow)
	add(p, "raw_job_timestamps", p.rawJobTimestamps)
}

func (p *peer) count(ctx context.Context, query string, args ...any) (any, error) {
	var result countResult
	err := p.pool.QueryRow(ctx, query, args...).Scan(&result.Count)
	return &result, err
}

func (p *peer) leader(ctx context.Context, _ *none) (any, error) {
	var result leaderResult
	err := p.pool.QueryRow(ctx, "SELECT elected_at, leader_id FROM river_leader WHERE expires_at >= now()").
		Scan(&result.ElectedAt, &result.LeaderID)
	if err == pgx.ErrNoRows {
		return &result, nil
	}
	result.ElectedAt = utc(result.ElectedAt)
	return &result, err
}

func (p *peer) requestResign(ctx context.Context, params *resignParams) (any, error) {
	client, err := p.client("")
	if err != nil {
		return nil, err
	}
	if params.Handle == "" {
		return nil, client.Notify().RequestResign(ctx)
	}
	tx, err := p.tx(params.Handle)
	if err != nil {
		return nil, err
	}
	return nil, client.Notify().RequestResignTx(ctx, tx)
}

func (p *peer) rawFinalize(ctx context.Context, params *finalizeParams) (any, error) {
	if params.Metadata == nil {
		params.Metadata = json.RawMessage("{}")
	}
	problem := `{"at":"2026-02-03T04:05:06.789Z","attempt":1,"error":"external discard","trace":"external trace"}`
	done, err := p.pool.Exec(ctx, `
		UPDATE river_job
		SET state = $2::text::river_job_state, finalized_at = now(), metadata = metadata || $3::jsonb,
			errors = CASE WHEN $2::text = 'discarded' THEN errors || $4::jsonb ELSE errors END
		WHERE id = $1 AND state = 'running'`, params.ID, params.State, string(params.Metadata), problem)
	if err != nil {
		return nil, err
	}
	if done.RowsAffected() == 0 {
		return nil, failure(codeNotFound, "job %d is not running", params.ID)
	}
	return one(p.get(ctx, "", params.ID))
}

func (p *peer) rawInsertExactJSON(ctx context.Context, params *exactParams) (any, error) {
	if params.MetadataJSON == "" {
		params.MetadataJSON = `{"negative":-9223372036854775808}`
	}
	var result exactResult
	err := p.pool.QueryRow(ctx, `
		INSERT INTO river_job (id, args, kind, max_attempts, metadata)
		VALUES (coalesce($1, nextval(pg_get_serial_sequence('river_job', 'id'))),
			'{"decimal": 0.12345678901234567890123456789, "integer": 9223372036854775807}',
			'conformance_exact_json', 25, $2::jsonb)
		RETURNING id`, params.ID, params.MetadataJSON).Scan(&result.ID)
	return &result, err
}

func (p *peer) rawInsertFullRow(ctx context.Context, _ *none) (any, error) {
	var id int64
	err := p.pool.QueryRow(ctx, `
		INSERT INTO river_job (args, attempt, attempted_at, attempted_by, created_at, errors,
			finalized_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags,
			unique_key, unique_states)
		VALUES ('{"nested": {"enabled": true}, "values": [1, "two", null]}', 3,
			'2026-01-02T03:04:06.123456Z', '{go-client,candidate-client}',
			'2026-01-02T03:04:05.6789Z', ARRAY[jsonb_build_object('at', '2026-01-02T03:04:06.123456Z',
				'attempt', 3, 'error', 'worker failed: escaped "detail"', 'trace', E'frame one\nframe two')],
			'2026-01-02T03:04:07.000001Z', 'conformance_full_row', 4,
			'{"output": {"ok": true}, "river:rescue_count": 2, "user": "metadata"}', 2,
			'priority_jobs', '2026-01-02T03:04:05.999999Z', 'discarded', '{alpha_tag,beta_tag}',
			decode(repeat('ab', 32), 'hex'), B'11110101')
		RETURNING id`).Scan(&id)
	if err != nil {
		return nil, err
	}
	return one(p.get(ctx, "", id))
}

func (p *peer) rawInsertNoNotify(ctx context.Context, params *rawInsertParams) (any, error) {
	if params.Kind == "" {
		params.Kind = echoKind
	}
	if params.Opts.MaxAttempts == 0 {
		params.Opts.MaxAttempts = 25
	}
	if params.Opts.Queue == "" {
		params.Opts.Queue = "default"
	}
	args, err := json.Marshal(params.echoArgs)
	if err != nil {
		return nil, err
	}
	var id int64
	err = p.pool.QueryRow(ctx, `
		INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ($1::jsonb, $2, $3, $4)
		RETURNING id`, string(args), params.Kind, params.Opts.MaxAttempts, params.Opts.Queue).Scan(&id)
	if err != nil {
		return nil, err
	}
	return one(p.get(ctx, "", id))
}

// rawJobExactJSON shows the numbers of a job's JSON as River's driver hands them over, as text.
func (p *peer) rawJobExactJSON(ctx context.Context, params *idParams) (any, error) {
	row, err := p.get(ctx, "", params.ID)
	if err != nil {
		return nil, err
	}
	var args, metadata map[string]json.RawMessage
	if err := json.Unmarshal(row.EncodedArgs, &args); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(row.Metadata, &metadata); err != nil {
		return nil, err
	}
	shown := map[string]string{}
	for _, name := range []string{"decimal", "integer"} {
		shown[name] = string(args[name])
	}
	shown["negative"] = string(metadata["negative"])
	for _, name := range []string{"big_integer", "beyond_float", "long_decimal"} {
		if text, there := metadata[name]; there {
			shown[name] = string(text)
		}
	}
	return shown, nil
}

func (p *peer) rawJobRow(ctx context.Context, params *idParams) (any, error) {
	return p.rawRow(ctx, params.ID, `
		SELECT args::text, attempted_at::text, attempted_by::text, created_at::text, errors::text,
			finalized_at::text, NULL AS jsonb, metadata::text, scheduled_at::text, tags::text,
			upper(encode(unique_key, 'hex')) AS unique_key, NULL AS unique_key_type,
			unique_states::text, NULL AS unique_states_type
		FROM river_job WHERE id = $1`)
}

func (p *peer) rawJobTimestamps(ctx context.Context, params *idParams) (any, error) {
	return p.rawRow(ctx, params.ID, "SELECT created_at::text, scheduled_at::text FROM river_job WHERE id = $1")
}

func (p *peer) rawRow(ctx context.Context, id int64, query string) (any, error) {
	rows, err := p.pool.Query(ctx, query, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToMap)
}
