package api

import (
	"encoding/json"
	"strconv"

	"jobstream/jobs"
	"jobstream/jobs/figures"
)

// TypeInfo is a job type for its users: its settings and its state.
type TypeInfo struct {
	*jobs.Type
	// Configured is the type as the configuration has it: its limits may have been changed
	// since. nil = it is the Type.
	Configured    *jobs.Type
	MaxWorkers    int // the present bound, which may differ from the Type's
	ActiveWorkers int
	Paused        bool
	PausedBy      string              // the actor; "" if unknown
	PausedAt      jobs.Time           // 0 if unknown
	Depth         [jobs.NumStatus]int // unfinished jobs by status
	Backlog       Backlog
	Priorities    [jobs.LowestPriority + 1]figures.Depth // pending jobs by priority
}

// AppendJSON appends the answer of GET /types/{type}. Times are in seconds. A
// max_workers of 0 stands for the pool's bound. rate, burst and schema appear if there is
// one, and inputs if there are some.
func (t *TypeInfo) AppendJSON(b []byte) []byte {
	var schema json.RawMessage
	if t.Schema != nil {
		schema = t.Schema.JSON()
	}
	return t.appendJSON(b, schema)
}

func (t *TypeInfo) appendJSON(b []byte, schema json.RawMessage) []byte {
	r := typeResource{
		Name: t.Name, Run: t.Run, Runs: t.Runs, Description: t.Description, Schema: schema, Paused: t.Paused, ActiveWorkers: t.ActiveWorkers, MaxWorkers: t.MaxWorkers,
		Depth: typeDepth{
			Scheduled: t.Depth[jobs.Scheduled], Pending: t.Depth[jobs.Pending],
			Processing: t.Depth[jobs.Processing], Retrying: t.Depth[jobs.Retrying],
		},
		Backlog:    t.Backlog,
		RetryCount: t.RetryCount, Timeout: t.Timeout.Seconds(), ConcurrencyPerKey: max(t.ConcurrencyPerKey, 1),
		Rate: t.Rate.String(), Burst: t.Rate.Capacity(),
		Backoff: typeBackoff{
			Kind: t.Backoff.Kind, Base: t.Backoff.Base.Seconds(), Max: t.Backoff.Max.Seconds(), Jitter: t.Backoff.Jitter,
		},
	}
	now := jobs.Now()
	r.Priorities = make(map[string]typePriority)
	for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
		d := t.Priorities[p]
		r.Priorities[strconv.Itoa(int(p))] = typePriority{d.Jobs, figures.SecondsSince(d.Oldest, now)}
	}
	r.PausedBy, r.PausedAt = t.PausedBy, t.PausedAt.String()
	r.Sources = t.sources()
	for _, d := range t.Backoff.Delays {
		r.Backoff.Delays = append(r.Backoff.Delays, d.Seconds())
	}
	for _, in := range t.Inputs {
		if r.Inputs == nil {
			r.Inputs = make(map[string]typeInput)
		}
		r.Inputs[in.Name] = typeInput{in.Types, in.Max}
	}
	out, err := json.Marshal(&r)
	if err != nil {
		panic(err) // numbers, strings and valid JSON always marshal
	}
	return append(b, out...)
}

// sources says of each limit that can be changed live whether it is the configuration's.
func (t *TypeInfo) sources() limitSources {
	of := t.Configured
	if of == nil {
		of = t.Type
	}
	source := func(same bool) string {
		if same {
			return "config"
		}
		return "live"
	}
	was, is := of.Rate, t.Rate
	s := limitSources{MaxWorkers: source(t.MaxWorkers == of.MaxWorkers), Burst: source(was.Burst == is.Burst)}
	was.Burst, is.Burst = 0, 0
	s.Rate = source(was == is)
	s.ConcurrencyPerKey = source(max(of.ConcurrencyPerKey, 1) == max(t.ConcurrencyPerKey, 1))
	return s
}

// limitSources are the sources of a type's limits: config or live.
type limitSources struct {
	MaxWorkers        string `json:"max_workers"`
	Rate              string `json:"rate"`
	Burst             string `json:"burst"`
	ConcurrencyPerKey string `json:"concurrency_per_key"`
}

type typeResource struct {
	Name          string    `json:"name"`
	Run           string    `json:"run,omitempty"`
	Runs          string    `json:"runs,omitempty"`
	Description   string    `json:"description,omitempty"`
	Paused        bool      `json:"paused"`
	PausedBy      string    `json:"paused_by,omitempty"`
	PausedAt      string    `json:"paused_at,omitempty"`
	ActiveWorkers int       `json:"active_workers"`
	MaxWorkers    int       `json:"max_workers"`
	Depth         typeDepth `json:"depth"`
	Backlog
	Priorities        map[string]typePriority `json:"priorities"` // by "1" to "5"
	RetryCount        int                     `json:"retry_count"`
	Timeout           float64                 `json:"timeout"`
	Rate              string                  `json:"rate,omitempty"`
	Burst             int                     `json:"burst,omitempty"`
	ConcurrencyPerKey int                     `json:"concurrency_per_key"`
	Backoff           typeBackoff             `json:"backoff"`
	// Sources of the limits that PUT /workers changes.
	Sources limitSources `json:"sources"`

	Schema json.RawMessage `json:"schema,omitempty"`

	Inputs map[string]typeInput `json:"inputs,omitempty"`
}

// typeInput is an input that jobs of a type need.
type typeInput struct {
	Types []string `json:"types,omitempty"`
	Max   int64    `json:"max,omitempty"` // bytes
}

type typeDepth struct {
	Scheduled  int `json:"scheduled"`
	Pending    int `json:"pending"`
	Processing int `json:"processing"`
	Retrying   int `json:"retrying"`
}

// typePriority are the pending jobs of a priority.
type typePriority struct {
	Waiting       int     `json:"waiting"`
	OldestSeconds float64 `json:"oldest_seconds"`
}

type typeBackoff struct {
	Kind   jobs.BackoffKind `json:"kind"`
	Base   float64          `json:"base"`
	Max    float64          `json:"max"`
	Jitter float64          `json:"jitter"`
	Delays []float64        `json:"delays,omitempty"`
}

// AppendTypesJSON appends the answer of GET /types: {"types":[…]}, without schemas, which
// can be large.
func AppendTypesJSON(b []byte, all []TypeInfo) []byte {
	b = append(b, `{"types":[`...)
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = all[i].appendJSON(b, nil)
	}
	return append(b, ']', '}')
}
