package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

func nothing(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }

func failing(context.Context, *jobs.Task) (jobs.Result, error) {
	return jobs.Result{}, errors.New("as it is meant to")
}

// one sets the number of workers to one.
func one(c *config.Config) { c.Worker.MaxWorkers = 1 }

// TestContractPriority has one busy worker while jobs queue up. It runs the lowest
// number first, over all types. Jobs of one type run in the order of submission, and
// types of one number alternate.
func TestContractPriority(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"a": p, "b": p, "c": p}, change: one})
	h.submit(`{"type":"a","priority":3}`)
	busy := p.next(t)
	n := 0
	for prio := 5; prio >= 1; prio-- {
		for _, kind := range []string{"a", "a", "a", "b", "b", "c"} {
			n++
			h.submit(`{"type":%q,"priority":%d,"payload":%d}`, kind, prio, n)
		}
	}
	h.awaitStats(func(s *api.Stats) bool {
		return s.QueuedJobs == n && s.ActiveWorkers == 1 && s.Types["a"].QueuedJobs == n/2 && s.Types["a"].ActiveWorkers == 1
	})
	h.awaitDelivered()
	last := map[jobs.Lane]int{}
	kinds := map[jobs.Priority]string{}
	at := jobs.HighestPriority
	for range n {
		busy.finish()
		busy = p.next(t)
		j := busy.task.Job
		if j.Priority < at {
			t.Errorf("a %s job of priority %d started after one of %d", j.Type, j.Priority, at)
		}
		at = j.Priority
		var number int
		mustDo(t, json.Unmarshal(j.Payload, &number))
		if number < last[j.Lane()] {
			t.Errorf("%s: job %d started after job %d", j.Lane(), number, last[j.Lane()])
		}
		last[j.Lane()] = number
		kinds[j.Priority] += j.Type
	}
	busy.finish()
	for prio, order := range kinds {
		turn := []byte(order[:3])
		slices.Sort(turn)
		if string(turn) != "abc" || strings.Count(order[:5], "b") != 2 {
			t.Errorf("priority %d: types started in the order %s; some were starved", prio, order)
		}
	}
}

// awaitDelivered waits until the lanes have delivered all that is in JOBS. A free worker
// waits for a delivery that must come, but only for 100 ms.
func (h *house) awaitDelivered() {
	h.t.Helper()
	js, err := jetstream.New(h.dial())
	mustDo(h.t, err)
	stream, err := js.Stream(h.t.Context(), "JOBS")
	mustDo(h.t, err)
	waitUntil(h.t, func() bool {
		lanes := stream.ListConsumers(h.t.Context())
		left := uint64(0)
		for lane := range lanes.Info() {
			left += lane.NumPending
		}
		mustDo(h.t, lanes.Err())
		return left == 0
	})
}

// TestContractTypeCap has a type with a cap of its own.
func TestContractTypeCap(t *testing.T) {
	t.Parallel()
	capped, free := newPuppet(), newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"capped": capped, "free": free},
		change: func(c *config.Config) {
			k := c.Jobs["capped"]
			k.MaxWorkers = 2
			c.Jobs["capped"] = k
			c.Worker.MaxWorkers = 6
		},
	})
	for range 6 {
		h.submit(`{"type":"capped","priority":1}`)
	}
	for range 3 {
		h.submit(`{"type":"free","priority":5}`)
	}
	running := []*play{capped.next(t), capped.next(t)}
	for range 3 {
		defer free.next(t).finish() // it started although capped ones wait with a better priority
	}
	h.awaitStats(func(s *api.Stats) bool {
		k := s.Types["capped"]
		return s.ActiveWorkers == 5 && s.QueuedJobs == 4 && k.ActiveWorkers == 2 && k.MaxWorkers == 2 && k.QueuedJobs == 4
	})
	for range 4 {
		if len(capped.stage) > 0 {
			t.Fatal("more of the type run than its cap allows")
		}
		running[0].finish()
		running = append(running[1:], capped.next(t))
	}
	for _, pl := range running {
		pl.finish()
	}
	waitUntil(t, func() bool { return h.stats().Types["capped"].CompletedJobs == 6 })
}

