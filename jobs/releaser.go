package jobs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Releaser puts jobs into the queue whose message is not there when their time
// has come: scheduled ones, those that a concurrency key held back, those that
// are to run again. It also ends jobs whose expiry or deadline passes while they
// wait. All of that stands in the tracker's [Agenda]; what the Releaser itself
// remembers may be lost: a message that is published twice is a stale copy.
type Releaser struct {
	o ReleaserOptions

	mu         sync.Mutex
	sent       map[uint64]time.Time // published and not committed, by the job's key
	unfinished int
	wake       chan struct{}
}

// ReleaserOptions are what a Releaser needs.
type ReleaserOptions struct {
	Agenda Agenda
	Inbox  Inbox
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
)

// NewReleaser makes a Releaser; unfinished is the tracker's number of them.
func NewReleaser(o ReleaserOptions, unfinished int) *Releaser {
	return &Releaser{o: o, unfinished: unfinished, sent: make(map[uint64]time.Time), wake: make(chan struct{}, 1)}
}

// Committed takes what a commit made true.
func (r *Releaser) Committed(c *Commit) {
	r.mu.Lock()
	full := r.unfinished >= r.o.Room
	r.unfinished = c.Unfinished
	again := c.Due != 0 || full && c.Unfinished < r.o.Room
	if len(r.sent) > 0 {
		again = again || len(r.sent) >= releaseBatch
		for _, j := range c.Submitted {
			delete(r.sent, j.Key)
		}
		for _, j := range c.Ended {
			delete(r.sent, j.Key)
		}
	}
	r.mu.Unlock()
	if again {
		r.signal()
	}
}

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
	limit, err := r.o.Agenda.Expire(ctx, Now())
	if err != nil {
		return lookAgain, err
	}
	now := Now()
	due, next, err := r.o.Agenda.Due(now, 2*releaseBatch)
	if err != nil {
		return lookAgain, err
	}
	if err := r.publish(due); err != nil {
		return lookAgain, err
	}
	if next == 0 || limit != 0 && limit < next {
		next = limit
	}
	if next == 0 {
		return lookAgain, nil
	}
	// Never before its time: timers may fire a hair early by the wall clock.
	return min(max(next.Sub(Now()), time.Millisecond), lookAgain), nil
}

// publish puts jobs into the queue, as far as there is room.
func (r *Releaser) publish(due []*Job) error {
	for _, j := range due {
		if !r.take(j) {
			continue
		}
		key := j.Key
		err := r.o.Inbox.Submit(j.Again(), func(error) { r.refused(key) })
		if err != nil {
			r.refused(key)
			return err
		}
	}
	return nil
}

// take says whether a job is to be published now, and takes note that it is.
func (r *Releaser) take(j *Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at, ok := r.sent[j.Key]; ok {
		if now.Sub(at) < releaseAgain {
			return false
		}
	} else {
		if len(r.sent) >= releaseBatch {
			return false
		}
		if j.Status == Scheduled {
			// What is on its way is not among the unfinished ones yet.
			if r.unfinished+len(r.sent) >= r.o.Room {
				return false
			}
		}
	}
	r.sent[j.Key] = now
	return true
}

// refused forgets one that the queue did not take: it is tried again.
func (r *Releaser) refused(key uint64) {
	r.mu.Lock()
	delete(r.sent, key)
	r.mu.Unlock()
}
