package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// TestClock sets the wall clock back and forth while jobs wait, run and fail. The clock is
// that of the process, so the test is not parallel.
func TestClock(t *testing.T) {
	defer jobs.ShiftClock(0)
	held := newPuppet()
	failing := make(chan struct{}, 1)
	dir := t.TempDir()
	s := setup{
		handlers: map[string]jobs.Handler{
			"quick": jobs.HandlerFunc(nothing),
			"held":  held,
			"once": jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
				if task.Attempt == 1 {
					failing <- struct{}{}
					return jobs.Result{}, errors.New("once")
				}
				return jobs.Result{}, nil
			}),
		},
		change: func(c *config.Config) {
			k := c.Jobs["once"]
			k.RetryCount, k.Backoff = 1, jobs.Backoff{Kind: jobs.Constant, Base: 2 * time.Second}
			c.Jobs["once"] = k
			c.Worker.ShutdownGrace = 100 * time.Millisecond
		},
	}
	h := open(t, dir, s)

	later := h.submit(`{"type":"quick","delay":3}`)
	retried := h.submit(`{"type":"once"}`)
	running := h.submit(`{"type":"held"}`)
	play := held.next(t)
	<-failing
	h.await(retried.ID, "retrying")

	// An hour back: running and new jobs are not delayed, and the retry does not wait
	// an hour. A job that was to start at a moment waits for that moment.
	jobs.ShiftClock(-time.Hour)
	play.finish()
	h.await(running.ID, "completed")
	h.await(h.submit(`{"type":"quick"}`).ID, "completed")
	h.await(retried.ID, "completed")
	if j := h.job(later.ID); j.Status != "scheduled" {
		t.Errorf("a job started an hour before its time, it is %s", j.Status)
	}

	// A restart in the past, with a job in the queue whose last start is in the
	// future.
	crashed := h.submit(`{"type":"held"}`)
	held.next(t)
	h.close() // the stop interrupts the handler and the job goes back
	h = open(t, dir, s)
	held.next(t).finish()
	h.await(crashed.ID, "completed")
	h.await(h.submit(`{"type":"quick"}`).ID, "completed")

	// Forward again, and a day more: what was to start by now does, and what was to
	// have started by now has expired.
	expiring := h.submit(`{"type":"quick","delay":7200,"ttl":60}`)
	jobs.ShiftClock(24 * time.Hour)
	h.await(later.ID, "completed")
	h.await(expiring.ID, "cancelled")
	h.await(h.submit(`{"type":"quick"}`).ID, "completed")
}