// TestContractResize changes the number of workers while jobs run.
func TestContractResize(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.MaxWorkers = 2 }})
	resize := func(body string) (s api.Stats) {
		t.Helper()
		r := h.do(http.MethodPut, "/workers", body)
		if r.code != http.StatusOK {
			t.Fatalf("%s is answered with %d: %s", body, r.code, r.body)
		}
		mustDo(t, json.Unmarshal(r.body, &s))
		return s
	}
	for range 12 {
		h.submit(`{"type":"held"}`)
	}
	running := []*play{p.next(t), p.next(t)}
	h.awaitStats(func(s *api.Stats) bool { return s.ActiveWorkers == 2 && s.QueuedJobs == 10 })
	if s := resize(`{"max_workers":5}`); s.MaxWorkers != 5 {
		t.Errorf("after growing: %+v", s)
	}
	for range 3 {
		running = append(running, p.next(t))
	}
	if s := resize(`{"max_workers":1}`); s.MaxWorkers != 1 || s.ActiveWorkers != 5 {
		t.Errorf("after shrinking: %+v", s)
	}
	for _, pl := range running[:4] {
		if pl.ctx.Err() != nil {
			t.Error("a running job was interrupted")
		}
		pl.finish()
	}
	h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs == 4 && s.ActiveWorkers == 1 && s.QueuedJobs == 7 })
	if len(p.stage) != 0 {
		t.Error("another job started though one runs and there is one worker")
	}
	running[4].finish()
	last := p.next(t)
	if s := resize(`{"max_workers":4,"types":{"held":{"max_workers":2}}}`); s.Types["held"].MaxWorkers != 2 || s.MaxWorkers != 4 {
		t.Errorf("with a type's bound: %+v", s)
	}
	running = []*play{last, p.next(t)}
	if s := h.stats(); s.ActiveWorkers != 2 || len(p.stage) != 0 {
		t.Errorf("with a type's bound: %+v", s)
	}
	resize(`{"types":{"held":{"max_workers":0}}}`)
	running = append(running, p.next(t), p.next(t))
	for _, pl := range running {
		pl.finish()
	}
	for range 3 {
		p.next(t).finish()
	}
	waitUntil(t, func() bool { return h.stats().CompletedJobs == 12 })
	h.submit(`{"type":"held"}`)
	p.next(t).finish()
}

// actor does what its payload says.
type actor struct {
	Fail      int // so many attempts
	Panic     int
	Permanent bool
	Hang      bool
}

func act(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	var a actor
	if err := json.Unmarshal(t.Job.Payload, &a); err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	switch {
	case a.Permanent:
		return jobs.Result{}, fmt.Errorf("attempt %d: %w", t.Attempt, jobs.Permanent(errors.New("no use")))
	case a.Hang:
		<-ctx.Done()
		return jobs.Result{}, ctx.Err()
	case t.Attempt <= a.Panic:
		panic(fmt.Sprintf("attempt %d is upset", t.Attempt))
	case t.Attempt <= a.Fail:
		return jobs.Result{}, fmt.Errorf("attempt %d is lost", t.Attempt)
	}
	return jobs.Result{Value: map[string]int{"attempt": t.Attempt}}, nil
}

// TestContractRetries has jobs fail in every way.
func TestContractRetries(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"act": jobs.HandlerFunc(act), "brief": jobs.HandlerFunc(act)},
		change: func(c *config.Config) {
			backoff := jobs.Backoff{Kind: jobs.Linear, Base: 20 * time.Millisecond}
			c.Jobs["act"] = config.JobType{Run: "act", RetryCount: 2, Timeout: time.Minute, Backoff: backoff}
			c.Jobs["brief"] = config.JobType{Run: "brief", RetryCount: 1, Timeout: 30 * time.Millisecond, Backoff: backoff}
		},
	})
	const again = "started retrying "
	for name, c := range map[string]struct {
		submission string
		status     string
		attempt    int
		max        int
		errors     []string // parts of
		kinds      string   // of events after submitted
	}{
		"at once":             {`{"type":"act","payload":{}}`, "completed", 1, 3, nil, "started completed"},
		"third time lucky":    {`{"type":"act","payload":{"fail":2}}`, "completed", 3, 3, []string{"attempt 1 is lost", "attempt 2 is lost"}, again + again + "started completed"},
		"all in vain":         {`{"type":"act","payload":{"fail":9}}`, "failed", 3, 3, []string{"attempt 1", "attempt 2", "attempt 3"}, again + again + "started failed"},
		"own retry_count 0":   {`{"type":"act","retry_count":0,"payload":{"fail":9}}`, "failed", 1, 1, []string{"attempt 1"}, "started failed"},
		"own retry_count 4":   {`{"type":"act","retry_count":4,"payload":{"fail":4}}`, "completed", 5, 5, []string{"1", "2", "3", "4"}, strings.Repeat(again, 4) + "started completed"},
		"permanent":           {`{"type":"act","payload":{"permanent":true}}`, "failed", 1, 3, []string{"no use"}, "started failed"},
		"panic":               {`{"type":"act","payload":{"panic":1}}`, "completed", 2, 3, []string{"panic: attempt 1 is upset"}, again + "started completed"},
		"panic for ever":      {`{"type":"act","retry_count":1,"payload":{"panic":9}}`, "failed", 2, 2, []string{"panic", "panic"}, again + "started failed"},
		"the type's timeout":  {`{"type":"brief","payload":{"hang":true}}`, "failed", 2, 2, []string{"timed out after 30ms", "timed out"}, again + "started failed"},
		"own shorter timeout": {`{"type":"act","timeout":0.02,"retry_count":0,"payload":{"hang":true}}`, "failed", 1, 1, []string{"timed out after 20ms"}, "started failed"},
		"own longer timeout":  {`{"type":"brief","timeout":60,"payload":{}}`, "completed", 1, 2, nil, "started completed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			j := h.await(h.submit("%s", c.submission).ID, c.status)
			if j.Attempt != c.attempt || j.MaxAttempts != c.max || len(j.Errors) != len(c.errors) {
				t.Fatalf("ended as %+v", j)
			}
			for i, want := range c.errors {
				e := j.Errors[i]
				if e.Attempt != i+1 || e.At.IsZero() || !strings.Contains(e.Error, want) {
					t.Errorf("error %d is %+v, want %q", i, e, want)
				}
			}
			if failed := c.status == "failed"; failed != (j.Error != "") {
				t.Errorf("the error is %q", j.Error)
			}
			events, kinds := h.events(j.ID)
			if kinds != "submitted "+c.kinds {
				t.Errorf("the events are %s", kinds)
			}
			checkWaits(t, events)
			if c.status == "completed" && string(j.Result) != fmt.Sprintf(`{"attempt":%d}`, c.attempt) {
				t.Errorf("the result is %s", j.Result)
			}
		})
	}
}

