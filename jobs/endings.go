package jobs

import (
	"context"
	"sync"
)

// Endings lets callers wait until jobs have ended. The zero value is not usable;
// see [NewEndings].
type Endings struct {
	mu      sync.Mutex
	waiting map[ID][]chan struct{}
	closed  chan struct{}
	once    sync.Once
}

// NewEndings makes an Endings.
func NewEndings() *Endings {
	return &Endings{waiting: make(map[ID][]chan struct{}), closed: make(chan struct{})}
}

// Committed takes what a commit made true.
func (e *Endings) Committed(c *Commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		return
	}
	for j := range c.Ended() {
		for _, ch := range e.waiting[j.ID] {
			close(ch)
		}
		delete(e.waiting, j.ID)
	}
}

// Close ends all waiting, now and in future: the server stops.
func (e *Endings) Close() { e.once.Do(func() { close(e.closed) }) }

// Wait returns what find returns: once that is a job that has ended, or when ctx
// ends or the server stops, whatever it is then. An error of find, or no job,
// ends it, too.
func (e *Endings) Wait(ctx context.Context, id ID, find func() (*Job, error)) (*Job, error) {
	for {
		// Before the look, so that no end is missed between the two.
		ended := e.expect(id)
		j, err := find()
		if err != nil || j == nil || j.Status.Ended() {
			e.forget(id, ended)
			return j, err
		}
		select {
		case <-ended:
		case <-ctx.Done():
			e.forget(id, ended)
			return find()
		case <-e.closed:
			e.forget(id, ended)
			return find()
		}
	}
}

func (e *Endings) expect(id ID) chan struct{} {
	ch := make(chan struct{})
	e.mu.Lock()
	e.waiting[id] = append(e.waiting[id], ch)
	e.mu.Unlock()
	return ch
}

func (e *Endings) forget(id ID, ch chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.waiting[id]
	for i := range list {
		if list[i] == ch {
			list[i] = list[len(list)-1]
			e.waiting[id] = list[:len(list)-1]
			break
		}
	}
	if len(e.waiting[id]) == 0 {
		delete(e.waiting, id)
	}
}
