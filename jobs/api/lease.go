package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// The requests of workers elsewhere. Over REST a lease stands in the path, over NATS in
// the body; all else is the same.

// DefaultAskWait is how long an ask waits for jobs unless it says something else.
const DefaultAskWait = 30 * time.Second

// maxLog bounds the lines for the log in one report.
const maxLog = 1000

// ParseAsk reads a request for jobs: {"types":["thumb"],"max":1,"wait":"30s","worker":"w-17"}.
// Only the types are required.
func ParseAsk(body []byte) (*jobs.Ask, error) {
	a := &jobs.Ask{Max: 1, Wait: DefaultAskWait}
	err := jobs.Read("", body, func(v strict.Value) {
		v.Object(
			strict.Need("types", func(v strict.Value) {
				v.Texts(func(_ strict.Value, s string) { a.Types = append(a.Types, s) })
				if v.Right() && (len(a.Types) == 0 || len(a.Types) > jobs.MaxAskTypes) {
					v.Fail("must name 1 to %d types", jobs.MaxAskTypes)
				}
			}),
			strict.May("max", func(v strict.Value) { a.Max = v.Int(1, jobs.MaxAsk) }),
			strict.May("wait", func(v strict.Value) { a.Wait = strict.As(v, askWaitOf) }),
			workerField(&a.Worker),
		)
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func askWaitOf(raw json.RawMessage) (time.Duration, error) {
	d, err := jobs.ReadSpan(raw, jobs.MaxAskWait)
	if err != nil {
		err = fmt.Errorf(`must be seconds or a duration like "30s", at most %g seconds, not %s`, jobs.MaxAskWait.Seconds(), strict.Describe(raw))
	}
	return d, err
}

// workerField is the name of a worker.
func workerField(name *string) strict.Field {
	return strict.May("worker", func(v strict.Value) {
		s, ok := v.Text()
		if ok && !jobs.ValidWorkerName(s) {
			v.Fail("must be 1 to %d letters, digits, _, -, @ or #, not %s", jobs.MaxWorkerName, jobs.Quote(s))
		}
		*name = s
	})
}

// Beat is a worker's word that it is alive.
type Beat struct {
	Worker string // "" = not named
	Leases []string
}

// ParseBeat reads {"worker":"w-17","leases":["…"]}.
func ParseBeat(body []byte) (b Beat, err error) {
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(
			strict.Need("leases", func(v strict.Value) {
				v.Texts(func(_ strict.Value, s string) { b.Leases = append(b.Leases, s) })
				if len(b.Leases) > jobs.MaxLeases {
					v.Fail("has %d leases, at most %d are allowed", len(b.Leases), jobs.MaxLeases)
				}
			}),
			workerField(&b.Worker),
		)
	})
	return b, err
}

// report is what a worker says about one lease.
type report[T any] struct {
	lease string
	of    T
}

// reportOf reads a report with these fields. Its lease comes from the path, or else from
// the body. Over REST, a report that needs no field may have no body.
func reportOf[T any](fields func(*T) []strict.Field) reader[report[T]] {
	return func(r Request) (rep report[T], err error) {
		body, err := bodyOnly(r)
		if err != nil {
			return rep, err
		}
		known := fields(&rep.of)
		if rep.lease = r.Param("lease"); rep.lease == "" {
			known = append(known, leaseField(&rep.lease))
		} else if len(bytes.TrimSpace(body)) == 0 {
			body = []byte("{}")
		}
		err = jobs.Read("", body, func(v strict.Value) { v.Object(known...) })
		return rep, err
	}
}

func leaseField(lease *string) strict.Field {
	return strict.Need("lease", func(v strict.Value) { *lease, _ = v.Text() })
}

// progressFields are {"percent":45,"message":"…","log":[{"level":"info","text":"…"}],"checkpoint":{…}}.
func progressFields(p *jobs.Progress) []strict.Field {
	p.Percent = -1
	return []strict.Field{
		strict.May("percent", func(v strict.Value) { p.Percent = v.Int(0, 100) }),
		strict.May("message", func(v strict.Value) {
			s, _ := v.Text()
			s = jobs.Shorten(s, jobs.MaxMessage)
			p.Message = &s
		}),
		strict.May("log", func(v strict.Value) { p.Log = logOf(v) }),
		strict.May("checkpoint", func(v strict.Value) {
			if p.Checkpoint = v.Raw; len(v.Raw) > jobs.MaxCheckpoint {
				v.Fail("has %d bytes, at most %d are kept", len(v.Raw), jobs.MaxCheckpoint)
			}
		}),
	}
}

// logOf reads lines for the log of a job. A line may be a text alone.
func logOf(v strict.Value) (lines []jobs.LogLine) {
	if !v.IsList() {
		v.Fail(`must be a list like [{"level":"info","text":"…"}], not %s`, v)
		return nil
	}
	v.Items(func(v strict.Value) {
		line := jobs.LogLine{Level: jobs.LevelInfo}
		if v.IsText() {
			line.Text, _ = v.Text()
		} else {
			v.Object(
				strict.Need("text", func(v strict.Value) { line.Text, _ = v.Text() }),
				strict.May("level", func(v strict.Value) {
					level := readLevel(v)
					line.Level = level
				}),
				strict.May("stream", func(v strict.Value) { line.Stream, _ = v.OneOf("stdout", "stderr") }),
			)
		}
		lines = append(lines, line)
	})
	if len(lines) > maxLog {
		v.Fail("has %d lines, at most %d are allowed", len(lines), maxLog)
	}
	return lines
}

// doneFields are {"result":…}.
func doneFields(result *json.RawMessage) []strict.Field {
	return []strict.Field{resultField(result)}
}

func resultField(result *json.RawMessage) strict.Field {
	return strict.May("result", func(v strict.Value) {
		if *result = v.Raw; len(v.Raw) > jobs.MaxResult {
			v.Fail("has %d bytes of JSON, at most %d are kept; leave a file instead", len(v.Raw), jobs.MaxResult)
		}
	})
}

// failFields are {"error":"…","permanent":false,"retry_after":"30s","busy":false}.
func failFields(f *jobs.Failure) []strict.Field {
	return []strict.Field{
		strict.Need("error", func(v strict.Value) {
			s, _ := v.Text()
			f.Error = jobs.Shorten(s, jobs.MaxError)
		}),
		strict.May("permanent", func(v strict.Value) { f.Permanent = v.Bool() }),
		strict.May("retry_after", func(v strict.Value) { f.RetryAfter = strict.As(v, jobs.ReadDelay) }),
		strict.May("busy", func(v strict.Value) { f.Busy = v.Bool() }),
	}
}

// releaseFields are {"delay":"0s","reason":"…","busy":false}.
func releaseFields(g *jobs.GiveBack) []strict.Field {
	return []strict.Field{
		strict.May("delay", func(v strict.Value) { g.Delay = strict.As(v, jobs.ReadDelay) }),
		strict.May("reason", func(v strict.Value) {
			s, _ := v.Text()
			g.Reason = jobs.Shorten(s, jobs.MaxMessage)
		}),
		strict.May("busy", func(v strict.Value) { g.Busy = v.Bool() }),
	}
}

// ParseDone reads {"done":[{"lease":"…","result":…}]}: 1 to [jobs.MaxAsk] ends of jobs.
func ParseDone(body []byte) (all []jobs.Done, err error) {
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(strict.Need("done", func(v strict.Value) {
			if !v.IsList() {
				v.Fail(`must be a list like [{"lease":"…","result":…}], not %s`, v)
				return
			}
			v.Items(func(v strict.Value) {
				var d jobs.Done
				v.Object(leaseField(&d.Token), resultField(&d.Result))
				all = append(all, d)
			})
			if len(all) == 0 || len(all) > jobs.MaxAsk {
				v.Fail("must have 1 to %d entries", jobs.MaxAsk)
			}
		}))
	})
	return all, err
}

