package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

type handleParams struct {
	Handle string `json:"handle"`
}

func (h *handleParams) handle() string { return h.Handle }

type handled interface{ handle() string }

type txIDParams struct {
	handleParams

	ID int64 `json:"id"`
}

type txUpdateParams struct {
	handleParams
	updateParams
}

type txInsertParams struct {
	handleParams

	Job jobParams `json:"job"`
}

type txInsertManyParams struct {
	handleParams
	insertManyParams
}

type txListParams struct {
	handleParams
	listParams
}

type txFilterParams struct {
	handleParams
	filterParams
}

type txQueueParams struct {
	handleParams
	queueParams
}

type txQueueListParams struct {
	handleParams
	queueListParams
}

type txQueueUpdateParams struct {
	handleParams
	queueUpdateParams
}

// addTx registers a method that works in the transaction that its params name.
func addTx[P any, PP interface {
	*P
	handled
}](p *peer, name string, do func(context.Context, *riverClient, pgx.Tx, *P) (any, error)) {
	add(p, name, func(ctx context.Context, params *P) (any, error) {
		tx, err := p.tx(PP(params).handle())
		if err != nil {
			return nil, err
		}
		client, err := p.client("")
		if err != nil {
			return nil, err
		}
		return do(ctx, client, tx, params)
	})
}

func (p *peer) tx(handle string) (pgx.Tx, error) {
	tx, open := p.txs[handle]
	if !open {
		return nil, failure(codeNotFound, "no transaction %q is open", handle)
	}
	return tx, nil
}

func (p *peer) addTransactions() {
	add(p, "tx_begin", func(ctx context.Context, params *handleParams) (any, error) {
		if _, open := p.txs[params.Handle]; open {
			return nil, failure(codeRejected, "transaction %q is open already", params.Handle)
		}
		tx, err := p.pool.Begin(ctx)
		if err != nil {
			return nil, err
		}
		p.txs[params.Handle] = tx
		return nil, nil
	})
	p.addTxEnd("tx_commit", pgx.Tx.Commit)
	p.addTxEnd("tx_rollback", pgx.Tx.Rollback)
	addTx(p, "tx_fail", func(ctx context.Context, _ *riverClient, tx pgx.Tx, _ *handleParams) (any, error) {
		if _, err := tx.Exec(ctx, "SELECT 1 / 0"); err == nil {
			return nil, failure(codeInternal, "the statement that must fail did not")
		}
		return nil, nil
	})
	addTx(p, "tx_insert", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txInsertParams) (any, error) {
		result, err := client.InsertTx(ctx, tx, params.Job.echoArgs, params.Job.Opts.opts())
		if err != nil {
			return nil, err
		}
		return normalize(result.Job), nil
	})
	addTx(p, "tx_insert_many", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txInsertManyParams) (any, error) {
		results, err := client.InsertManyTx(ctx, tx, params.params())
		if err != nil {
			return nil, err
		}
		return inserted(results), nil
	})
	addTx(p, "tx_update", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txUpdateParams) (any, error) {
		return one(client.JobUpdateTx(ctx, tx, params.ID, params.params()))
	})
	addTx(p, "tx_list", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txListParams) (any, error) {
		wanted, err := params.params()
		if err != nil {
			return nil, err
		}
		result, err := client.JobListTx(ctx, tx, wanted)
		if err != nil {
			return nil, err
		}
		return listed(result)
	})
	addTx(p, "tx_delete_many", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txFilterParams) (any, error) {
		result, err := client.JobDeleteManyTx(ctx, tx, params.params())
		if err != nil {
			return nil, err
		}
		return &jobsResult{Jobs: normalizeAll(result.Jobs)}, nil
	})
	addTx(p, "tx_queue_get", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txQueueParams) (any, error) {
		return oneQueue(client.QueueGetTx(ctx, tx, params.Name))
	})
	addTx(p, "tx_queue_list", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txQueueListParams) (any, error) {
		return queues(client.QueueListTx(ctx, tx, params.params()))
	})
	addTx(p, "tx_queue_pause", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txQueueParams) (any, error) {
		return nil, client.QueuePauseTx(ctx, tx, params.Name, nil)
	})
	addTx(p, "tx_queue_resume", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txQueueParams) (any, error) {
		return nil, client.QueueResumeTx(ctx, tx, params.Name, nil)
	})
	addTx(p, "tx_queue_update", func(ctx context.Context, client *riverClient, tx pgx.Tx, params *txQueueUpdateParams) (any, error) {
		return oneQueue(client.QueueUpdateTx(ctx, tx, params.Name, &river.QueueUpdateParams{Metadata: params.Metadata}))
	})
}

func (p *peer) addTxEnd(name string, end func(pgx.Tx, context.Context) error) {
	add(p, name, func(ctx context.Context, params *handleParams) (any, error) {
		tx, err := p.tx(params.Handle)
		if err != nil {
			return nil, err
		}
		delete(p.txs, params.Handle)
		return nil, end(tx, ctx)
	})
}
