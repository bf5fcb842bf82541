package intake

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"jobstream/jobs"
)

// Releaser publishes due jobs whose message is not in the queue. These are scheduled
// jobs, those that have got a turn of their concurrency key, and those of a new run. It
// also ends waiting jobs whose expiry or deadline passes. The tracker's [jobs.Agenda]
// knows all of that. The Releaser may forget its own state: a message that is published
// twice is a stale copy.
type Releaser struct {
	o ReleaserOptions

	mu         sync.Mutex
	sent       map[uint64]errand   // published and not committed, by the job's key
	arrivals   map[uint64]struct{} // removed from sent by commits during the present round
	unfinished int
	crowded    bool      // the last round left jobs because too many were on their way
	full       bool      // the last round left jobs because the queue had no room
	rest       time.Time // the end of the pause after a refusal
	wake       chan struct{}
}

// errand is a message that was published for a job.
type errand struct {
	due      jobs.Time     // the job's DueAt
	priority jobs.Priority // of the lane where it was published
	at       time.Time     // when it was published
}

// ReleaserOptions are the parts of a Releaser.
type ReleaserOptions struct {
	Agenda jobs.Agenda
	Inbox  jobs.Inbox
	// Room is the number of unfinished jobs from which scheduled ones wait though they
	// are due. It is more than the bound for new submissions, so that these cannot keep
	// them out for ever.
	Room int
	// Callbacks says that the agenda is that of callbacks. Then Room is the number of
	// callbacks in the queue from which all others wait.
	Callbacks bool
	Logger    *slog.Logger
}

// CallbackRoom is the Room of the Releaser for callbacks, unless the queue is small.
const CallbackRoom = 1024

// Bounds of a Releaser's work.
const (
	releaseBatch = 4096             // messages published and not committed
	releaseAgain = 10 * time.Second // until one of them is published again
	lookAgain    = time.Second      // the longest pause: the wall clock may be set
	restFor      = lookAgain / 2    // after a refusal
)

// NewReleaser makes a Releaser. unfinished is the tracker's number of unfinished jobs, or
// that of callbacks in the queue.
func NewReleaser(o ReleaserOptions, unfinished int) *Releaser {
	return &Releaser{o: o, unfinished: unfinished, sent: make(map[uint64]errand), wake: make(chan struct{}, 1)}
}

// Committed is a listener of commits.
func (r *Releaser) Committed(c *jobs.Commit) {
	r.mu.Lock()
	r.unfinished = c.Load.Unfinished
	if r.o.Callbacks {
		r.unfinished = c.Load.Callbacks
	}
	if len(r.sent) > 0 {
		r.arrived(c.Submitted())
		r.arrived(c.Ended())
	}
	// This is not for every free place, because a round reads everything that is on its
	// way.
	again := c.Due() != 0 || r.crowded && len(r.sent) <= releaseBatch/2 || r.full && r.room() > r.o.Room/256
	r.mu.Unlock()
	if again {
		r.signal()
	}
}

// arrived removes jobs from those on their way. r.mu is locked.
func (r *Releaser) arrived(all iter.Seq[*jobs.Job]) {
	for j := range all {
		if _, ok := r.sent[j.Key]; !ok {
			continue
		}
		delete(r.sent, j.Key)
		if r.arrivals != nil {
			r.arrivals[j.Key] = struct{}{}
		}
	}
}

// waits says whether a job that is due has to wait while there is no room.
func (r *Releaser) waits(j *jobs.Job) bool { return j.Status == jobs.Scheduled || r.o.Callbacks }

// room is how many such jobs may be published now. Jobs on their way do not count
// as unfinished yet. r.mu is locked.
func (r *Releaser) room() int { return max(r.o.Room-r.unfinished-len(r.sent), 0) }

func (r *Releaser) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run releases jobs until ctx ends.
func (r *Releaser) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	set, stop := jobs.WatchClock()
	defer stop()
	for {
		select {
		case <-timer.C:
		case <-r.wake:
		case <-set:
		case <-ctx.Done():
			return nil
		}
		pause, err := r.round(ctx)
		if err != nil && ctx.Err() == nil {
			r.o.Logger.Warn("jobs that wait for their time could not be looked at; trying again", "error", err)
		}
		timer.Reset(pause)
	}
}

