package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// textArgs are encoded as the text that they were given as, compacted.
type textArgs struct {
	kind string
	text json.RawMessage
}

func (a textArgs) Kind() string                 { return a.kind }
func (a textArgs) MarshalJSON() ([]byte, error) { return a.text, nil }

// selectedArgs have marked fields, some of them nested, one with a slash in its name.
type selectedArgs struct {
	Account *struct {
		ID      *string `json:"id,omitempty" river:"unique"`
		Ignored *string `json:"ignored,omitempty"`
		Region  *string `json:"region,omitempty" river:"unique"`
	} `json:"account,omitempty"`
	Ignored *bool           `json:"ignored,omitempty"`
	Label   json.RawMessage `json:"label,omitempty" river:"unique"`
	PathKey *string         `json:"path/key,omitempty" river:"unique"`
}

func (selectedArgs) Kind() string { return "conformance_selected_args" }

// dottedArgs have marked fields whose names look like paths; the golden ones are the last nine.
type dottedArgs struct {
	Account *struct {
		ID     json.RawMessage `json:"id,omitempty" river:"unique"`
		Region json.RawMessage `json:"region.name,omitempty" river:"unique"`
	} `json:"account,omitempty"`
	AccountID json.RawMessage `json:"account.id,omitempty" river:"unique"`
	At        json.RawMessage `json:"@at,omitempty" river:"unique"`
	Ignored   json.RawMessage `json:"ignored,omitempty"`

	AtUser  json.RawMessage `json:"@user,omitempty" river:"unique"`
	Bang    json.RawMessage `json:"!x,omitempty" river:"unique"`
	Brace   json.RawMessage `json:"{x},omitempty" river:"unique"`
	Bracket json.RawMessage `json:"[x],omitempty" river:"unique"`
	Colon   json.RawMessage `json:":id,omitempty" river:"unique"`
	User    *struct {
		ID json.RawMessage `json:"id,omitempty" river:"unique"`
	} `json:"user,omitempty"`
	UserID  json.RawMessage `json:"user.id,omitempty" river:"unique"`
	Symbols json.RawMessage `json:"a*b?c#d|e,omitempty" river:"unique"`
	Accent  json.RawMessage `json:"é,omitempty" river:"unique"`
}

func (dottedArgs) Kind() string { return "conformance_dotted_selected_args" }

// typedArgs have one field of each sort that Go encodes in its own way.
type typedArgs struct {
	Zeta   string  `json:"zeta"`
	Alpha  int64   `json:"alpha"`
	Huge   uint64  `json:"huge"`
	Ratio  float64 `json:"ratio"`
	Flag   bool    `json:"flag"`
	Maybe  *string `json:"maybe"`
	Values values  `json:"values"`
	Labels labels  `json:"labels"`
	Nested nested  `json:"nested"`
}

type nested struct {
	Zulu  string `json:"zulu"`
	Able  labels `json:"able"`
	Maybe *int64 `json:"maybe"`
}

func (typedArgs) Kind() string { return "interop_typed" }

// subsetArgs have marked and unmarked fields, nested ones too.
type subsetArgs struct {
	Zeta    string  `json:"zeta" river:"unique"`
	Trace   string  `json:"trace"`
	Alpha   int64   `json:"alpha" river:"unique"`
	Ratio   float64 `json:"ratio"`
	Account struct {
		Region string `json:"region" river:"unique"`
		Note   string `json:"note"`
		ID     int64  `json:"id" river:"unique"`
	} `json:"account"`
	Labels labels `json:"labels" river:"unique"`
}

func (subsetArgs) Kind() string { return "interop_subset" }

// labels and values hold numbers as Go programs do: whole ones as integers, others as floats.
type labels map[string]any

func (l *labels) UnmarshalJSON(text []byte) error {
	value, err := decodeAny(text)
	if err != nil || value == nil {
		return err
	}
	*l = value.(map[string]any)
	return nil
}

type values []any

func (v *values) UnmarshalJSON(text []byte) error {
	value, err := decodeAny(text)
	if err != nil || value == nil {
		return err
	}
	*v = value.([]any)
	return nil
}

func decodeAny(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return withNumbers(value)
}

