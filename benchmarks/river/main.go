// River at work beside riverrun: drains the same rows, or picks up jobs one by one.
//
// Its arguments are one JSON object in the environment variable RIVER_BENCH, as the database's URL
// may have a password. `drain` says "ready", works when a line comes and, when its input ends, stops
// and says how many jobs it has worked. `pickup` inserts a job at a time and ends with the
// milliseconds from each commit to the worker's first line, as JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// Settings are what the benchmark asks for; durations of 0 are River's defaults.
type Settings struct {
	URL        string  `json:"url"`
	Schema     string  `json:"schema"`
	Workers    int     `json:"workers"`
	CooldownMS int     `json:"cooldown_ms"`
	PollMS     int     `json:"poll_ms"`
	Count      int     `json:"count"`
	PauseS     float64 `json:"pause_s"`
	IdleS      float64 `json:"idle_s"`
	Writes     bool    `json:"writes"` // whether each job inserts a row as it is completed
}

type noOpArgs struct {
	Number int `json:"number"`
}

func (noOpArgs) Kind() string { return "riverrun_bench_no_op" }

type noOp struct {
	river.WorkerDefaults[noOpArgs]
	worked atomic.Int64
}

func (w *noOp) Work(context.Context, *river.Job[noOpArgs]) error {
	w.worked.Add(1)
	return nil
}

// writer inserts a row in the transaction that completes its job.
type writer struct {
	river.WorkerDefaults[noOpArgs]
	worked *atomic.Int64
	pool   *pgxpool.Pool
	insert string
}

func (w *writer) Work(ctx context.Context, job *river.Job[noOpArgs]) error {
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, w.insert, job.ID); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if err == nil {
		w.worked.Add(1)
	}
	return err
}

type napArgs struct {
	MS int `json:"ms"`
}

func (napArgs) Kind() string { return "riverrun_bench_nap" }

type nap struct {
	river.WorkerDefaults[napArgs]
	worked *atomic.Int64
}

func (w *nap) Work(_ context.Context, job *river.Job[napArgs]) error {
	time.Sleep(time.Duration(job.Args.MS) * time.Millisecond)
	w.worked.Add(1)
	return nil
}

type pickUpArgs struct {
	Number int `json:"number"`
}

func (pickUpArgs) Kind() string { return "riverrun_bench_pick_up" }

type pickUp struct {
	river.WorkerDefaults[pickUpArgs]
	begun chan time.Time
}

func (w *pickUp) Work(context.Context, *river.Job[pickUpArgs]) error {
	w.begun <- time.Now()
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) != 2 {
		return errors.New("usage: river drain|pickup, with RIVER_BENCH in the environment")
	}
	var settings Settings
	if err := json.Unmarshal([]byte(os.Getenv("RIVER_BENCH")), &settings); err != nil {
		return fmt.Errorf("RIVER_BENCH: %w", err)
	}
	switch os.Args[1] {
	case "drain":
		return drain(ctx, settings)
	case "pickup":
		return pickup(ctx, settings)
	}
	return fmt.Errorf("unknown command %q; known: drain, pickup", os.Args[1])
}

func drain(ctx context.Context, settings Settings) error {
	worker := &noOp{}
	workers := river.NewWorkers()
	writer := &writer{worked: &worker.worked}
	if settings.Writes {
		table := pgx.Identifier{settings.Schema, "effect"}.Sanitize()
		writer.insert = "INSERT INTO " + table + " (job_id) VALUES ($1)"
		river.AddWorker(workers, writer)
	} else {
		river.AddWorker(workers, worker)
	}
	river.AddWorker(workers, &nap{worked: &worker.worked})
	pool, client, err := working(ctx, settings, workers)
	if err != nil {
		return err
	}
	defer pool.Close()
	writer.pool = pool
	fmt.Println("ready")
	input := bufio.NewReader(os.Stdin)
	if _, err := input.ReadString('\n'); err != nil {
		return nil
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, input); err != nil {
		return err
	}
	if err := client.Stop(ctx); err != nil {
		return err
	}
	fmt.Println(worker.worked.Load())
	return nil
}

func pickup(ctx context.Context, settings Settings) error {
	worker := &pickUp{begun: make(chan time.Time, 1)}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	pool, client, err := working(ctx, settings, workers)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := client.Start(ctx); err != nil {
		return err
	}
	defer client.Stop(ctx)
	// It inserts through a client and a pool of its own, so that the job is heard of from the
	// database, as if it came from another process.
	elsewhere, err := pgxpool.New(ctx, settings.URL)
	if err != nil {
		return err
	}
	defer elsewhere.Close()
	inserter, err := river.NewClient(riverpgxv5.New(elsewhere), &river.Config{
		Logger: quiet(), Schema: settings.Schema,
	})
	if err != nil {
		return err
	}
	time.Sleep(seconds(settings.IdleS)) // Until it is idle.
	taken := make([]float64, 0, settings.Count)
	for number := range settings.Count {
		time.Sleep(seconds(settings.PauseS))
		var committed time.Time
		err := pgx.BeginFunc(ctx, elsewhere, func(tx pgx.Tx) error {
			_, err := inserter.InsertTx(ctx, tx, pickUpArgs{number}, nil)
			return err
		})
		committed = time.Now()
		if err != nil {
			return err
		}
		select {
		case at := <-worker.begun:
			taken = append(taken, max(0, float64(at.Sub(committed))/1e6))
		case <-time.After(30 * time.Second):
			return fmt.Errorf("job %d was not picked up within 30 s", number)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(taken)
}

func working(
	ctx context.Context, settings Settings, workers *river.Workers,
) (*pgxpool.Pool, *river.Client[pgx.Tx], error) {
	config, err := pgxpool.ParseConfig(settings.URL)
	if err != nil {
		return nil, nil, err
	}
	if settings.Writes {
		config.MaxConns += int32(settings.Workers) // Or workers would wait for each other.
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown:     time.Duration(settings.CooldownMS) * time.Millisecond,
		FetchPollInterval: time.Duration(settings.PollMS) * time.Millisecond,
		Logger:            quiet(),
		Queues:            map[string]river.QueueConfig{"default": {MaxWorkers: settings.Workers}},
		Schema:            settings.Schema,
		Workers:           workers,
	})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, nil, err
	}
	return pool, client, nil
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