// checkWaits checks that retries wait 20 ms, 40 ms …
func checkWaits(t *testing.T, events []event) {
	t.Helper()
	for i, e := range events {
		if e.Kind != "retrying" {
			continue
		}
		if e.RunAt == nil {
			t.Errorf("a retry says not when it is due: %+v", e)
			continue
		}
		if wait, want := e.RunAt.Sub(e.At), time.Duration(e.Attempt)*20*time.Millisecond; wait != want {
			t.Errorf("after attempt %d the wait is %v, want %v", e.Attempt, wait, want)
		}
		if next := events[i+1]; next.Kind != "started" || next.Attempt != e.Attempt+1 || next.At.Before(*e.RunAt) {
			t.Errorf("due at %v, but next is %+v", e.RunAt, next)
		}
	}
}

// TestContractWaitingForRetry looks at a job between its attempts.
func TestContractWaitingForRetry(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"sad": jobs.HandlerFunc(failing)},
		change: func(c *config.Config) {
			c.Jobs["sad"] = config.JobType{Run: "sad", RetryCount: 1, Timeout: time.Minute, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: time.Hour}}
		},
	})
	j := h.await(h.submit(`{"type":"sad"}`).ID, "retrying")
	if j.RunAt == nil || j.RunAt.Before(time.Now().Add(59*time.Minute)) || j.Attempt != 1 || j.EndedAt != nil || j.Error == "" {
		t.Errorf("between attempts it is %+v", j)
	}
	if s := h.stats(); s.RetryingJobs != 1 || s.Types["sad"].RetryingJobs != 1 || s.ActiveWorkers != 0 || s.QueuedJobs != 0 {
		t.Errorf("the stats are %+v", s)
	}
}

// TestContractProgress looks at a job while it runs.
func TestContractProgress(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": p}})
	id := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	h.await(id, "processing")
	begun := time.Now()
	for i := range 20_000 {
		pl.task.Progress(i/400, fmt.Sprintf("row %d of 40000", i))
	}
	pl.task.Progress(50, "half way")
	waitUntil(t, func() bool { return h.job(id).Message == "half way" })
	took := time.Since(begun)
	j := h.job(id)
	if j.Progress != 50 || j.Status != "processing" || j.Attempt != 1 || j.StartedAt == nil || j.EndedAt != nil {
		t.Errorf("while it runs it is %+v", j)
	}
	pl.finish()
	if j = h.await(id, "completed"); j.Progress != 100 {
		t.Errorf("at the end it is %+v", j)
	}
	reports := 0
	events, _ := h.events(id)
	for _, e := range events {
		if e.Kind == "progress" {
			reports++
		}
	}
	// ten a second, the first at once, and some slack for rounding
	if most := int(took/(100*time.Millisecond)) + 2; reports < 1 || reports > most {
		t.Errorf("%d reports were kept of a run of %v, at most %d expected", reports, took, most)
	}
}