// leased is the answer with leases.
type leased []jobs.Lease

// AppendJSON appends {"leases":[…]}.
func (all leased) AppendJSON(b []byte) []byte { return all.append(b, true) }

// AppendFitting may leave out the errors of earlier attempts. What is left always fits,
// because asks are bounded.
func (all leased) AppendFitting(b []byte, most int) (out []byte, omitted string) {
	if out = all.append(b, true); len(out)-len(b) <= most {
		return out, ""
	}
	return all.append(b, false), "errors"
}

func (all leased) append(b []byte, withErrors bool) []byte {
	b = append(b, `{"leases":[`...)
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLease(b, &all[i], withErrors)
	}
	return append(b, "]}"...)
}

func appendLease(b []byte, l *jobs.Lease, withErrors bool) []byte {
	j := *l.Job // what it is now: the record is from before the start
	j.Status, j.Attempt, j.Progress, j.Message, j.DueAt = jobs.Processing, l.Attempt, 0, "", 0
	if !withErrors {
		j.Errors = nil
	}
	b = append(b, `{"lease":`...)
	b = jobs.AppendString(b, l.Token)
	b = fmt.Appendf(b, `,"lease_seconds":%g,"fence":%d,"deadline":%q,"job":`, l.Span.Seconds(), l.Fence, l.Deadline)
	b = j.AppendJSON(b)
	if in := l.Job.Inputs(); len(in) > 0 {
		b = jobs.AppendInputsJSON(append(b, `,"inputs":`...), in)
	}
	if len(l.Job.Checkpoint) > 0 {
		b = append(append(b, `,"checkpoint":`...), l.Job.Checkpoint...)
	}
	if l.Trace != (jobs.Trace{}) {
		b = append(jobs.AppendTrace(append(b, `,"traceparent":"`...), l.Trace), '"')
	}
	return append(b, '}')
}

