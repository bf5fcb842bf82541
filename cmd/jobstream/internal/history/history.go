package history

import (
	"math"
	"sync"
	"time"
)

// Moment is a point of time in nanoseconds since 1970, by the clock of the machine that
// everything runs on. Zero says that it is not known.
type Moment int64

// Never is later than all that happens.
const Never Moment = math.MaxInt64

// Now is this moment.
func Now() Moment { return Moment(time.Now().UnixNano()) }

// At is a moment of the standard library.
func At(t time.Time) Moment { return Moment(t.UnixNano()) }

// Add is the moment d later.
func (m Moment) Add(d time.Duration) Moment {
	if m == Never {
		return m
	}
	return m + Moment(d)
}

// Sub is the time from o to m.
func (m Moment) Sub(o Moment) time.Duration { return time.Duration(m - o) }

// What clients ask for.
const (
	Submit = "submit"
	Read   = "read" // a job by its id
	Cancel = "cancel"
	Retry  = "retry"
	Pause  = "pause" // a type
	Resume = "resume"
	Paused = "paused" // whether a type is
)

// Ask is a request and its answer.
type Ask struct {
	What       string
	Door       string // the node that was asked
	Begin, End Moment // End is Never if no answer came
	Code       int    // status of the answer, 0 without one
	Name       string // of a submission, in the payload of whatever it makes; else the type that is asked about
	Idempotent string // idempotency key
	Unique     string // unique key
	Job        string // the one of the request or of the answer; of a refusal the holder of the key
	Status     string // of the job, as answered
	Run        int    // likewise
	Yes        bool   // whether a type is paused
	Unsure     bool   // the refusal does not say that nothing was done
	Bare       bool   // a message, accepted by the streams alone
	Batch      string // names the request if it submits several jobs, all of them or none
	NotBefore  Moment // of a submission, when its job may begin; 0 = at once
}

// answered says whether the server has done what it was asked.
func (a *Ask) answered() bool { return a.Code/100 == 2 }

// Run is one time that a handler ran.
type Run struct {
	Job        string
	Run        int // which run of the job by hand, from 1
	Attempt    int
	Node       string
	Life       string // process of the node
	Key        string // of what bounds how many run at a time: a concurrency key with its type, or a type
	Begin, End Moment // End is Never if it did not come to its end
}

// Fault is what was done to a node, or to all if Node is empty.
type Fault struct {
	Node     string
	What     string
	Dead     bool // its process ended
	Gentle   bool // it was asked to end, so nothing runs twice
	From, To Moment
}

// Job is a job as the tracker shows it at the end.
type Job struct {
	ID, Name   string // Name is that of the submission that made it
	Status     string
	Run        int
	Attempt    int // the last one's number
	Most       int // attempts that it may have
	Idempotent string
	Unique     string
	Ended      Moment
	NeverRan   bool // refused after its submission was stored
	Schedule   string
	For        Moment // of the schedule
	Steady     bool   // no attempt fails by itself
}

// Notice is a notification that a job has ended.
type Notice struct {
	Job, Status string
	Run         int
}

// Heard is a notification with the node at which a client heard it.
type Heard struct {
	Notice
	Door string
	At   Moment
}

// Stream is what a client heard that followed all changes, from before the first submission
// until after the last end, at one node after the other.
type Stream struct {
	Name    string
	Ends    map[Notice]bool
	Skipped []Skip
}

// Skip is what a server says is missing in a stream, in its words.
type Skip struct {
	At   Moment
	Says string
}

// History is everything that was seen. Its methods may be called by several goroutines.
type History struct {
	mu      sync.Mutex
	Asks    []Ask
	Runs    []Run
	Faults  []Fault
	Jobs    []Job
	Notices []Notice
	Heard   []Heard
	Streams []Stream
	// AtOnce are how many jobs may run at a time, by Run.Key.
	AtOnce map[string]int
	// Unstored is how long before a fault a run may have ended that is in flight
	// nevertheless, since its end was not stored yet; 0 = two seconds.
	Unstored time.Duration
	// Every are the periods of schedules.
	Every map[string]time.Duration
}

// Asked adds a request with its answer.
func (h *History) Asked(a Ask) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Asks = append(h.Asks, a)
}

// Hears adds a notification that a client has heard.
func (h *History) Hears(n Heard) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Heard = append(h.Heard, n)
}

// Broken adds a fault.
func (h *History) Broken(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Faults = append(h.Faults, f)
}

// Periodic adds a schedule, which fires from now on.
func (h *History) Periodic(schedule string, period time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Every == nil {
		h.Every = make(map[string]time.Duration)
	}
	h.Every[schedule] = period
}
