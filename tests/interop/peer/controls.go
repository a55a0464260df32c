package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/robfig/cron/v3"
)

// clock is the time that clock_set gave, for the calls that take one.
type clock struct{ now *time.Time }

func (c *clock) Now() time.Time {
	if c.now != nil {
		return *c.now
	}
	return time.Now()
}

func (c *clock) NowOrNil() *time.Time { return c.now }

type clockParams struct {
	Now time.Time `json:"now"`
}

type seedParams struct {
	Seed uint64 `json:"seed"`
}

type retryDelayParams struct {
	ErrorCount int   `json:"error_count"`
	JobID      int64 `json:"job_id"`
}

type retryDelayResult struct {
	DelayNS int64 `json:"delay_ns"`
}

type cronParams struct {
	Count      int       `json:"count"`
	Expression string    `json:"expression"`
	From       time.Time `json:"from"`
}

type cronResult struct {
	Next []time.Time `json:"next"`
}

func (p *peer) addControls() {
	add(p, "interop_attempt_errors", attemptErrors)
	add(p, "clock_set", func(_ context.Context, params *clockParams) (any, error) {
		p.clock.now = &params.Now
		return nil, nil
	})
	// River's own policy rolls dice that cannot be seeded.
	add(p, "rng_seed", func(context.Context, *seedParams) (any, error) { return nil, nil })
	add(p, "retry_delay", func(_ context.Context, params *retryDelayParams) (any, error) {
		row := &rivertype.JobRow{ID: params.JobID, Errors: make([]rivertype.AttemptError, params.ErrorCount-1)}
		before := time.Now().UTC()
		next := (&river.DefaultClientRetryPolicy{}).NextRetry(row)
		return &retryDelayResult{DelayNS: int64(next.Sub(before))}, nil
	})
	add(p, "cron_next", func(_ context.Context, params *cronParams) (any, error) {
		schedule, err := cron.ParseStandard(params.Expression)
		if err != nil {
			return nil, failure(codeRejected, "%w", err)
		}
		result := &cronResult{Next: []time.Time{}}
		moment := params.From
		for range params.Count {
			moment = schedule.Next(moment)
			if moment.IsZero() {
				break
			}
			result.Next = append(result.Next, moment)
		}
		return result, nil
	})
}

type attemptErrorsParams struct {
	UnixMicro []int64 `json:"unix_micro"`
}

// attemptErrors encodes one attempt error for each time, as River does.
func attemptErrors(_ context.Context, params *attemptErrorsParams) (any, error) {
	texts := make([]string, len(params.UnixMicro))
	for i, micro := range params.UnixMicro {
		text, err := json.Marshal(rivertype.AttemptError{
			At: time.UnixMicro(micro).UTC(), Attempt: i, Error: "failed", Trace: "main.go:1",
		})
		if err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	return map[string]any{"errors": texts}, nil
}