// round publishes everything that is due, and returns the time until the next job is.
func (r *Releaser) round(ctx context.Context) (time.Duration, error) {
	limit, err := r.expire(ctx)
	if err != nil {
		return lookAgain, err
	}
	known, room := r.begin()
	// Some of the due jobs are on their way already.
	due, next, err := r.o.Agenda.Due(jobs.Now(), known+releaseBatch, known+room)
	if err == nil {
		err = r.publish(due)
	}
	again := r.end(r.numWaiting(due) >= known+room)
	if err != nil {
		return lookAgain, err
	}
	if again {
		return 0, nil
	}
	if next == 0 || limit != 0 && limit < next {
		next = limit
	}
	if next == 0 {
		return lookAgain, nil
	}
	// Timers may fire a hair early by the wall clock.
	return min(max(next.Sub(jobs.Now()), time.Millisecond), lookAgain), nil
}

// expire ends jobs whose time is over, and returns the next moment at which others may
// have to end.
func (r *Releaser) expire(ctx context.Context) (next jobs.Time, err error) {
	by := jobs.By("clock")
	keys, next, err := r.o.Agenda.Overdue(by.At)
	if err == nil && len(keys) > 0 {
		_, err = r.o.Agenda.Do(ctx, jobs.Expire{Stamp: by, Keys: keys})
	}
	return next, err
}

// begin begins a round. It returns how many jobs are on their way, and how many
// scheduled ones may follow them.
func (r *Releaser) begin() (known, room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, e := range r.sent {
		if time.Since(e.at) >= releaseAgain {
			delete(r.sent, key) // it was lost, or needs no answer any more
		}
	}
	// A job that arrives from now on may still be in the agenda's answer.
	r.arrivals, r.crowded, r.full = make(map[uint64]struct{}), false, false
	return len(r.sent), min(r.room(), releaseBatch)
}

// numWaiting is how many of these jobs need room.
func (r *Releaser) numWaiting(due []*jobs.Job) (n int) {
	for _, j := range due {
		if r.waits(j) {
			n++
		}
	}
	return n
}

// end ends a round. cut says that some due scheduled jobs may not have been looked at.
// again is true if there is room for them by now.
func (r *Releaser) end(cut bool) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrivals = nil
	r.crowded = r.crowded || len(r.sent) >= releaseBatch
	r.full = r.full || cut && r.room() == 0
	return cut && !r.full && !r.crowded
}

// publish publishes jobs, as far as there is room.
func (r *Releaser) publish(due []*jobs.Job) error {
	for _, j := range due {
		if !r.claim(j) {
			continue
		}
		key := j.Key
		whole, err := r.o.Agenda.Whole(j)
		if err == nil && whole != nil {
			err = r.o.Inbox.Submit(whole.Again(), func(error) { r.refused(key) })
		}
		if err != nil {
			r.refused(key)
			return err
		}
	}
	return nil
}

// claim says whether a job is to be published now, and marks it as on its way.
func (r *Releaser) claim(j *jobs.Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.arrivals[j.Key]; ok {
		return false
	}
	if e, ok := r.sent[j.Key]; ok && e.due == j.DueAt && e.priority == j.Priority {
		return false
	}
	switch {
	case time.Now().Before(r.rest):
		return false
	case len(r.sent) >= releaseBatch:
		r.crowded = true
		return false
	case r.waits(j) && r.room() == 0:
		r.full = true
		return false
	}
	r.sent[j.Key] = errand{j.DueAt, j.Priority, time.Now()}
	return true
}

// refused forgets a job that the queue refused. The next try comes after a pause, since
// it would be refused again at once.
func (r *Releaser) refused(key uint64) {
	r.mu.Lock()
	delete(r.sent, key)
	r.full, r.rest = true, time.Now().Add(restFor)
	r.mu.Unlock()
}
