package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivershared/baseservice"
	"github.com/riverqueue/river/rivershared/riverpilot"
	"github.com/riverqueue/river/rivertype"
)

const patience = 20 * time.Second

type startParams struct {
	CancelledJobRetentionMS *int64   `json:"cancelled_job_retention_ms"`
	ClaimBarrier            string   `json:"claim_barrier"`
	ClientID                string   `json:"client_id"`
	CompletedJobRetentionMS *int64   `json:"completed_job_retention_ms"`
	DiscardedJobRetentionMS *int64   `json:"discarded_job_retention_ms"`
	ElectIntervalMS         *int64   `json:"elect_interval_ms"`
	ErrorHandlerCancel      bool     `json:"error_handler_cancel"`
	FetchOnlyKnownKinds     bool     `json:"fetch_only_known_kinds"`
	FetchPollIntervalMS     int64    `json:"fetch_poll_interval_ms"`
	Instrumented            bool     `json:"instrumented"`
	JobCleanerIntervalMS    int64    `json:"job_cleaner_interval_ms"`
	JobStuckThresholdMS     int64    `json:"job_stuck_threshold_ms"`
	JobTimeoutDisabled      bool     `json:"job_timeout_disabled"`
	JobTimeoutMS            int64    `json:"job_timeout_ms"`
	LeaderElectionDisabled  bool     `json:"leader_election_disabled"`
	MaxWorkers              int      `json:"max_workers"`
	PeriodicRunOnStart      bool     `json:"periodic_run_on_start"`
	PeriodicUnique          bool     `json:"periodic_unique"`
	PollOnly                bool     `json:"poll_only"`
	Queue                   string   `json:"queue"`
	QueueCleanerIntervalMS  int64    `json:"queue_cleaner_interval_ms"`
	ReindexerIndexNames     []string `json:"reindexer_index_names"`
	ReindexerIntervalMS     int64    `json:"reindexer_interval_ms"`
	RescueAfterMS           int64    `json:"rescue_after_ms"`
	RescuerIntervalMS       *int64   `json:"rescuer_interval_ms"`
	RetryDelayMS            *int64   `json:"retry_delay_ms"`
	SchedulerIntervalMS     *int64   `json:"scheduler_interval_ms"`
	Schema                  string   `json:"schema"`
}

type stopParams struct {
	Cancel bool `json:"cancel"`
}

type waitParams struct {
	ID     int64    `json:"id"`
	States []string `json:"states"`
}

type workParams struct {
	ClientID string `json:"client_id"`
	ID       int64  `json:"id"`
	Schema   string `json:"schema"`
}

func (p *peer) addWork() {
	add(p, "start", p.start)
	add(p, "stop", func(_ context.Context, params *stopParams) (any, error) {
		if p.running == nil {
			return nil, failure(codeRejected, "no client is running")
		}
		running := p.running
		p.running = nil
		return nil, running.stop(params.Cancel)
	})
	add(p, "wait", p.wait)
	add(p, "work", p.work)
	add(p, "runtime_stats", func(context.Context, *none) (any, error) {
		if p.running == nil {
			return nil, failure(codeRejected, "no client is running")
		}
		return p.running.seen.snapshot(), nil
	})
	add(p, "barrier_create", func(_ context.Context, params *queueParams) (any, error) {
		p.barriers.create(params.Name)
		return nil, nil
	})
	add(p, "barrier_release", func(_ context.Context, params *queueParams) (any, error) {
		return nil, p.barriers.release(params.Name)
	})
}

// running is the client that start started.
type running struct {
	claimBarrier string
	barriers     *barriers
	client       *riverClient
	seen         *seen
	unsubscribe  func()
}

func (r *running) stop(cancel bool) error {
	defer r.unsubscribe()
	if r.claimBarrier != "" {
		_ = r.barriers.release(r.claimBarrier)
	}
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	if cancel {
		return r.client.StopAndCancel(ctx)
	}
	return r.client.Stop(ctx)
}

