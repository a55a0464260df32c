package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

const echoKind = "conformance_echo"

// echoArgs are the args of the one kind that every adapter works.
type echoArgs struct {
	Behavior   string `json:"behavior"`
	DurationMS int64  `json:"duration_ms"`
	Message    string `json:"message"`
}

func (echoArgs) Kind() string { return echoKind }

type uniqueParams struct {
	ByArgs      bool     `json:"by_args"`
	ByPeriodMS  int64    `json:"by_period_ms"`
	ByQueue     bool     `json:"by_queue"`
	ByState     []string `json:"by_state"`
	ExcludeKind bool     `json:"exclude_kind"`
}

func (u *uniqueParams) opts() river.UniqueOpts {
	return river.UniqueOpts{
		ByArgs:      u.ByArgs,
		ByPeriod:    milliseconds(u.ByPeriodMS),
		ByQueue:     u.ByQueue,
		ByState:     states(u.ByState),
		ExcludeKind: u.ExcludeKind,
	}
}

type optsParams struct {
	MaxAttempts int             `json:"max_attempts"`
	Metadata    json.RawMessage `json:"metadata"`
	Pending     bool            `json:"pending"`
	Priority    int             `json:"priority"`
	Queue       string          `json:"queue"`
	ScheduledAt time.Time       `json:"scheduled_at"`
	Tags        []string        `json:"tags"`
	Unique      uniqueParams    `json:"unique"`
}

func (o *optsParams) opts() *river.InsertOpts {
	return &river.InsertOpts{
		MaxAttempts: o.MaxAttempts,
		Metadata:    o.Metadata,
		Pending:     o.Pending,
		Priority:    o.Priority,
		Queue:       o.Queue,
		ScheduledAt: o.ScheduledAt,
		Tags:        o.Tags,
		UniqueOpts:  o.Unique.opts(),
	}
}

type jobParams struct {
	echoArgs

	Opts optsParams `json:"opts"`
}

type insertParams struct {
	jobParams

	Schema string `json:"schema"`
}

type insertManyParams struct {
	Jobs []jobParams `json:"jobs"`
}

func (m *insertManyParams) params() []river.InsertManyParams {
	many := make([]river.InsertManyParams, len(m.Jobs))
	for i, job := range m.Jobs {
		many[i] = river.InsertManyParams{Args: job.echoArgs, InsertOpts: job.Opts.opts()}
	}
	return many
}

type insertResult struct {
	Job     *job `json:"job"`
	Skipped bool `json:"unique_skipped_as_duplicate"`
}

type insertManyResult struct {
	Results []insertResult `json:"results"`
}

func inserted(results []*rivertype.JobInsertResult) *insertManyResult {
	many := &insertManyResult{Results: make([]insertResult, len(results))}
	for i, result := range results {
		many.Results[i] = insertResult{normalize(result.Job), result.UniqueSkippedAsDuplicate}
	}
	return many
}

type idParams struct {
	ID     int64  `json:"id"`
	Schema string `json:"schema"`
}

type updateParams struct {
	ID     int64           `json:"id"`
	Output json.RawMessage `json:"output"`
}

func (u *updateParams) params() *river.JobUpdateParams {
	if u.Output == nil {
		return &river.JobUpdateParams{}
	}
	return &river.JobUpdateParams{Output: u.Output}
}

type filterParams struct {
	All    bool     `json:"all"`
	IDs    []int64  `json:"ids"`
	Kinds  []string `json:"kinds"`
	Limit  int      `json:"limit"`
	Queues []string `json:"queues"`
	States []string `json:"states"`
}

func (f *filterParams) params() *river.JobDeleteManyParams {
	params := river.NewJobDeleteManyParams()
	if f.All {
		params = params.UnsafeAll()
	}
	if f.IDs != nil {
		params = params.IDs(f.IDs...)
	}
	if f.Kinds != nil {
		params = params.Kinds(f.Kinds...)
	}
	if f.Limit != 0 {
		params = params.First(f.Limit)
	}
	if f.Queues != nil {
		params = params.Queues(f.Queues...)
	}
	if f.States != nil {
		params = params.States(states(f.States)...)
	}
	return params
}

type listParams struct {
	After      string          `json:"after"`
	Direction  string          `json:"direction"`
	IDs        []int64         `json:"ids"`
	Kinds      []string        `json:"kinds"`
	Limit      int             `json:"limit"`
	Metadata   json.RawMessage `json:"metadata"`
	OrderBy    string          `json:"order_by"`
	Priorities []int16         `json:"priorities"`
	Queues     []string        `json:"queues"`
	States     []string        `json:"states"`
	TagsAll    []string        `json:"tags_all"`
	TagsAny    []string        `json:"tags_any"`
}

