package figures

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"jobstream/jobs"
)

// Ranges are the spans of time of which there is a history, the shortest first.
func Ranges() []string { return []string{"5m", "1h", "24h"} }

// History is a copy of a part of the rings.
type History struct {
	Range string
	Step  int64     // seconds of a period
	From  time.Time // the beginning of the first period
	Types []Series  // the total first, the others by name
	had   []bool    // of each period: whether it was counted
}

// Series are the periods of a type, oldest first.
type Series struct {
	Name string
	rows []row
}

// History returns the periods of a range that have ended by now, for the total and these
// types; no types = all. A type that is not known has nothing in it. The range is one of
// [Ranges].
func (c *Collector) History(span string, types []string, now time.Time) *History {
	p := &c.past
	p.mu.RLock()
	defer p.mu.RUnlock()
	g := p.rings[max(slices.Index(Ranges(), span), 0)]
	first := g.last(now.Unix()) - int64(len(g.slots)) + 1
	h := &History{Range: span, Step: g.step, From: time.Unix(first*g.step, 0).UTC(), had: make([]bool, len(g.slots))}
	for i := range h.had {
		h.had[i] = g.has(first + int64(i))
	}
	names := slices.Sorted(maps.Keys(g.rows))
	if len(types) > 0 {
		names = types
	}
	for _, name := range append([]string{Total}, names...) {
		if name == Total && len(h.Types) > 0 {
			continue
		}
		s := Series{Name: name, rows: make([]row, len(h.had))}
		rows := g.rows[name]
		for i := range s.rows {
			s.rows[i] = blank
			if h.had[i] && rows != nil {
				s.rows[i] = rows[g.place(first+int64(i))]
			}
		}
		h.Types = append(h.Types, s)
	}
	return h
}

// Column is a column of a history.
type Column struct {
	Name    string
	Text    string // says what it is
	Seconds bool   // it is a span of time, which null stands for if there was none
	of      func(r *row) float64
}

// Columns are the columns of a history, in their order in JSON.
func Columns() []Column { return columns }

// A value below 0 stands for none.
var columns = []Column{
	{"in", "jobs that were submitted, or retried by hand", false, func(r *row) float64 { return float64(r.counts[0]) }},
	{"done", "jobs that completed", false, func(r *row) float64 { return float64(r.counts[1]) }},
	{"failed", "jobs that failed for good", false, func(r *row) float64 { return float64(r.counts[2]) }},
	{"retried", "failed attempts that were not the last", false, func(r *row) float64 { return float64(r.counts[3]) }},
	{"cancelled", "jobs that were cancelled, or expired", false, func(r *row) float64 { return float64(r.counts[4]) }},
	{"waiting", "pending jobs", false, func(r *row) float64 { return float64(r.waiting) }},
	{"oldest_seconds", "how long the job had waited that was due for longest", true, func(r *row) float64 { return float64(r.oldest) }},
	{"running", "", false, func(r *row) float64 { return float64(r.running) }},
	{"wait_p50", "how long jobs had waited when an attempt began, from the moment at which it was due", true, func(r *row) float64 { return float64(r.wait[0]) }},
	{"wait_p95", "", true, func(r *row) float64 { return float64(r.wait[1]) }},
	{"wait_p99", "", true, func(r *row) float64 { return float64(r.wait[2]) }},
	{"run_p50", "how long attempts took that completed or failed", true, func(r *row) float64 { return float64(r.run[0]) }},
	{"run_p95", "", true, func(r *row) float64 { return float64(r.run[1]) }},
	{"run_p99", "", true, func(r *row) float64 { return float64(r.run[2]) }},
}

// AppendJSON appends the answer of GET /stats/history:
//
//	{"range":"5m","step_seconds":1,"from":"…","periods":300,
//	 "total":{"in":[0,12,null,…],…,"run_p99":[…]},"types":{"email":{…}}}
//
// A period that was not counted is null in all columns. One in which no attempt began has
// no percentiles of waits, and likewise with runs: they are null.
func (h *History) AppendJSON(b []byte) []byte {
	b = append(b, `{"range":`...)
	b = jobs.AppendString(b, h.Range)
	b = append(b, `,"step_seconds":`...)
	b = strconv.AppendInt(b, h.Step, 10)
	b = append(b, `,"from":"`...)
	b = h.From.AppendFormat(b, time.RFC3339)
	b = append(b, `","periods":`...)
	b = strconv.AppendInt(b, int64(len(h.had)), 10)
	for i := range h.Types {
		s := &h.Types[i]
		switch i {
		case 0:
			b = append(b, `,"total":`...)
			b = h.appendSeries(b, s)
			b = append(b, `,"types":{`...)
			continue
		case 1:
		default:
			b = append(b, ',')
		}
		b = jobs.AppendString(b, s.Name)
		b = append(b, ':')
		b = h.appendSeries(b, s)
	}
	return append(b, '}', '}')
}

func (h *History) appendSeries(b []byte, s *Series) []byte {
	for i, c := range columns {
		b = append(b, "{,"[min(i, 1)])
		b = jobs.AppendString(b, c.Name)
		b = append(b, ':', '[')
		for at := range s.rows {
			if at > 0 {
				b = append(b, ',')
			}
			v := c.of(&s.rows[at])
			switch {
			case !h.had[at] || v < 0:
				b = append(b, "null"...)
			case v == math.Trunc(v):
				b = strconv.AppendInt(b, int64(v), 10)
			default:
				b = strconv.AppendFloat(b, v, 'g', 4, 32)
			}
		}
		b = append(b, ']')
	}
	return append(b, '}')
}