func (p *peer) start(ctx context.Context, params *startParams) (any, error) {
	if p.running != nil {
		return nil, failure(codeRejected, "a client is running already")
	}
	if params.ElectIntervalMS != nil || params.RescuerIntervalMS != nil || params.SchedulerIntervalMS != nil {
		return nil, failure(codeUnsupported, "River has no option for the intervals of election, rescuer and scheduler")
	}
	if params.ClaimBarrier != "" && p.barriers.get(params.ClaimBarrier) == nil {
		return nil, failure(codeInvalidParams, "no barrier %q", params.ClaimBarrier)
	}
	if params.PeriodicUnique && !params.PeriodicRunOnStart {
		return nil, failure(codeInvalidParams, "periodic_unique needs periodic_run_on_start")
	}
	running, err := p.newRunning(ctx, params)
	if err != nil {
		return nil, err
	}
	p.running = running
	return nil, nil
}

func (p *peer) newRunning(ctx context.Context, params *startParams) (*running, error) {
	seen := &seen{}
	config := p.config(params, seen)
	var driver riverdriver.Driver[pgx.Tx] = p.driver()
	if params.ClaimBarrier != "" {
		driver = &holdingDriver{Driver: p.driver(), pilot: &holdingPilot{barrier: p.barriers.get(params.ClaimBarrier)}}
	}
	client, err := river.NewClient(driver, config)
	if err != nil {
		return nil, err
	}
	events, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: 100_000,
		Kinds: []river.EventKind{
			river.EventKindJobCancelled, river.EventKindJobCompleted, river.EventKindJobFailed,
			river.EventKindJobInterrupted, river.EventKindJobSnoozed, river.EventKindQueuePaused,
			river.EventKindQueueResumed,
		},
	})
	go seen.take(events)
	// Not the request's context: the client outlives the request.
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		unsubscribe()
		return nil, err
	}
	return &running{
		claimBarrier: params.ClaimBarrier,
		barriers:     p.barriers,
		client:       client,
		seen:         seen,
		unsubscribe:  unsubscribe,
	}, nil
}

func (p *peer) config(params *startParams, seen *seen) *river.Config {
	queue := params.Queue
	if queue == "" {
		queue = river.QueueDefault
	}
	maxWorkers := params.MaxWorkers
	if maxWorkers == 0 {
		maxWorkers = 4
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &echoWorker{peer: p, seen: seen})
	config := &river.Config{
		CancelledJobRetentionPeriod: retention(params.CancelledJobRetentionMS),
		CompletedJobRetentionPeriod: retention(params.CompletedJobRetentionMS),
		DiscardedJobRetentionPeriod: retention(params.DiscardedJobRetentionMS),
		FetchCooldown:               time.Millisecond,
		FetchOnlyKnownKinds:         params.FetchOnlyKnownKinds,
		FetchPollInterval:           milliseconds(params.FetchPollIntervalMS),
		ID:                          params.ClientID,
		JobStuckHandler: func(context.Context, river.JobStuckHandlerParams) river.JobStuckHandlerResult {
			seen.add(&seen.StuckJobs)
			return river.JobStuckHandlerResult{}
		},
		JobStuckThreshold:      milliseconds(params.JobStuckThresholdMS),
		JobTimeout:             milliseconds(params.JobTimeoutMS),
		LeaderElectionDisabled: params.LeaderElectionDisabled,
		Logger:                 p.logger,
		PollOnly:               params.PollOnly,
		Queues:                 map[string]river.QueueConfig{queue: {MaxWorkers: maxWorkers}},
		ReindexerIndexNames:    params.ReindexerIndexNames,
		RescueStuckJobsAfter:   milliseconds(params.RescueAfterMS),
		Schema:                 params.Schema,
		SkipUnknownJobCheck:    true,
		TestOnly:               true,
		Workers:                workers,
	}
	if params.JobTimeoutDisabled {
		config.JobTimeout = -1
	}
	if params.ErrorHandlerCancel {
		config.ErrorHandler = &cancelling{seen: seen}
	}
	if params.RetryDelayMS != nil {
		config.RetryPolicy = fixedRetry(milliseconds(*params.RetryDelayMS))
	}
	if params.ReindexerIntervalMS != 0 {
		config.ReindexerSchedule = river.PeriodicInterval(milliseconds(params.ReindexerIntervalMS))
	}
	if params.Instrumented {
		config.Plugins = []rivertype.Plugin{&watching{seen: seen}}
	}
	if params.PeriodicRunOnStart {
		unique := river.UniqueOpts{ByArgs: params.PeriodicUnique, ByQueue: params.PeriodicUnique}
		config.PeriodicJobs = []*river.PeriodicJob{periodic("conformance-periodic", "periodic run on start", unique)}
		if params.PeriodicUnique {
			config.PeriodicJobs = append(config.PeriodicJobs,
				periodic("conformance-periodic-marker", "periodic marker", river.UniqueOpts{}))
		}
	}
	return config
}

