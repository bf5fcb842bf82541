package jobs

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"jobstream/jobs/strict"
)

// Stats is how the pool and the queue stand. The completed, failed and
// cancelled counters are cumulative, everything else is the present moment.
type Stats struct {
	ActiveWorkers int `json:"active_workers"`
	Workers       int `json:"workers"`               // that there may be now
	MinWorkers    int `json:"min_workers,omitempty"` // 0 = their number does not follow the load
	MaxWorkers    int `json:"max_workers"`
	// Utilisation is how busy the workers were in the last ten seconds, 0 to 1.
	Utilisation   float64 `json:"utilisation"`
	QueuedJobs    int     `json:"queued_jobs"`    // pending ones
	ScheduledJobs int     `json:"scheduled_jobs"` // waiting for their time
	CompletedJobs int64   `json:"completed_jobs"`
	FailedJobs    int64   `json:"failed_jobs"`
	CancelledJobs int64   `json:"cancelled_jobs"`
	RetryingJobs  int     `json:"retrying_jobs"` // waiting for their next attempt
	UptimeSeconds int64   `json:"uptime_seconds"`
	QueueSize     int     `json:"queue_size"` // bound of pending, processing and retrying jobs

	Types map[string]TypeStats `json:"types"`
}

// TypeStats is the part of [Stats] that one job type has.
type TypeStats struct {
	ActiveWorkers int   `json:"active_workers"`
	MaxWorkers    int   `json:"max_workers"` // 0 = the pool's bound
	QueuedJobs    int   `json:"queued_jobs"`
	ScheduledJobs int   `json:"scheduled_jobs"`
	RetryingJobs  int   `json:"retrying_jobs"`
	CompletedJobs int64 `json:"completed_jobs"`
	FailedJobs    int64 `json:"failed_jobs"`
	CancelledJobs int64 `json:"cancelled_jobs"`

	Paused            bool   `json:"paused,omitempty"`
	Rate              string `json:"rate,omitempty"` // as [ParseRate] reads it
	ConcurrencyPerKey int    `json:"concurrency_per_key,omitempty"`
}

// Workers are the figures of the pool: how many run and may run, in all and by
// type.
type Workers struct {
	Active int
	// Size is how many may run now. It is Max unless it follows the load, which it
	// does between Min and Max if Min is not 0.
	Size, Min, Max int
	// Utilisation is how busy the workers were in the last ten seconds, 0 to 1.
	Utilisation float64
	Types       map[string]TypeWorkers // without internal ones
}

// TypeWorkers are the figures of one type.
type TypeWorkers struct {
	Active, Max       int // a Max of 0 is the pool's
	Paused            bool
	Rate              Rate
	ConcurrencyPerKey int
}

// Stats are the figures as a Stats has them, which still lacks what the tracker
// knows.
func (w *Workers) Stats() Stats {
	s := Stats{
		ActiveWorkers: w.Active, Workers: w.Size, MinWorkers: w.Min, MaxWorkers: w.Max,
		Utilisation: math.Round(w.Utilisation*1000) / 1000,
		Types:       make(map[string]TypeStats, len(w.Types)),
	}
	for name, t := range w.Types {
		s.Types[name] = TypeStats{
			ActiveWorkers: t.Active, MaxWorkers: t.Max, Paused: t.Paused, Rate: t.Rate.String(),
			ConcurrencyPerKey: t.ConcurrencyPerKey,
		}
	}
	return s
}

// AppendJSON appends the answer of GET /workers/stats and jobstream.stats.
func (s *Stats) AppendJSON(b []byte) []byte {
	c := *s
	if c.Types == nil {
		c.Types = map[string]TypeStats{} // {} rather than null
	}
	out, err := json.Marshal(&c)
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return append(b, out...)
}

// MaxPoolSize is the highest bound of workers that a pool or a type can get.
const MaxPoolSize = 10000

// Resize is a wish for other bounds of workers, as PUT /workers takes it.
type Resize struct {
	MaxWorkers *int           // of the pool, 1 to MaxPoolSize; nil = stays
	MinWorkers *int           // 0 (the pool does not follow the load) to its MaxWorkers; nil = stays
	Types      map[string]int // of single types, 0 (the pool's bound) to MaxPoolSize; others stay
}

