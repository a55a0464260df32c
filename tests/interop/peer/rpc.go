package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

const (
	codeParse          = -32700
	codeInvalidRequest = -32600
	codeNoMethod       = -32601
	codeInvalidParams  = -32602
	codeInternal       = -32000
	codeNotFound       = -32001
	codeRejected       = -32002
	codeDatabase       = -32003
	codeUnsupported    = -32004

	adapterVersion   = 18
	protocolRevision = 1
	riverVersion     = "0.51.2"
)

var capabilities = []string{
	"barriers", "cancel", "custom_schema", "deterministic_controls", "extensions",
	"fault_injection", "get", "insert", "job_crud", "leadership", "lifecycle", "maintenance",
	"migrate", "notifications", "periodic_jobs", "poll_only", "queues", "reset", "resumable_jobs",
	"retry", "scheduler", "subscriptions", "transactions", "unique_jobs", "work",
}

type riverClient = river.Client[pgx.Tx]

// peer is everything that outlives a request. Requests come one after the other.
type peer struct {
	application string
	barriers    *barriers
	clock       *clock
	logger      *slog.Logger
	methods     map[string]method
	pool        *pgxpool.Pool
	running     *running
	txs         map[string]pgx.Tx
}

type method func(ctx context.Context, params json.RawMessage) (any, error)

func newPeer(pool *pgxpool.Pool, application string, logger *slog.Logger) *peer {
	p := &peer{
		application: application,
		barriers:    newBarriers(),
		clock:       &clock{},
		logger:      logger,
		methods:     map[string]method{},
		pool:        pool,
		txs:         map[string]pgx.Tx{},
	}
	add(p, "handshake", p.handshake)
	p.addControls()
	p.addFaults()
	p.addJobs()
	p.addMigrations()
	p.addQueues()
	p.addTransactions()
	p.addUnique()
	p.addWork()
	return p
}

func (p *peer) close() {
	if p.running != nil {
		_ = p.running.stop(true)
	}
	for _, tx := range p.txs {
		_ = tx.Rollback(context.Background())
	}
}

func (p *peer) driver() *riverpgxv5.Driver { return riverpgxv5.New(p.pool) }

// client returns the running client if it works the schema, else one that only inserts and asks.
func (p *peer) client(schema string) (*riverClient, error) {
	if p.running != nil && p.running.client.Schema() == schema {
		return p.running.client, nil
	}
	return river.NewClient(p.driver(), &river.Config{Logger: p.logger, Schema: schema})
}

type none struct{}

type handshake struct {
	AdapterVersion        int            `json:"adapter_version"`
	ApplicationName       string         `json:"application_name"`
	Backend               string         `json:"backend"`
	Capabilities          []string       `json:"capabilities"`
	Implementation        string         `json:"implementation"`
	ImplementationVersion string         `json:"implementation_version"`
	Methods               []string       `json:"methods"`
	MigrationLines        map[string]int `json:"migration_lines"`
	Profile               string         `json:"profile"`
	ProtocolRevision      int            `json:"protocol_revision"`
}

func (p *peer) handshake(context.Context, *none) (any, error) {
	methods := slices.DeleteFunc(slices.Sorted(maps.Keys(p.methods)), func(name string) bool {
		return strings.HasPrefix(name, "interop_")
	})
	migrator, err := p.migrator("")
	if err != nil {
		return nil, err
	}
	versions := migrator.AllVersions()
	return &handshake{
		AdapterVersion:        adapterVersion,
		ApplicationName:       p.application,
		Backend:               "postgres",
		Capabilities:          capabilities,
		Implementation:        "go",
		ImplementationVersion: riverVersion,
		Methods:               methods,
		MigrationLines:        map[string]int{"main": versions[len(versions)-1].Version},
		Profile:               "postgres-full-v1",
		ProtocolRevision:      protocolRevision,
	}, nil
}

// add registers a method whose params are decoded into P, unknown ones refused.
func add[P any](p *peer, name string, handle func(context.Context, *P) (any, error)) {
	p.methods[name] = func(ctx context.Context, raw json.RawMessage) (any, error) {
		params := new(P)
		if len(raw) > 0 {
			decoder := json.NewDecoder(bytes.NewReader(raw))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(params); err != nil {
				return nil, failure(codeInvalidParams, "%s: %w", name, err)
			}
		}
		result, err := handle(ctx, params)
		if result == nil {
			result = none{}
		}
		return result, err
	}
}

type request struct {
	ID      json.RawMessage `json:"id"`
	JSONRPC string          `json:"jsonrpc"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type response struct {
	Error   *rpcError       `json:"error,omitempty"`
	ID      json.RawMessage `json:"id"`
	JSONRPC string          `json:"jsonrpc"`
	Result  any             `json:"result,omitempty"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// coded is an error that knows its code.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

func failure(code int, format string, args ...any) error {
	return &coded{code: code, err: fmt.Errorf(format, args...)}
}

func (p *peer) answer(ctx context.Context, line []byte) (answer *response) {
	answer = &response{ID: json.RawMessage("null"), JSONRPC: "2.0"}
	defer func() {
		if problem := recover(); problem != nil {
			answer.Result = nil
			answer.Error = &rpcError{Code: codeInternal, Message: fmt.Sprint(problem)}
		}
	}()
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		answer.Error = &rpcError{Code: codeParse, Message: err.Error()}
		return answer
	}
	if len(asked.ID) > 0 {
		answer.ID = asked.ID
	}
	if asked.JSONRPC != "2.0" || asked.Method == "" {
		answer.Error = &rpcError{Code: codeInvalidRequest, Message: "not a JSON-RPC 2.0 request"}
		return answer
	}
	handle, known := p.methods[asked.Method]
	if !known {
		answer.Error = &rpcError{Code: codeNoMethod, Message: "no method " + asked.Method}
		return answer
	}
	result, err := handle(ctx, asked.Params)
	if err != nil {
		answer.Error = &rpcError{Code: codeOf(err), Message: err.Error()}
		return answer
	}
	answer.Result = result
	return answer
}

func codeOf(err error) int {
	var known *coded
	var database *pgconn.PgError
	switch {
	case errors.As(err, &known):
		return known.code
	case errors.Is(err, river.ErrNotFound), errors.Is(err, pgx.ErrNoRows):
		return codeNotFound
	case errors.As(err, &database):
		return codeDatabase
	case errors.Is(err, io.ErrUnexpectedEOF):
		return codeDatabase
	}
	return codeRejected
}
