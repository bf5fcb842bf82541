package jobstest

import (
	"context"
	"encoding/json"

	"jobstream/jobs"
)

// Nothing is a handler that does nothing.
var Nothing = jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })

// Picky is a handler whose payload must have a "to".
type Picky struct{ jobs.HandlerFunc }

// Check refuses a payload without a "to".
func (Picky) Check(p *jobs.Payload) error {
	var read struct{ To string }
	if json.Unmarshal(p.JSON, &read) != nil || read.To == "" {
		return jobs.Invalid("/payload/to", "is required")
	}
	return nil
}