func (l *listParams) params() (*river.JobListParams, error) {
	params := river.NewJobListParams()
	if l.After != "" {
		var cursor river.JobListCursor
		if err := cursor.UnmarshalText([]byte(l.After)); err != nil {
			return nil, failure(codeInvalidParams, "after: %w", err)
		}
		params = params.After(&cursor)
	}
	if l.OrderBy != "" || l.Direction != "" {
		direction := river.SortOrderAsc
		if l.Direction == "desc" {
			direction = river.SortOrderDesc
		}
		order := river.JobListOrderByID
		if l.OrderBy != "" {
			order = river.JobListOrderByField(l.OrderBy)
		}
		params = params.OrderBy(order, direction)
	}
	if l.IDs != nil {
		params = params.IDs(l.IDs...)
	}
	if l.Kinds != nil {
		params = params.Kinds(l.Kinds...)
	}
	if l.Limit != 0 {
		params = params.First(l.Limit)
	}
	if l.Metadata != nil {
		params = params.Metadata(string(l.Metadata))
	}
	if l.Priorities != nil {
		params = params.Priorities(l.Priorities...)
	}
	if l.Queues != nil {
		params = params.Queues(l.Queues...)
	}
	if l.States != nil {
		params = params.States(states(l.States)...)
	}
	if l.TagsAll != nil {
		params = params.TagsAll(l.TagsAll...)
	}
	if l.TagsAny != nil {
		params = params.TagsAny(l.TagsAny...)
	}
	return params, nil
}

type listResult struct {
	Cursor *string `json:"cursor"`
	Jobs   []*job  `json:"jobs"`
}

func listed(result *river.JobListResult) (*listResult, error) {
	list := &listResult{Jobs: normalizeAll(result.Jobs)}
	if result.LastCursor != nil {
		text, err := result.LastCursor.MarshalText()
		if err != nil {
			return nil, err
		}
		cursor := string(text)
		list.Cursor = &cursor
	}
	return list, nil
}

type jobsResult struct {
	Jobs []*job `json:"jobs"`
}

type benchmarkParams struct {
	Jobs int `json:"jobs"`
}

type benchmarkResult struct {
	DurationNS int64 `json:"duration_ns"`
	P95NS      int64 `json:"p95_ns"`
}

func (p *peer) addJobs() {
	add(p, "insert", func(ctx context.Context, params *insertParams) (any, error) {
		client, err := p.client(params.Schema)
		if err != nil {
			return nil, err
		}
		result, err := client.Insert(ctx, params.echoArgs, params.Opts.opts())
		if err != nil {
			return nil, err
		}
		return normalize(result.Job), nil
	})
	add(p, "insert_many", func(ctx context.Context, params *insertManyParams) (any, error) {
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		results, err := client.InsertMany(ctx, params.params())
		if err != nil {
			return nil, err
		}
		return inserted(results), nil
	})
	add(p, "insert_many_fast", func(ctx context.Context, params *insertManyParams) (any, error) {
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		count, err := client.InsertManyFast(ctx, params.params())
		return &countResult{Count: count}, err
	})
	add(p, "benchmark_enqueue", p.benchmarkEnqueue)
	addOnJob(p, "get", (*riverClient).JobGet, (*riverClient).JobGetTx)
	addOnJob(p, "cancel", (*riverClient).JobCancel, (*riverClient).JobCancelTx)
	addOnJob(p, "retry", (*riverClient).JobRetry, (*riverClient).JobRetryTx)
	addOnJob(p, "delete", (*riverClient).JobDelete, (*riverClient).JobDeleteTx)
	add(p, "update", func(ctx context.Context, params *updateParams) (any, error) {
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		return one(client.JobUpdate(ctx, params.ID, params.params()))
	})
	add(p, "delete_many", func(ctx context.Context, params *filterParams) (any, error) {
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		result, err := client.JobDeleteMany(ctx, params.params())
		if err != nil {
			return nil, err
		}
		return &jobsResult{Jobs: normalizeAll(result.Jobs)}, nil
	})
	add(p, "list", func(ctx context.Context, params *listParams) (any, error) {
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		wanted, err := params.params()
		if err != nil {
			return nil, err
		}
		result, err := client.JobList(ctx, wanted)
		if err != nil {
			return nil, err
		}
		return listed(result)
	})
}

