package api

import (
	"context"
	"encoding/json"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

// Reloaded is what a reload has changed: names of types, in order, and keys.
type Reloaded struct {
	Added   []string `json:"added"`
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	// TakenUp are keys outside of the types that have changed and hold from now on.
	TakenUp []string `json:"taken_up"`
	// NeedsRestart are keys of the configuration that have changed and were not taken up.
	NeedsRestart []string `json:"needs_restart"`
}

// AppendJSON appends the answer to a reload.
func (r *Reloaded) AppendJSON(b []byte) []byte {
	out, err := json.Marshal(Reloaded{some(r.Added), some(r.Changed), some(r.Removed), some(r.TakenUp), some(r.NeedsRestart)})
	if err != nil {
		panic(err) // lists of strings always marshal
	}
	return append(b, out...)
}

// some is a list that is not null as JSON.
func some(list []string) []string { return append([]string{}, list...) }

var reloadDoc = form.Doc{
	Summary: "Read the configuration again",
	Text:    "Types are added, changed and removed while jobs run. The level of the log is taken up, too.",
	Answer:  Reloaded{},
	Codes:   []jobs.ErrorKind{jobs.Conflict},
}

func reload(ctx context.Context, c Call, _ nothing) (Answer, error) {
	r, err := c.Reloader.Reload(ctx)
	return Answer{JSON: r}, err
}
