package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

type queueParams struct {
	Name string `json:"name"`
}

type queueListParams struct {
	Limit int `json:"limit"`
}

func (q *queueListParams) params() *river.QueueListParams {
	params := river.NewQueueListParams()
	if q.Limit != 0 {
		params = params.First(q.Limit)
	}
	return params
}

type queueUpdateParams struct {
	Metadata json.RawMessage `json:"metadata"`
	Name     string          `json:"name"`
}

type queueAddParams struct {
	MaxWorkers int    `json:"max_workers"`
	Name       string `json:"name"`
}

// queue is a row of river_queue as the protocol shows it.
type queue struct {
	CreatedAt time.Time       `json:"created_at"`
	Metadata  json.RawMessage `json:"metadata"`
	Name      string          `json:"name"`
	PausedAt  *time.Time      `json:"paused_at"`
	UpdatedAt time.Time       `json:"updated_at"`
}

type queuesResult struct {
	Queues []*queue `json:"queues"`
}

func oneQueue(row *rivertype.Queue, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return &queue{
		CreatedAt: row.CreatedAt.UTC(),
		Metadata:  row.Metadata,
		Name:      row.Name,
		PausedAt:  utc(row.PausedAt),
		UpdatedAt: row.UpdatedAt.UTC(),
	}, nil
}

func queues(result *river.QueueListResult, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	shown := &queuesResult{Queues: make([]*queue, len(result.Queues))}
	for i, row := range result.Queues {
		one, _ := oneQueue(row, nil)
		shown.Queues[i] = one.(*queue)
	}
	return shown, nil
}

func (p *peer) addQueues() {
	addClient(p, "queue_get", func(ctx context.Context, client *riverClient, params *queueParams) (any, error) {
		return oneQueue(client.QueueGet(ctx, params.Name))
	})
	addClient(p, "queue_list", func(ctx context.Context, client *riverClient, params *queueListParams) (any, error) {
		return queues(client.QueueList(ctx, params.params()))
	})
	addClient(p, "queue_pause", func(ctx context.Context, client *riverClient, params *queueParams) (any, error) {
		return nil, client.QueuePause(ctx, params.Name, nil)
	})
	addClient(p, "queue_resume", func(ctx context.Context, client *riverClient, params *queueParams) (any, error) {
		return nil, client.QueueResume(ctx, params.Name, nil)
	})
	addClient(p, "queue_update", func(ctx context.Context, client *riverClient, params *queueUpdateParams) (any, error) {
		return oneQueue(client.QueueUpdate(ctx, params.Name, &river.QueueUpdateParams{Metadata: params.Metadata}))
	})
	add(p, "queue_add", p.queueAdd)
	add(p, "queue_remove", func(ctx context.Context, params *queueParams) (any, error) {
		if p.running == nil {
			return nil, failure(codeRejected, "no client is running")
		}
		return nil, p.running.client.Queues().Remove(ctx, params.Name)
	})
}

// addClient registers a method that needs no transaction and no schema but the default.
func addClient[P any](p *peer, name string, do func(context.Context, *riverClient, *P) (any, error)) {
	add(p, name, func(ctx context.Context, params *P) (any, error) {
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		return do(ctx, client, params)
	})
}

func (p *peer) queueAdd(ctx context.Context, params *queueAddParams) (any, error) {
	if p.running == nil {
		return nil, failure(codeRejected, "no client is running")
	}
	config := river.QueueConfig{MaxWorkers: max(params.MaxWorkers, 1)}
	bundle := p.running.client.Queues()
	err := bundle.Add(params.Name, config)
	var known *river.QueueAlreadyAddedError
	if errors.As(err, &known) {
		if err := bundle.Remove(ctx, params.Name); err != nil {
			return nil, err
		}
		err = bundle.Add(params.Name, config)
	}
	return nil, err
}
