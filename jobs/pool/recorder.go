package pool

import (
	"context"
	"slices"
	"sync"
	"time"

	"jobstream/jobs"
)

// Recorder brings events to an EventLog. With little load an event goes out at once.
// Under load it collects events for a millisecond, so that many share a message. The
// start of an attempt is deferred a little, and dropped if the attempt has ended by
// then: its outcome contains its start.
type Recorder struct {
	log  jobs.EventLog
	fail func(error) // called when events could not be sent; they are sent again

	mu     sync.Mutex
	queue  []jobs.Event
	starts map[uint64]Beginning // by sequence in JOBS
	oldest jobs.Time            // the moment of the oldest of starts
	wake   chan struct{}
}

// Beginning is an attempt that has begun. StartEvent makes its event, if the attempt
// has not ended soon after.
type Beginning interface{ StartEvent() *jobs.Event }

const (
	// packWindow is the least time between two sendings.
	packWindow = time.Millisecond
	// startHold is how long the start of an attempt is deferred.
	startHold = 4 * time.Millisecond
)

// NewRecorder makes a Recorder; fail may be nil.
func NewRecorder(log jobs.EventLog, fail func(error)) *Recorder {
	if fail == nil {
		fail = func(error) {}
	}
	return &Recorder{log: log, fail: fail, starts: make(map[uint64]Beginning), wake: make(chan struct{}, 1)}
}

// Started records the start of an attempt some milliseconds later. The attempt has
// begun now, at the message seq of JOBS.
func (r *Recorder) Started(seq uint64, now jobs.Time, b Beginning) {
	r.mu.Lock()
	if len(r.starts) == 0 {
		r.oldest = now
	}
	r.starts[seq] = b
	r.mu.Unlock()
	r.signal()
}

// Record records a copy of an event. An event that ends an attempt replaces its
// deferred start.
func (r *Recorder) Record(e *jobs.Event) {
	r.mu.Lock()
	b, deferred := r.starts[e.Seq]
	if deferred {
		delete(r.starts, e.Seq)
	}
	if deferred && !e.Kind.EndsAttempt() {
		r.push(b.StartEvent())
	}
	r.push(e)
	r.mu.Unlock()
	r.signal()
}

// push copies an event straight into the queue. With an event or two on its stack, a
// worker's goroutine would outgrow its first stack. r.mu is locked.
func (r *Recorder) push(e *jobs.Event) {
	n := len(r.queue)
	r.queue = slices.Grow(r.queue, 1)[:n+1]
	r.queue[n] = *e
}

func (r *Recorder) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run sends events until ctx ends, and then the remaining ones.
func (r *Recorder) Run(ctx context.Context) error {
	var last time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var spare []jobs.Event
	for {
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
			r.send(spare[:0], true)
			return nil
		}
		if d := packWindow - time.Since(last); d > 0 {
			sleep(ctx, d)
		}
		var next time.Duration
		if spare, next = r.send(spare[:0], false); len(spare) > 0 {
			last = time.Now() // a deferred start makes nothing wait
		}
		timer.Reset(next)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// send sends the events whose time has come, and returns the time until the next ones.
// spare becomes the next queue; the sent one is returned for reuse.
func (r *Recorder) send(spare []jobs.Event, all bool) ([]jobs.Event, time.Duration) {
	r.mu.Lock()
	next := time.Hour
	if len(r.starts) > 0 {
		// the age is negative if the clock was set back meanwhile
		if age := jobs.Now().Sub(r.oldest); all || age >= startHold || age < 0 {
			// Later ones go with the oldest: the deferral saves messages and promises
			// nothing.
			for seq, b := range r.starts {
				r.push(b.StartEvent())
				delete(r.starts, seq)
			}
		} else {
			next = startHold - age
		}
	}
	out := r.queue
	r.queue = spare
	r.mu.Unlock()
	if len(out) > 0 {
		if err := r.log.Append(out); err != nil {
			r.fail(err)
		}
	}
	clear(out)
	return out, next
}