// retention turns the protocol's milliseconds into River's periods, in which -1 means for ever.
func retention(ms *int64) time.Duration {
	switch {
	case ms == nil:
		return 0
	case *ms < 0:
		return -1
	}
	return milliseconds(*ms)
}

func periodic(id, message string, unique river.UniqueOpts) *river.PeriodicJob {
	return river.NewPeriodicJob(
		river.PeriodicInterval(time.Hour),
		func() (river.JobArgs, *river.InsertOpts) {
			return echoArgs{Message: message}, &river.InsertOpts{
				Metadata: []byte(`{"periodic": true}`), UniqueOpts: unique,
			}
		},
		&river.PeriodicJobOpts{ID: id, RunOnStart: true},
	)
}

type fixedRetry time.Duration

func (f fixedRetry) NextRetry(*rivertype.JobRow) time.Time {
	return time.Now().Add(time.Duration(f))
}

// wait returns a job as soon as it is in one of the states. Default: the final ones.
func (p *peer) wait(ctx context.Context, params *waitParams) (any, error) {
	if params.States == nil {
		params.States = []string{"cancelled", "completed", "discarded"}
	}
	deadline := time.Now().Add(patience)
	schema := ""
	if p.running != nil {
		schema = p.running.client.Schema()
	}
	for {
		row, err := p.get(ctx, schema, params.ID)
		if err != nil {
			return nil, err
		}
		if slices.Contains(params.States, string(row.State)) {
			return normalize(row), nil
		}
		if time.Now().After(deadline) {
			return nil, failure(codeRejected, "job %d is %s, not %v", params.ID, row.State, params.States)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// work runs a client until it has written an outcome of the job.
func (p *peer) work(ctx context.Context, params *workParams) (any, error) {
	if p.running != nil {
		return nil, failure(codeRejected, "a client is running already")
	}
	row, err := p.get(ctx, params.Schema, params.ID)
	if err != nil {
		return nil, err
	}
	if params.ClientID == "" {
		params.ClientID = "go-work"
	}
	client, err := p.newRunning(ctx, &startParams{
		ClientID: params.ClientID, FetchPollIntervalMS: 10, MaxWorkers: 1, Queue: row.Queue, Schema: params.Schema,
	})
	if err != nil {
		return nil, err
	}
	worked := client.seen.waitFor(params.ID, patience)
	if err := client.stop(false); err != nil {
		return nil, err
	}
	if !worked {
		return nil, failure(codeRejected, "job %d was not worked", params.ID)
	}
	return one(p.get(ctx, params.Schema, params.ID))
}

// seen is what a client saw since it was started; it is what runtime_stats answers.
type seen struct {
	mu sync.Mutex

	CancelledAtStart    int      `json:"cancelled_at_start"`
	ErrorHandlerCalls   int      `json:"error_handler_calls"`
	Events              []string `json:"events"`
	PeriodicStarts      int      `json:"periodic_starts"`
	ResumableFirstRuns  int      `json:"resumable_first_runs"`
	ResumableSecondRuns int      `json:"resumable_second_runs"`
	StuckJobs           int      `json:"stuck_jobs"`
	Trace               []string `json:"trace"`

	finished map[int64]bool
}

func (s *seen) take(events <-chan *river.Event) {
	for event := range events {
		s.mu.Lock()
		s.Events = append(s.Events, string(event.Kind))
		if event.Job != nil {
			if s.finished == nil {
				s.finished = map[int64]bool{}
			}
			s.finished[event.Job.ID] = true
		}
		s.mu.Unlock()
	}
}

func (s *seen) waitFor(id int64, patience time.Duration) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		finished := s.finished[id]
		s.mu.Unlock()
		if finished {
			return true
		}
	}
	return false
}

func (s *seen) add(counter *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter++
}

func (s *seen) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Trace = append(s.Trace, what)
}

