package figures

import (
	"encoding/json"
	"sync"
	"time"

	"jobstream/jobs"
)

// Bounds of the changes in a digest. A page with ten of them open must stay fast.
const (
	MaxSample   = 50      // changes
	sampleBytes = 4 << 10 // of their JSON, about
)

// Digest is what has happened in a period of about a second, and how things stand at its
// end. One is made a second, for all who watch; see [Board].
type Digest struct {
	At      time.Time         `json:"at"`      // the end of the period, UTC
	Seconds float64           `json:"seconds"` // its length
	Total   Figures           `json:"total"`   // of all jobs, internal types included
	Types   map[string]Recent `json:"types"`   // without internal ones
	Workers Workers           `json:"workers"`
	Node    Node              `json:"node"`
	// Sample are some of the changes of jobs in the period, oldest first, and Skipped is
	// the number of all others.
	Sample  []Change `json:"sample"`
	Skipped int      `json:"skipped"`
}

// Recent are the figures of a type in a [Digest].
type Recent struct {
	Figures
	Paused bool `json:"paused,omitempty"`
	// Reasons counts the jobs that wait by the reason, see [jobs.Waiting].
	Reasons map[string]int `json:"waiting_reasons,omitempty"`
}

// Period is what has happened in a period: numbers of jobs and spans of time. Absent
// numbers are 0.
type Period struct {
	In        int `json:"in,omitempty"`        // submitted, or retried by hand
	Done      int `json:"done,omitempty"`      // completed
	Failed    int `json:"failed,omitempty"`    // for good
	Retried   int `json:"retried,omitempty"`   // failed attempts that were not the last
	Cancelled int `json:"cancelled,omitempty"` // also expired ones
	// Wait is how long jobs had waited when an attempt began, from the moment at which
	// that was due. Run is how long attempts took that completed or failed.
	Wait *Percentiles `json:"wait,omitempty"` // nil: none began
	Run  *Percentiles `json:"run,omitempty"`  // nil: none ended
}

// Figures are a period, and how things stand at its end.
type Figures struct {
	Period
	Waiting int `json:"waiting,omitempty"` // pending jobs
	// OldestSeconds is how long the job has waited that is due for longest; 0 = none
	// waits.
	OldestSeconds float64 `json:"oldest_seconds,omitempty"`
	Running       int     `json:"running,omitempty"`
	Scheduled     int     `json:"scheduled,omitempty"`
	Retrying      int     `json:"retrying,omitempty"` // waiting for their next attempt
}

// Percentiles of a span of time, in seconds.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Workers are the pool's own workers.
type Workers struct {
	Busy        int     `json:"busy"`
	Max         int     `json:"max"`         // present bound
	Utilisation float64 `json:"utilisation"` // in the last ten seconds, 0 to 1
	Paused      bool    `json:"paused,omitempty"`
}

// Node is how the server itself does.
type Node struct {
	DiskFree int64   `json:"disk_free_bytes"` // where the data folder is
	CommitMS float64 `json:"commit_ms"`       // the tracker's commits of the period, their median; 0 = there were none
}

// Change is a job after a change of its status.
type Change struct {
	ID     jobs.ID   `json:"id"`
	Seq    uint64    `json:"seq"`
	Type   string    `json:"type"`
	Status string    `json:"status"`
	At     time.Time `json:"at"`
	Error  string    `json:"error,omitempty"` // its beginning
}

// Board has the latest digest. Whoever watches takes the next one when it has time, so
// a slow client misses some and delays nobody. Nothing is encoded unless somebody
// watches, and then only once. The zero value has no digest yet.
type Board struct {
	mu     sync.Mutex
	digest *Digest
	json   []byte // of digest, once somebody has asked
	next   chan struct{}
}

// Latest returns the latest digest as JSON, nil before the first one. The caller does
// not change it. next is closed when there is another one.
func (b *Board) Latest() (digest []byte, next <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.json == nil && b.digest != nil {
		var err error
		if b.json, err = json.Marshal(b.digest); err != nil {
			panic(err) // numbers, texts and moments always marshal
		}
	}
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.json, b.next
}

// Node is how the server did in the latest digest.
func (b *Board) Node() (n Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.digest != nil {
		n = b.digest.Node
	}
	return n
}

// Put replaces the digest, which the caller does not change any more.
func (b *Board) Put(d *Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.digest, b.json = d, nil
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}