func withNumbers(value any) (any, error) {
	var err error
	switch value := value.(type) {
	case json.Number:
		if strings.ContainsAny(value.String(), ".eE") {
			return value.Float64()
		}
		return value, nil
	case []any:
		for i, item := range value {
			if value[i], err = withNumbers(item); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key, item := range value {
			if value[key], err = withNumbers(item); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// argsOf decodes args into the type that the kind has here; an unknown kind keeps its text.
func argsOf(kind string, text json.RawMessage) (river.JobArgs, error) {
	var err error
	switch kind {
	case "conformance_selected_args":
		var args selectedArgs
		err = json.Unmarshal(text, &args)
		return args, err
	case "conformance_dotted_selected_args":
		var args dottedArgs
		err = json.Unmarshal(text, &args)
		return args, err
	case "interop_typed":
		var args typedArgs
		err = json.Unmarshal(text, &args)
		return args, err
	case "interop_subset":
		var args subsetArgs
		err = json.Unmarshal(text, &args)
		return args, err
	}
	return textArgs{kind: kind, text: text}, nil
}

type uniqueOptions struct {
	ByArgs        bool     `json:"by_args"`
	ByPeriodNanos int64    `json:"by_period_nanos"`
	ByQueue       bool     `json:"by_queue"`
	ByState       []string `json:"by_state"`
	ExcludeKind   bool     `json:"exclude_kind"`
}

type uniqueKeyParams struct {
	Args        json.RawMessage `json:"args"`
	Kind        string          `json:"kind"`
	Now         time.Time       `json:"now"`
	Options     uniqueOptions   `json:"options"`
	Queue       string          `json:"queue"`
	ScheduledAt *time.Time      `json:"scheduled_at"`

	// Of the fixtures; nothing for an adapter.
	ExpectedError            json.RawMessage `json:"expected_error"`
	ExpectedSHA256           json.RawMessage `json:"expected_sha256"`
	ExpectedStateMask        json.RawMessage `json:"expected_state_mask"`
	Name                     json.RawMessage `json:"name"`
	SelectedUniqueComponents json.RawMessage `json:"selected_unique_components"`
	SelectedUniquePaths      json.RawMessage `json:"selected_unique_paths"`
}

type uniqueKeyResult struct {
	SHA256    string `json:"sha256"`
	StateMask int    `json:"state_mask"`
}

type uniqueKeysParams struct {
	Cases []uniqueKeyParams `json:"cases"`
}

type uniqueKeysResult struct {
	Keys []*uniqueKeyResult `json:"keys"`
}

type anyJobParams struct {
	Args json.RawMessage `json:"args"`
	Kind string          `json:"kind"`
	Opts optsParams      `json:"opts"`
}

type anyJobsParams struct {
	Jobs []anyJobParams `json:"jobs"`
}

func (p *peer) addUnique() {
	add(p, "unique_key", func(ctx context.Context, params *uniqueKeyParams) (any, error) {
		return p.uniqueKey(ctx, params)
	})
	add(p, "interop_unique_keys", func(ctx context.Context, params *uniqueKeysParams) (any, error) {
		result := &uniqueKeysResult{}
		for i := range params.Cases {
			key, err := p.uniqueKey(ctx, &params.Cases[i])
			if err != nil {
				return nil, fmt.Errorf("case %d: %w", i, err)
			}
			result.Keys = append(result.Keys, key)
		}
		return result, nil
	})
	addClient(p, "interop_insert_many", func(ctx context.Context, client *riverClient, params *anyJobsParams) (any, error) {
		many := make([]river.InsertManyParams, len(params.Jobs))
		for i, job := range params.Jobs {
			args, err := argsOf(job.Kind, job.Args)
			if err != nil {
				return nil, failure(codeInvalidParams, "args: %w", err)
			}
			many[i] = river.InsertManyParams{Args: args, InsertOpts: job.Opts.opts()}
		}
		results, err := client.InsertMany(ctx, many)
		if err != nil {
			return nil, err
		}
		return inserted(results), nil
	})
}

// uniqueKey asks a client for the insert and reads the key off it, just before it is written.
func (p *peer) uniqueKey(ctx context.Context, params *uniqueKeyParams) (*uniqueKeyResult, error) {
	args, err := argsOf(params.Kind, params.Args)
	if err != nil {
		return nil, failure(codeInvalidParams, "args: %w", err)
	}
	var seen *rivertype.JobInsertParams
	look := river.JobInsertMiddlewareFunc(func(
		_ context.Context, many []*rivertype.JobInsertParams,
		_ func(context.Context) ([]*rivertype.JobInsertResult, error),
	) ([]*rivertype.JobInsertResult, error) {
		seen = many[0]
		return []*rivertype.JobInsertResult{{Job: &rivertype.JobRow{}}}, nil
	})
	client, err := river.NewClient(p.driver(), &river.Config{
		Logger:                p.logger,
		Middleware:            []rivertype.Middleware{look},
		SkipJobKindValidation: true,
		Test:                  river.TestConfig{Time: &clock{now: &params.Now}},
	})
	if err != nil {
		return nil, err
	}
	opts := &river.InsertOpts{
		Queue: params.Queue,
		UniqueOpts: river.UniqueOpts{
			ByArgs:      params.Options.ByArgs,
			ByPeriod:    time.Duration(params.Options.ByPeriodNanos),
			ByQueue:     params.Options.ByQueue,
			ByState:     states(params.Options.ByState),
			ExcludeKind: params.Options.ExcludeKind,
		},
	}
	if params.ScheduledAt != nil {
		opts.ScheduledAt = *params.ScheduledAt
	}
	if _, err := client.Insert(ctx, args, opts); err != nil {
		return nil, err
	}
	return &uniqueKeyResult{SHA256: hex.EncodeToString(seen.UniqueKey), StateMask: int(seen.UniqueStates)}, nil
}