func (s *seen) snapshot() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]any{
		"cancelled_at_start":    s.CancelledAtStart,
		"error_handler_calls":   s.ErrorHandlerCalls,
		"events":                append([]string{}, s.Events...),
		"periodic_starts":       s.PeriodicStarts,
		"resumable_first_runs":  s.ResumableFirstRuns,
		"resumable_second_runs": s.ResumableSecondRuns,
		"stuck_jobs":            s.StuckJobs,
		"trace":                 append([]string{}, s.Trace...),
	}
}

// cancelling is an error handler that cancels whatever fails.
type cancelling struct{ seen *seen }

func (c *cancelling) HandleError(context.Context, *rivertype.JobRow, error) *river.ErrorHandlerResult {
	c.seen.add(&c.seen.ErrorHandlerCalls)
	return &river.ErrorHandlerResult{SetCancelled: true}
}

func (c *cancelling) HandlePanic(context.Context, *rivertype.JobRow, any, string) *river.ErrorHandlerResult {
	c.seen.add(&c.seen.ErrorHandlerCalls)
	return &river.ErrorHandlerResult{SetCancelled: true}
}

// watching notes each hook and middleware that it is asked as.
type watching struct {
	river.PluginDefaults

	seen *seen
}

func (w *watching) InsertBegin(context.Context, *rivertype.JobInsertParams) error {
	w.seen.note("hook:insert_begin")
	return nil
}

func (w *watching) WorkBegin(context.Context, *rivertype.JobRow) error {
	w.seen.note("hook:work_begin")
	return nil
}

func (w *watching) WorkEnd(_ context.Context, _ *rivertype.JobRow, err error) error {
	w.seen.note("hook:work_end")
	return err
}

func (w *watching) Start(context.Context, *rivertype.HookPeriodicJobsStartParams) error {
	w.seen.add(&w.seen.PeriodicStarts)
	w.seen.note("hook:periodic_start")
	return nil
}

func (w *watching) InsertMany(
	ctx context.Context, _ []*rivertype.JobInsertParams,
	inner func(context.Context) ([]*rivertype.JobInsertResult, error),
) ([]*rivertype.JobInsertResult, error) {
	w.seen.note("middleware:insert_before")
	defer w.seen.note("middleware:insert_after")
	return inner(ctx)
}

func (w *watching) Work(ctx context.Context, _ *rivertype.JobRow, inner func(context.Context) error) error {
	w.seen.note("middleware:work_before")
	defer w.seen.note("middleware:work_after")
	return inner(ctx)
}

// barriers are what a worker may wait at until it is released.
type barriers struct {
	mu    sync.Mutex
	named map[string]chan struct{}
}

func newBarriers() *barriers { return &barriers{named: map[string]chan struct{}{}} }

func (b *barriers) create(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.named[name] = make(chan struct{})
}

func (b *barriers) get(name string) chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.named[name]
}

func (b *barriers) release(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	barrier, there := b.named[name]
	if !there {
		return failure(codeNotFound, "no barrier %q", name)
	}
	select {
	case <-barrier:
	default:
		close(barrier)
	}
	return nil
}

func (b *barriers) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, barrier := range b.named {
		select {
		case <-barrier:
		default:
			close(barrier)
		}
		delete(b.named, name)
	}
}

// holdingDriver gives a client a pilot that holds its first claimed jobs back at a barrier.
type holdingDriver struct {
	*riverpgxv5.Driver

	pilot *holdingPilot
}

func (d *holdingDriver) PluginInit(*baseservice.Archetype) {}

func (d *holdingDriver) PluginPilot() riverpilot.Pilot { return d.pilot }

type holdingPilot struct {
	riverpilot.StandardPilot

	barrier chan struct{}
	once    sync.Once
}

func (h *holdingPilot) JobGetAvailable(
	ctx context.Context, exec riverdriver.Executor, state riverpilot.ProducerState,
	params *riverdriver.JobGetAvailableParams,
) (*riverdriver.JobGetAvailableResult, error) {
	result, err := h.StandardPilot.JobGetAvailable(ctx, exec, state, params)
	if err == nil && len(result.Jobs) > 0 {
		h.once.Do(func() {
			select {
			case <-h.barrier:
			case <-ctx.Done():
			}
		})
	}
	return result, err
}

