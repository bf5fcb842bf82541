package intake

import (
	"context"
	"slices"
	"sync"

	"jobstream/jobs"
)

// Waits lets callers wait for a state of a job. The zero value is not usable; see
// [NewWaits].
type Waits struct {
	mu      sync.Mutex
	waiting map[jobs.ID][]*wait
	closed  chan struct{}
	once    sync.Once
}

// wait is one caller's wait for a job.
type wait struct {
	until func(*jobs.Job) bool
	came  chan struct{} // closed when it is true, or the job was deleted
}

// NewWaits makes a Waits.
func NewWaits() *Waits {
	return &Waits{waiting: make(map[jobs.ID][]*wait), closed: make(chan struct{})}
}

// Committed is a listener of commits.
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

// Look has all who wait look at their jobs, after changes that no commit has told of.
func (w *Waits) Look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, all := range w.waiting {
		for _, one := range all {
			close(one.came)
		}
	}
	clear(w.waiting)
}

// Close ends all waits, present and future, as the server stops.
func (w *Waits) Close() { w.once.Do(func() { close(w.closed) }) }

// Ended is a condition for [Waits.Wait].
func Ended(j *jobs.Job) bool { return j.Status.Ended() }

// Wait waits until the condition until is true of a job, and returns the result of
// find. The end of ctx or a stop of the server ends the wait as well. So does an error
// of find, or no job.
func (w *Waits) Wait(ctx context.Context, id jobs.ID, until func(*jobs.Job) bool, find func() (*jobs.Job, error)) (*jobs.Job, error) {
	for {
		// This comes before the look, so that no commit is missed.
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

// remove removes one wait. w.mu is locked.
func (w *Waits) remove(id jobs.ID, one *wait) {
	left := slices.DeleteFunc(w.waiting[id], func(other *wait) bool { return other == one })
	if len(left) == 0 {
		delete(w.waiting, id)
		return
	}
	w.waiting[id] = left
}
