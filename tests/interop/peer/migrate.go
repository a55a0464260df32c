package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivermigrate"
)

type migrateParams struct {
	Direction     string `json:"direction"`
	DryRun        bool   `json:"dry_run"`
	MaxSteps      int    `json:"max_steps"`
	Schema        string `json:"schema"`
	TargetVersion int    `json:"target_version"`
}

type migrateResult struct {
	Applied  []int `json:"applied"`
	Existing []int `json:"existing"`
	Valid    bool  `json:"valid"`
}

type validateParams struct {
	Schema        string `json:"schema"`
	TargetVersion int    `json:"target_version"`
}

type validateResult struct {
	Messages []string `json:"messages"`
	Valid    bool     `json:"valid"`
}

type schemaParams struct {
	Schema string `json:"schema"`
}

func (p *peer) addMigrations() {
	add(p, "migrate", p.migrate)
	add(p, "reset", p.reset)
	add(p, "interop_validate", func(ctx context.Context, params *validateParams) (any, error) {
		migrator, err := p.migrator(params.Schema)
		if err != nil {
			return nil, err
		}
		found, err := migrator.Validate(ctx, &rivermigrate.ValidateOpts{TargetVersion: params.TargetVersion})
		if err != nil {
			return nil, err
		}
		return &validateResult{Messages: append([]string{}, found.Messages...), Valid: found.OK}, nil
	})
}

// migrator is what River's command line is made of.
func (p *peer) migrator(schema string) (*rivermigrate.Migrator[pgx.Tx], error) {
	return rivermigrate.New(p.driver(), &rivermigrate.Config{Logger: p.logger, Schema: schema})
}

func (p *peer) migrate(ctx context.Context, params *migrateParams) (any, error) {
	if p.running != nil || len(p.txs) > 0 {
		return nil, failure(codeRejected, "a client is running or a transaction is open")
	}
	migrator, err := p.migrator(params.Schema)
	if err != nil {
		return nil, err
	}
	if params.Schema != "" {
		create := "CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{params.Schema}.Sanitize()
		if _, err := p.pool.Exec(ctx, create); err != nil {
			return nil, err
		}
	}
	direction := rivermigrate.DirectionUp
	if params.Direction == "down" {
		direction = rivermigrate.DirectionDown
	}
	done, err := migrator.Migrate(ctx, direction, &rivermigrate.MigrateOpts{
		DryRun:        params.DryRun,
		MaxSteps:      params.MaxSteps,
		TargetVersion: params.TargetVersion,
	})
	if err != nil {
		return nil, err
	}
	result := &migrateResult{Applied: []int{}, Existing: []int{}}
	for _, version := range done.Versions {
		result.Applied = append(result.Applied, version.Version)
	}
	existing, err := migrator.ExistingVersions(ctx)
	if err != nil {
		return nil, err
	}
	for _, version := range existing {
		result.Existing = append(result.Existing, version.Version)
	}
	found, err := migrator.Validate(ctx, nil)
	if err != nil {
		return nil, err
	}
	result.Valid = found.OK
	return result, nil
}

func (p *peer) reset(ctx context.Context, params *schemaParams) (any, error) {
	if p.running != nil || len(p.txs) > 0 {
		return nil, failure(codeRejected, "a client is running or a transaction is open")
	}
	p.barriers.clear()
	prefix := ""
	if params.Schema != "" {
		prefix = pgx.Identifier{params.Schema}.Sanitize() + "."
	}
	_, err := p.pool.Exec(ctx, fmt.Sprintf(
		"TRUNCATE %[1]sriver_job, %[1]sriver_leader, %[1]sriver_notification, %[1]sriver_queue RESTART IDENTITY",
		prefix,
	))
	return nil, err
}
