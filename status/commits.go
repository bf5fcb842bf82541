package status

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"jobstream/jobs"
)

// Commits notifies listeners of every commit and wakes those who wait for one. Any
// goroutine may use it; mu guards the lists.
type Commits struct {
	latest    *Latest
	published atomic.Pointer[jobs.Positions] // of the last commit that was published, or where Run began

	mu        sync.Mutex
	listeners []*listener // replaced as a whole, because publish reads it without mu
	waiters   map[chan struct{}]struct{}
}

func newCommits(latest *Latest) *Commits {
	c := &Commits{latest: latest, waiters: make(map[chan struct{}]struct{})}
	c.published.Store(&jobs.Positions{})
	return c
}

// listener is one of those who are told of commits.
type listener struct{ listen func(*jobs.Commit) }

// Listen registers a listener for every commit from now on. Commits come in order, one
// at a time, and earlier listeners get each commit first. The next batch is folded
// meanwhile. A listener must not block for long, because the projector waits for it
// then. After forget it gets no further commit, except the one that is published at that
// moment.
func (c *Commits) Listen(listen func(*jobs.Commit)) (forget func()) {
	l := &listener{listen}
	c.mu.Lock()
	c.listeners = append(slices.Clone(c.listeners), l)
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.listeners = slices.DeleteFunc(slices.Clone(c.listeners), func(other *listener) bool { return other == l })
		c.mu.Unlock()
	}
}

// publish calls all listeners with a commit.
func (c *Commits) publish(commit *jobs.Commit) {
	c.mu.Lock()
	listeners := c.listeners
	c.mu.Unlock()
	for _, l := range listeners {
		l.listen(commit)
	}
	c.published.Store(&commit.Positions)
	c.wake()
}

// WaitFor returns once the committed positions have reached at least pos.
func (c *Commits) WaitFor(ctx context.Context, pos jobs.Positions) error {
	return c.waitFor(ctx, pos, c.latest.Positions)
}

// WaitPublished returns once all listeners have seen the commits up to pos.
// [Projector.Run] must have begun.
func (c *Commits) WaitPublished(ctx context.Context, pos jobs.Positions) error {
	return c.waitFor(ctx, pos, func() jobs.Positions { return *c.published.Load() })
}

func (c *Commits) waitFor(ctx context.Context, pos jobs.Positions, reached func() jobs.Positions) error {
	return c.until(ctx, "the tracker to catch up", func() bool {
		have := reached()
		return have.Jobs >= pos.Jobs && have.Status >= pos.Status
	})
}

// until waits for a condition that a commit, or another call of wake, makes true.
func (c *Commits) until(ctx context.Context, what string, ok func() bool) error {
	for {
		ch := c.wait()
		if ok() {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

// wait returns a channel that is closed at the next commit.
func (c *Commits) wait() chan struct{} {
	ch := make(chan struct{})
	c.mu.Lock()
	c.waiters[ch] = struct{}{}
	c.mu.Unlock()
	return ch
}

func (c *Commits) wake() {
	c.mu.Lock()
	for ch := range c.waiters {
		close(ch)
		delete(c.waiters, ch)
	}
	c.mu.Unlock()
}