// beats is the answer to a beat.
type beats jobs.Beats

type beatResource struct {
	Seconds float64           `json:"lease_seconds"`
	Lost    []string          `json:"lost"`
	Cancel  map[string]string `json:"cancel"`
}

func (b *beats) AppendJSON(out []byte) []byte {
	r := beatResource{b.Span.Seconds(), b.Lost, b.Cancelled}
	if r.Lost == nil {
		r.Lost = []string{}
	}
	if r.Cancel == nil {
		r.Cancel = map[string]string{}
	}
	return appendPlain(out, &r)
}

// ending is the answer to the end of an execution.
type ending jobs.Ending

func (e *ending) AppendJSON(b []byte) []byte { return appendPlain(b, e.resource()) }

type endingResource struct {
	Lease    string          `json:"lease,omitempty"`
	Status   string          `json:"status,omitempty"`
	RunAt    time.Time       `json:"run_at,omitzero"`
	Repeated bool            `json:"repeated,omitempty"`
	Problem  json.RawMessage `json:"problem,omitempty"`
}

func (e *ending) resource() *endingResource {
	return &endingResource{Status: e.Status.String(), RunAt: e.RunAt.Std(), Repeated: e.Repeated}
}

// endings is the answer to many ends: {"done":[…]}, each a status or a problem.
type endings struct {
	of  []jobs.Done
	all []jobs.Ending
}

func (e *endings) AppendJSON(b []byte) []byte {
	list := make([]*endingResource, len(e.all))
	for i := range e.all {
		one := ending(e.all[i])
		list[i] = one.resource()
		if one.Err != nil {
			problem, _ := jobs.AsError(one.Err)
			list[i] = &endingResource{Problem: Problem(problem)}
		}
		list[i].Lease = e.of[i].Token
	}
	return appendPlain(b, map[string]any{"done": list})
}

// workers is the answer of GET /workers.
type workers []jobs.Worker

type workerResource struct {
	Worker string       `json:"worker"`
	Node   string       `json:"node"`
	Local  bool         `json:"local,omitempty"`
	Types  []string     `json:"types"`
	Seen   time.Time    `json:"last_seen,omitzero"`
	Leases []workerWork `json:"leases"`
}

type workerWork struct {
	Job      jobs.ID   `json:"job"`
	Type     string    `json:"type"`
	Since    time.Time `json:"since"`
	Progress int       `json:"progress"`
}

func (all workers) AppendJSON(b []byte) []byte {
	list := make([]workerResource, len(all))
	for i, w := range all {
		list[i] = workerResource{w.Name, w.Node, w.Local, append([]string{}, w.Types...), w.Seen.Std(), make([]workerWork, len(w.Work))}
		for k, x := range w.Work {
			list[i].Leases[k] = workerWork{x.ID, x.Type, x.Since.Std(), x.Progress}
		}
	}
	return appendPlain(b, map[string]any{"workers": list})
}

// appendPlain appends v, which can always be written as JSON.
func appendPlain(b []byte, v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, out...)
}
