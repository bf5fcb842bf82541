package intake

import (
	"context"
	"iter"
	"jobstream/jobs"
	"log/slog"
	"sync"
	"time"
)

// Releaser puts jobs into the queue whose message is not there when their time
// has come: scheduled ones, those that a concurrency key held back, those that
// are to run again. It also ends jobs whose expiry or deadline passes while they
// wait. All of that stands in the tracker's [jobs.Agenda]; what the Releaser itself
// remembers may be lost: a message that is published twice is a stale copy.
type Releaser struct {
	o ReleaserOptions

	mu         sync.Mutex
	sent       map[uint64]errand   // published and not committed, by the job's key
	told       map[uint64]struct{} // what commits took out of sent during the present round
	unfinished int
	crowded    bool      // the last round left something since too much was on its way
	full       bool      // the last round left something since the queue has no room
	rest       time.Time // when the queue is asked again, after it has refused one
	wake       chan struct{}
}

// errand is a message that was published for a job.
type errand struct {
	due jobs.Time // the job's DueAt
	at  time.Time // when it was published
}

// ReleaserOptions are what a Releaser needs.
type ReleaserOptions struct {
	Agenda jobs.Agenda
	Inbox  jobs.Inbox
	// Room is the number of unfinished jobs from which scheduled ones wait though
	// they are due: more than the bound for new submissions, so that these cannot
	// keep them out for ever.
	Room   int
	Logger *slog.Logger
}

// Bounds of a Releaser's work.
const (
	releaseBatch = 4096             // messages published and not committed
	releaseAgain = 10 * time.Second // until one of them is published again
	lookAgain    = time.Second      // the longest pause: the wall clock may be set
	restFor      = lookAgain / 2    // after a refusal
)

// NewReleaser makes a Releaser; unfinished is the tracker's number of them.
func NewReleaser(o ReleaserOptions, unfinished int) *Releaser {
	return &Releaser{o: o, unfinished: unfinished, sent: make(map[uint64]errand), wake: make(chan struct{}, 1)}
}

// Committed takes what a commit made true.
func (r *Releaser) Committed(c *jobs.Commit) {
	r.mu.Lock()
	r.unfinished = c.Load.Unfinished
	if len(r.sent) > 0 {
		r.arrived(c.Submitted())
		r.arrived(c.Ended())
	}
	// Not for every place that becomes free: a round reads all that is on its way.
	again := c.Due() != 0 || r.crowded && len(r.sent) <= releaseBatch/2 || r.full && r.room() > r.o.Room/256
	r.mu.Unlock()
	if again {
		r.signal()
	}
}

// arrived takes jobs out of those that are on their way. r.mu is held.
func (r *Releaser) arrived(all iter.Seq[*jobs.Job]) {
	for j := range all {
		if _, ok := r.sent[j.Key]; !ok {
			continue
		}
		delete(r.sent, j.Key)
		if r.told != nil {
			r.told[j.Key] = struct{}{}
		}
	}
}

// room is how many scheduled jobs may be published now. What is on its way is
// not among the unfinished ones yet. r.mu is held.
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
	for {
		select {
		case <-timer.C:
		case <-r.wake:
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

// round does what is due and returns how long nothing else will be.
func (r *Releaser) round(ctx context.Context) (time.Duration, error) {
	limit, err := r.expire(ctx)
	if err != nil {
		return lookAgain, err
	}
	known, room := r.begin()
	// Of those that are due some are on their way already.
	due, next, err := r.o.Agenda.Due(jobs.Now(), known+releaseBatch, known+room)
	if err == nil {
		err = r.publish(due)
	}
	again := r.end(numScheduled(due) >= known+room)
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
	// Never before its time: timers may fire a hair early by the wall clock.
	return min(max(next.Sub(jobs.Now()), time.Millisecond), lookAgain), nil
}

// expire ends jobs whose time is over, and returns when others' may be.
func (r *Releaser) expire(ctx context.Context) (next jobs.Time, err error) {
	by := jobs.By("clock")
	keys, next, err := r.o.Agenda.Overdue(by.At)
	if err == nil && len(keys) > 0 {
		_, err = r.o.Agenda.Do(ctx, jobs.Expire{Stamp: by, Keys: keys})
	}
	return next, err
}

// begin begins a round, and returns how many jobs are on their way and how many
// scheduled ones may follow them.
func (r *Releaser) begin() (known, room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, e := range r.sent {
		if time.Since(e.at) >= releaseAgain {
			delete(r.sent, key) // lost, or nobody has to hear of it any more
		}
	}
	// A job that arrives from now on is due by what the agenda is about to say.
	r.told, r.crowded, r.full = make(map[uint64]struct{}), false, false
	return len(r.sent), min(r.room(), releaseBatch)
}

func numScheduled(due []*jobs.Job) (n int) {
	for _, j := range due {
		if j.Status == jobs.Scheduled {
			n++
		}
	}
	return n
}

// end ends a round. cut says that there may be scheduled jobs that are due and
// were not looked at; if there is room for them by now, again is true.
func (r *Releaser) end(cut bool) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = nil
	r.crowded = r.crowded || len(r.sent) >= releaseBatch
	r.full = r.full || cut && r.room() == 0
	return cut && !r.full && !r.crowded
}

// publish puts jobs into the queue, as far as there is room.
func (r *Releaser) publish(due []*jobs.Job) error {
	for _, j := range due {
		if !r.take(j) {
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

// take says whether a job is to be published now, and takes note that it is.
func (r *Releaser) take(j *jobs.Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.told[j.Key]; ok {
		return false
	}
	if e, ok := r.sent[j.Key]; ok && e.due == j.DueAt {
		return false
	}
	switch {
	case time.Now().Before(r.rest):
		return false
	case len(r.sent) >= releaseBatch:
		r.crowded = true
		return false
	case j.Status == jobs.Scheduled && r.room() == 0:
		r.full = true
		return false
	}
	r.sent[j.Key] = errand{j.DueAt, time.Now()}
	return true
}

// refused forgets one that the queue did not take: it is tried again, but not
// at once, as it would be refused again.
func (r *Releaser) refused(key uint64) {
	r.mu.Lock()
	delete(r.sent, key)
	r.full, r.rest = true, time.Now().Add(restFor)
	r.mu.Unlock()
}