// echoWorker does what a job's args say.
type echoWorker struct {
	river.WorkerDefaults[echoArgs]

	peer *peer
	seen *seen
}

func (w *echoWorker) Work(ctx context.Context, job *river.Job[echoArgs]) error {
	switch job.Args.Behavior {
	case "":
		return nil
	case "barrier_output", "barrier_wait":
		barrier := w.peer.barriers.get(job.Args.Message)
		if barrier == nil {
			return fmt.Errorf("no barrier %q", job.Args.Message)
		}
		select {
		case <-barrier:
		case <-ctx.Done():
			return ctx.Err()
		}
		if job.Args.Behavior == "barrier_output" {
			return river.RecordOutput(ctx, map[string]string{"race": "worker"})
		}
		return nil
	case "cancel":
		return river.JobCancel(errors.New("cancelled by conformance worker"))
	case "cancel_error":
		<-ctx.Done()
		return errors.New("conformance failure after cancellation")
	case "cancel_panic":
		<-ctx.Done()
		panic("conformance panic after cancellation")
	case "cooperative_cancel":
		if ctx.Err() != nil {
			w.seen.add(&w.seen.CancelledAtStart)
		}
		<-ctx.Done()
		return ctx.Err()
	case "discard":
		return errors.New("conformance discard")
	case "error":
		return errors.New("conformance retryable error")
	case "ignored_cancel":
		select {}
	case "output":
		return river.RecordOutput(ctx, map[string]string{"message": job.Args.Message})
	case "panic":
		panic("conformance worker panic")
	case "resumable", "resumable_duplicate":
		w.resume(ctx, job)
		return nil
	case "resumable_cursor":
		resumeCursor(ctx, job)
		return nil
	case "sleep":
		select {
		case <-time.After(milliseconds(job.Args.DurationMS)):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case "snooze_once", "snooze_then_cancel":
		var metadata map[string]json.RawMessage
		if err := json.Unmarshal(job.Metadata, &metadata); err != nil {
			return err
		}
		if _, snoozed := metadata["snoozes"]; !snoozed {
			return river.JobSnooze(milliseconds(max(job.Args.DurationMS, 1)))
		}
		if job.Args.Behavior == "snooze_then_cancel" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	case "transactional_complete":
		return w.completeInTransaction(ctx, job)
	}
	return fmt.Errorf("unknown behavior %q", job.Args.Behavior)
}

func (w *echoWorker) resume(ctx context.Context, job *river.Job[echoArgs]) {
	river.ResumableStep(ctx, "first", nil, func(context.Context) error {
		w.seen.add(&w.seen.ResumableFirstRuns)
		return nil
	})
	second := "second"
	if job.Args.Behavior == "resumable_duplicate" {
		second = "first"
	}
	river.ResumableStep(ctx, second, nil, func(context.Context) error {
		w.seen.add(&w.seen.ResumableSecondRuns)
		if job.Attempt == 1 {
			return errors.New("second step fails once")
		}
		return nil
	})
}

func resumeCursor(ctx context.Context, job *river.Job[echoArgs]) {
	river.ResumableStep(ctx, "first", nil, func(ctx context.Context) error {
		return river.MetadataSet(ctx, "first_attempt", job.Attempt)
	})
	river.ResumableStepCursor(ctx, "second", nil, func(ctx context.Context, cursor int) error {
		if job.Attempt == 1 {
			if err := river.ResumableSetCursor(ctx, 7); err != nil {
				return err
			}
			return errors.New("second step fails once")
		}
		if cursor != 7 {
			return fmt.Errorf("cursor is %d, not 7", cursor)
		}
		return river.MetadataSet(ctx, "cursor_observed", cursor)
	})
	river.ResumableStep(ctx, "third", nil, func(context.Context) error {
		if job.Attempt == 2 {
			return errors.New("third step fails once")
		}
		return nil
	})
}

func (w *echoWorker) completeInTransaction(ctx context.Context, job *river.Job[echoArgs]) error {
	tx, err := w.peer.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := river.MetadataSet(ctx, "transactional_completion", true); err != nil {
		return err
	}
	if _, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
