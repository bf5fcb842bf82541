package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

// hurry lets a node heal without a pause.
func hurry(o *node.Options) { o.Recovery.HealPause = time.Millisecond }

// hurt takes a stream away, which nothing but another start of the broker makes good,
// and waits until that has happened so many times.
func (h *house) hurt(stream string, times int) {
	h.t.Helper()
	nc, js := adminStreams(h.t, h.nats)
	mustDo(h.t, js.DeleteStream(h.t.Context(), stream))
	nc.Close()
	select {
	case <-h.log.has(fmt.Sprintf("healed: jobs are taken and run again\" times=%d ", times)):
	case why := <-h.ended:
		h.t.Fatalf("the server ended: %s", why)
	case <-time.After(patience):
		h.t.Fatal("the server does not heal")
	}
}

// TestHeal breaks the broker while jobs wait, sleep and run. The process goes on at the
// same ports with all that it had; what ran is run again, and it used up nothing.
func TestHeal(t *testing.T) {
	held := newPuppet()
	h := open(t, t.TempDir(), setup{
		options:  hurry,
		handlers: map[string]jobs.Handler{"held": held, "quick": jobs.HandlerFunc(nothing)},
		change: func(c *config.Config) {
			c.Worker.MaxWorkers, c.Worker.MaxLost = 3, 1 // one that were counted would be the end of a job
		},
	})
	h.do(http.MethodPut, "/workers", `{"max_workers":1}`)
	running := h.submit(`{"type":"held"}`)
	first := held.next(t)
	waiting := h.submit(`{"type":"held"}`)
	asleep := h.submit(`{"type":"quick","delay":"1h"}`)
	h.do(http.MethodPost, "/types/quick/pause", "")
	paused := h.submit(`{"type":"quick"}`)
	follower := h.follow("/jobs/" + asleep.ID + "/log?follow=true")
	for i, stream := range []string{"JOBS", "STATUS", "NOTIFICATIONS"} {
		h.hurt(stream, i+1)
		select {
		case <-first.ctx.Done():
		case <-time.After(patience):
			t.Fatal("the handler was not told")
		}
		again := held.next(t)
		if again.id() != running.ID || again.task.Attempt != 1 || again.task.Job.Lost != 0 {
			t.Errorf("after a new start attempt %d of %s runs, with %d workers lost; want the first of %s", again.task.Attempt, again.id(), again.task.Job.Lost, running.ID)
		}
		first = again
		if max := h.stats().MaxWorkers; max != 1 {
			t.Errorf("there are %d workers, want the 1 that was set", max)
		}
	}
	h.do(http.MethodPost, "/workers/pause", "")
	h.hurt("JOBS", 4)
	if !h.stats().Paused {
		t.Error("the pause of the workers is forgotten")
	}
	h.do(http.MethodPost, "/workers/resume", "")
	first = held.next(t)
	if log := follower.rest(); log != "" { // it ends, because another core writes the log now
		t.Errorf("followed to %q", log)
	}
	first.finish()
	held.next(t).finish()
	h.await(running.ID, "completed")
	h.await(waiting.ID, "completed")
	h.accepted(h.dial(), "jobs.quick", `{}`) // at the port that it had
	h.do(http.MethodPost, "/types/quick/resume", "")
	h.await(paused.ID, "completed")
	if s := h.job(asleep.ID); s.Status != "scheduled" {
		t.Errorf("the job that waited for its time is %s", s.Status)
	}
	h.close()
}

// TestHealLeavesNothing heals often: goroutines, open files and memory stay as they were.
func TestHealLeavesNothing(t *testing.T) {
	const times = 10
	h := open(t, t.TempDir(), setup{options: hurry, handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)}, allLines: true})
	round := func(n int) {
		h.hurt([]string{"JOBS", "STATUS", "NOTIFICATIONS"}[n%3], n)
		h.await(h.submit(`{"type":"quick"}`).ID, "completed")
	}
	round(1)
	goroutines, files, memory := runtime.NumGoroutine(), openFiles(t), alive()
	for n := range times {
		round(n + 2)
	}
	const few = times / 2 // one left by each would be too many
	waitUntil(t, func() bool {
		return runtime.NumGoroutine() <= goroutines+few && openFiles(t) <= files+few && alive() <= memory+few<<20
	})
	t.Logf("%d goroutines, %d files and %d KiB, then %d, %d and %d", goroutines, files, memory>>10, runtime.NumGoroutine(), openFiles(t), alive()>>10)
	h.close()
}

// alive is the memory in use, in bytes.
func alive() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// openFiles counts the files that this process has open, 0 where that is not known.
func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(all)
}
