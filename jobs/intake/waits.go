package intake

import (
	"context"
	"jobstream/jobs"
	"slices"
	"sync"
)

// Waits lets callers wait for what commits make of jobs. The zero value is not usable;
// see [NewWaits].
type Waits struct {
	mu      sync.Mutex
	waiting map[jobs.ID][]*wait
	closed  chan struct{}
	once    sync.Once
}

// wait is somebody who waits for something to become true of a job.
type wait struct {
	until func(*jobs.Job) bool
	came  chan struct{} // closed when it has, or the job was deleted
}

// NewWaits makes a Waits.
func NewWaits() *Waits {
	return &Waits{waiting: make(map[jobs.ID][]*wait), closed: make(chan struct{})}
}

// Committed takes what a commit made true.
func (w *Waits) Committed(c *jobs.Commit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) == 0 {
		return
	}
	for i := range c.Changes {
		j := c.Changes[i].After
		if j == nil {
			j = c.Changes[i].Before
		}
		for _, one := range slices.Clone(w.waiting[j.ID]) {
			if c.Changes[i].After == nil || one.until(j) {
				close(one.came)
				w.remove(j.ID, one)
			}
		}
	}
}

// Close ends all waiting, now and in future: the server stops.
func (w *Waits) Close() { w.once.Do(func() { close(w.closed) }) }

// Ended is what to wait for until a job has ended.
func Ended(j *jobs.Job) bool { return j.Status.Ended() }

// Wait returns what find returns: once until is true of that job, or when ctx ends or
// the server stops, whatever it is then. An error of find, or no job, ends it, too.
func (w *Waits) Wait(ctx context.Context, id jobs.ID, until func(*jobs.Job) bool, find func() (*jobs.Job, error)) (*jobs.Job, error) {
	for {
		// Before the look, so that nothing is missed between the two.
		one := w.expect(id, until)
		j, err := find()
		if err != nil || j == nil || until(j) {
			w.forget(id, one)
			return j, err
		}
		select {
		case <-one.came:
		case <-ctx.Done():
			w.forget(id, one)
			return find()
		case <-w.closed:
			w.forget(id, one)
			return find()
		}
	}
}

func (w *Waits) expect(id jobs.ID, until func(*jobs.Job) bool) *wait {
	one := &wait{until: until, came: make(chan struct{})}
	w.mu.Lock()
	w.waiting[id] = append(w.waiting[id], one)
	w.mu.Unlock()
	return one
}

func (w *Waits) forget(id jobs.ID, one *wait) {
	w.mu.Lock()
	w.remove(id, one)
	w.mu.Unlock()
}

// remove takes out one who waits. w.mu is held.
func (w *Waits) remove(id jobs.ID, one *wait) {
	left := slices.DeleteFunc(w.waiting[id], func(other *wait) bool { return other == one })
	if len(left) == 0 {
		delete(w.waiting, id)
		return
	}
	w.waiting[id] = left
}
