package api

import (
	"encoding/json"
	"math"

	"jobstream/jobs"
	"jobstream/jobs/figures"
)

// Stats are the figures of the pool and the queue. The completed, failed and cancelled
// counters are cumulative; all others are of the present moment.
type Stats struct {
	ActiveWorkers int  `json:"active_workers"`
	Workers       int  `json:"workers"`               // present bound
	MinWorkers    int  `json:"min_workers,omitempty"` // 0 = their number does not follow the load
	MaxWorkers    int  `json:"max_workers"`
	Paused        bool `json:"paused,omitempty"` // no jobs start
	// Utilisation is how busy the workers were in the last ten seconds, 0 to 1.
	Utilisation   float64 `json:"utilisation"`
	QueuedJobs    int     `json:"queued_jobs"`    // pending ones
	ScheduledJobs int     `json:"scheduled_jobs"` // pending jobs
	CompletedJobs int64   `json:"completed_jobs"`
	FailedJobs    int64   `json:"failed_jobs"`
	CancelledJobs int64   `json:"cancelled_jobs"`
	RetryingJobs  int     `json:"retrying_jobs"` // waiting for their next attempt
	UptimeSeconds int64   `json:"uptime_seconds"`
	QueueSize     int     `json:"queue_size"` // bound of pending, processing and retrying jobs

	Backlog
	Node  NodeStats            `json:"node"`
	Types map[string]TypeStats `json:"types"`
}

// NodeStats are how the server itself does. What cannot be found out is 0 or missing.
type NodeStats struct {
	figures.Node
	TrackerBytes int64                  `json:"tracker_bytes"` // of its file
	JournalBytes int64                  `json:"journal_bytes"` // of the one with its last commits
	Streams      map[string]StreamStats `json:"streams,omitempty"`
}

// StreamStats are what a stream holds.
type StreamStats struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// Backlog is what waits now, and what has happened lately.
type Backlog struct {
	// OldestSeconds is how long the job has waited that is due for longest; 0 = none waits.
	OldestSeconds float64 `json:"oldest_seconds"`
	// Reasons counts the jobs that wait, by the reasons of [jobs.Waiting].
	Reasons    map[string]int `json:"waiting_reasons,omitempty"`
	LastMinute figures.Period `json:"last_minute"`
}

// TypeStats are the figures of one job type in [Stats].
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
	Rate              string `json:"rate,omitempty"` // in the form of [jobs.ParseRate]
	ConcurrencyPerKey int    `json:"concurrency_per_key,omitempty"`
	Backlog
}

// StatsOf are the pool's figures as a Stats, without those of the tracker.
func StatsOf(w *jobs.Workers) Stats {
	s := Stats{
		ActiveWorkers: w.Active, Workers: w.Size, MinWorkers: w.Min, MaxWorkers: w.Max, Paused: w.Paused,
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