// addOnJob registers a method on one job, and its form in a transaction.
func addOnJob(
	p *peer,
	name string,
	do func(*riverClient, context.Context, int64) (*rivertype.JobRow, error),
	doTx func(*riverClient, context.Context, pgx.Tx, int64) (*rivertype.JobRow, error),
) {
	add(p, name, func(ctx context.Context, params *idParams) (any, error) {
		client, err := p.client(params.Schema)
		if err != nil {
			return nil, err
		}
		return one(do(client, ctx, params.ID))
	})
	addTx(p, "tx_"+name, func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txIDParams) (any, error) {
		return one(doTx(client, ctx, tx, params.ID))
	})
}

func (p *peer) benchmarkEnqueue(ctx context.Context, params *benchmarkParams) (any, error) {
	client, err := p.client("")
	if err != nil {
		return nil, err
	}
	took := make([]int64, params.Jobs)
	begun := time.Now()
	for i := range took {
		start := time.Now()
		if _, err := client.Insert(ctx, echoArgs{Message: "benchmark"}, nil); err != nil {
			return nil, err
		}
		took[i] = time.Since(start).Nanoseconds()
	}
	whole := time.Since(begun).Nanoseconds()
	slices.Sort(took)
	return &benchmarkResult{DurationNS: whole, P95NS: took[len(took)*95/100]}, nil
}

// job is a row as the protocol shows it.
type job struct {
	Args         json.RawMessage  `json:"args"`
	Attempt      int              `json:"attempt"`
	AttemptedAt  *time.Time       `json:"attempted_at"`
	AttemptedBy  []string         `json:"attempted_by"`
	CreatedAt    time.Time        `json:"created_at"`
	Errors       []attemptError   `json:"errors"`
	FinalizedAt  *time.Time       `json:"finalized_at"`
	ID           int64            `json:"id"`
	Kind         string           `json:"kind"`
	MaxAttempts  int              `json:"max_attempts"`
	Metadata     *json.RawMessage `json:"metadata"`
	Priority     int              `json:"priority"`
	Queue        string           `json:"queue"`
	ScheduledAt  time.Time        `json:"scheduled_at"`
	State        string           `json:"state"`
	Tags         []string         `json:"tags"`
	UniqueKey    *string          `json:"unique_key"`
	UniqueStates []string         `json:"unique_states"`
}

type attemptError struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error"`
	Trace   string    `json:"trace"`
}

func one(row *rivertype.JobRow, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return normalize(row), nil
}

func normalizeAll(rows []*rivertype.JobRow) []*job {
	jobs := make([]*job, len(rows))
	for i, row := range rows {
		jobs[i] = normalize(row)
	}
	return jobs
}

func normalize(row *rivertype.JobRow) *job {
	shown := &job{
		Args:        row.EncodedArgs,
		Attempt:     row.Attempt,
		AttemptedAt: utc(row.AttemptedAt),
		AttemptedBy: append([]string{}, row.AttemptedBy...),
		CreatedAt:   row.CreatedAt.UTC(),
		Errors:      make([]attemptError, len(row.Errors)),
		FinalizedAt: utc(row.FinalizedAt),
		ID:          row.ID,
		Kind:        row.Kind,
		MaxAttempts: row.MaxAttempts,
		Priority:    row.Priority,
		Queue:       row.Queue,
		ScheduledAt: row.ScheduledAt.UTC(),
		State:       string(row.State),
		Tags:        append([]string{}, row.Tags...),
	}
	// The protocol shows null where a metadata number is beyond an ordinary decoder.
	var decoded map[string]any
	if json.Unmarshal(row.Metadata, &decoded) == nil {
		shown.Metadata = (*json.RawMessage)(&row.Metadata)
	}
	for i, problem := range row.Errors {
		shown.Errors[i] = attemptError{problem.At.UTC(), problem.Attempt, problem.Error, problem.Trace}
	}
	if len(row.UniqueKey) > 0 {
		key := hex.EncodeToString(row.UniqueKey)
		shown.UniqueKey = &key
		for _, state := range row.UniqueStates {
			shown.UniqueStates = append(shown.UniqueStates, string(state))
		}
		slices.Sort(shown.UniqueStates)
	}
	return shown
}

func states(names []string) []rivertype.JobState {
	if names == nil {
		return nil
	}
	known := make([]rivertype.JobState, len(names))
	for i, name := range names {
		known[i] = rivertype.JobState(name)
	}
	return known
}

func utc(moment *time.Time) *time.Time {
	if moment == nil {
		return nil
	}
	shown := moment.UTC()
	return &shown
}

func milliseconds(count int64) time.Duration { return time.Duration(count) * time.Millisecond }

func (p *peer) get(ctx context.Context, schema string, id int64) (*rivertype.JobRow, error) {
	client, err := p.client(schema)
	if err != nil {
		return nil, err
	}
	row, err := client.JobGet(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("job %d: %w", id, err)
	}
	return row, nil
}