// ParseResize reads a Resize from JSON, strictly:
//
//	{"max_workers": 20, "min_workers": 2, "types": {"email": {"max_workers": 2}}}
//
// At least one bound must be named. It doesn't know the types, nor the bounds
// that are there; see [Registry.CheckResize] and [jobstream/jobs/pool.Pool.Resize].
func ParseResize(body []byte) (*Resize, error) {
	r := &Resize{}
	var bad fieldErrors
	err := EachKnown(body, []string{"max_workers", "min_workers", "types"}, nil, func(name string, raw json.RawMessage) (err error) {
		var n int
		switch name {
		case "max_workers":
			n, err = strict.Int(raw, 1, MaxPoolSize)
			r.MaxWorkers = &n
		case "min_workers":
			n, err = strict.Int(raw, 0, MaxPoolSize)
			r.MinWorkers = &n
		case "types":
			r.typeBounds(raw, &bad)
		}
		return err
	})
	if e, ok := AsError(err); ok {
		if len(e.Fields) == 0 {
			return nil, err
		}
		bad = append(e.Fields, bad...)
	}
	switch {
	case len(bad) > 0:
		return nil, InvalidFields(bad...)
	case r.MaxWorkers == nil && r.MinWorkers == nil && len(r.Types) == 0:
		return nil, Invalid("/max_workers", "is required, unless min_workers is there or types names at least one type")
	}
	return r, nil
}

// typeBounds reads {"email": {"max_workers": 2}, …}.
func (r *Resize) typeBounds(raw json.RawMessage, bad *fieldErrors) {
	const shape = `must be an object like {"email":{"max_workers":2}}, not %s`
	if raw[0] != '{' {
		bad.add("/types", fmt.Errorf(shape, strict.Describe(raw)))
		return
	}
	err := EachField(raw, func(name string, entry json.RawMessage) {
		at := "/types" + strict.Pointer(name)
		if entry[0] != '{' {
			bad.add(at, fmt.Errorf(`must be an object like {"max_workers":2}, not %s`, strict.Describe(entry)))
			return
		}
		n, err := typeBound(entry)
		bad.within(at, err)
		if r.Types == nil {
			r.Types = make(map[string]int)
		}
		r.Types[name] = n
	})
	bad.within("/types", err)
}

// typeBound reads the {"max_workers": 2} of a type.
func typeBound(entry json.RawMessage) (bound int, err error) {
	fields := []string{"max_workers"}
	return bound, EachKnown(entry, fields, fields, func(_ string, raw json.RawMessage) (err error) {
		bound, err = strict.Int(raw, 0, MaxPoolSize)
		return err
	})
}

// CheckResize says whether the registry has every type that r names.
func (r *Registry) CheckResize(z *Resize) error {
	var bad fieldErrors
	for name := range z.Types {
		if t := r.Lookup(name); t == nil || t.Internal {
			bad.add("/types"+strict.Pointer(name), fmt.Errorf("is not a known type; known are %s", strings.Join(r.names, ", ")))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.SortFunc(bad, func(a, b FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	e := InvalidFields(bad...)
	e.Kind = UnknownType
	return e
}

// fieldErrors gathers what is wrong with the fields of a body.
type fieldErrors []FieldError

// add notes err, if it is one, for the field at pointer.
func (f *fieldErrors) add(pointer string, err error) {
	if err != nil {
		*f = append(*f, FieldError{Pointer: pointer, Detail: err.Error()})
	}
}

// within notes the fields of an [*Error] of EachField for a part of the body,
// whose pointer goes before theirs.
func (f *fieldErrors) within(pointer string, err error) {
	if err == nil {
		return
	}
	e, ok := AsError(err)
	if !ok || len(e.Fields) == 0 {
		f.add(pointer, err)
		return
	}
	for _, field := range e.Fields {
		*f = append(*f, FieldError{Pointer: pointer + field.Pointer, Detail: field.Detail})
	}
}
