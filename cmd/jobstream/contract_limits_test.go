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

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// limited changes one type's settings.
func limited(name string, change func(*config.JobType)) func(*config.Config) {
	return func(c *config.Config) {
		k := c.Jobs[name]
		change(&k)
		c.Jobs[name] = k
	}
}

// TestContractRate: a type starts no more jobs than its rate lets it, and others
// are not held up.
func TestContractRate(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"slow": jobs.HandlerFunc(nothing), "free": jobs.HandlerFunc(nothing)},
		change: limited("slow", func(k *config.JobType) {
			k.Rate = jobs.Rate{Count: 10, Per: time.Second, Burst: 1}
		}),
	})
	var all []string
	for range 6 {
		all = append(all, h.submit(`{"type":"slow"}`).ID)
	}
	h.await(h.submit(`{"type":"free","priority":5}`).ID, "completed")
	var starts []time.Time
	for _, id := range all {
		starts = append(starts, *h.await(id, "completed").StartedAt)
	}
	slices.SortFunc(starts, time.Time.Compare)
	// A start's time is taken a moment after its turn.
	if took := starts[5].Sub(starts[0]); took < 450*time.Millisecond {
		t.Errorf("six jobs of a type that may start ten a second started within %v", took)
	}
}

// TestContractConcurrencyKey: a tenant has as many jobs running as it may, and
// its backlog keeps no other tenant out.
func TestContractConcurrencyKey(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"work": p},
		change:   limited("work", func(k *config.JobType) { k.ConcurrencyPerKey = 2 }),
	})
	tenant := make(map[string]string)
	for i := range 7 {
		who := "a"
		if i > 4 {
			who = "b"
		}
		tenant[h.submit(`{"type":"work","concurrency_key":%q}`, who).ID] = who
	}
	running, waiting := make(map[string]int), map[string]int{"a": 5, "b": 2}
	var plays []*play
	take := func() {
		pl := p.next(t)
		plays = append(plays, pl)
		running[tenant[pl.id()]]++
		waiting[tenant[pl.id()]]--
	}
	for range 4 {
		take()
	}
	if running["a"] != 2 || running["b"] != 2 {
		t.Fatalf("running are %v, want two of each", running)
	}
	runs := func(id string) bool {
		return slices.ContainsFunc(plays, func(pl *play) bool { return pl.id() == id })
	}
	held := ""
	for id, who := range tenant {
		if who == "a" && !runs(id) { // by its handler: the record of a start comes a little later
			held = id
		}
	}
	if r := h.do(http.MethodGet, "/jobs/"+held, ""); !strings.Contains(string(r.body), `"waiting":{"reason":"key_limit"`) {
		t.Errorf("a job whose key is taken does not say so: %s", r.body)
	}
	for len(plays) > 0 {
		pl := plays[0]
		plays = plays[1:]
		who := tenant[pl.id()]
		running[who]--
		pl.finish()
		h.await(pl.id(), "completed")
		if waiting[who] > 0 { // its turn goes to the next one of the tenant
			take()
		}
		if running["a"] > 2 || running["b"] > 2 {
			t.Fatalf("running are %v", running)
		}
	}
}

// submitRunning submits a job with a deadline, in seconds, and waits until it runs. A
// slow machine may let the deadline pass before that: the next job has twice as much.
func (h *house) submitRunning(p *puppet, kind string, deadline float64) *seen {
	h.t.Helper()
	for {
		j := h.submit(`{"type":%q,"deadline":%g,"retry_count":5}`, kind, deadline)
		waitUntil(h.t, func() bool { return len(p.stage) > 0 || h.job(j.ID).EndedAt != nil })
		if len(p.stage) > 0 {
			p.next(h.t)
			return j
		}
		deadline *= 2
	}
}

// TestContractTimeLimits: expiry and deadline end jobs that wait and that run.
func TestContractTimeLimits(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": p, "paused": jobs.HandlerFunc(nothing)}})
	if r := h.do(http.MethodPost, "/types/paused/pause", ""); r.code != http.StatusOK {
		t.Fatalf("%d: %s", r.code, r.body)
	}
	expiring := h.submit(`{"type":"paused","ttl":0.3}`)
	late := h.submit(`{"type":"paused","deadline":0.3}`)
	running := h.submitRunning(p, "held", 0.5)
	started := h.submit(`{"type":"held","ttl":20}`)
	second := p.next(t)
	if second.id() != started.ID {
		t.Fatalf("job %s started second, want %s", second.id(), started.ID)
	}
	for _, c := range []struct{ id, status, reason string }{
		{expiring.ID, "cancelled", "expired"}, {late.ID, "failed", "deadline exceeded"}, {running.ID, "failed", "deadline exceeded"},
	} {
		if j := h.await(c.id, c.status); !strings.HasPrefix(j.Error, c.reason) {
			t.Errorf("%s with the error %q, want one that begins with %q", c.status, j.Error, c.reason)
		}
	}
	second.finish()
	h.await(started.ID, "completed")
}

// TestContractScaling: with min_workers the pool grows with its load, and says so.
func TestContractScaling(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"held": p},
		change:   func(c *config.Config) { c.Worker.MinWorkers, c.Worker.MaxWorkers = 1, 6 },
	})
	if s := h.stats(); s.Workers != 1 || s.MinWorkers != 1 || s.MaxWorkers != 6 {
		t.Errorf("at first: %+v", s)
	}
	for range 8 {
		h.submit(`{"type":"held"}`)
	}
	var plays []*play
	for range 6 {
		plays = append(plays, p.next(t))
	}
	h.awaitStats(func(s *api.Stats) bool { return s.Workers == 6 && s.ActiveWorkers == 6 && s.QueuedJobs == 2 })
	for _, pl := range plays {
		pl.finish()
	}
	for range 2 {
		p.next(t).finish()
	}
	h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs == 8 })
}

// TestContractSearch: jobs are found by what stands in their errors and payloads.
func TestContractSearch(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"good": jobs.HandlerFunc(nothing),
		"bad": jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
			return jobs.Result{}, jobs.Permanent(errors.New("the Disk of " + string(task.Job.Payload) + " is full"))
		}),
	}})
	ids := make(map[string]string)
	for i := range 5 {
		name := fmt.Sprintf("machine-%d", i)
		ids["good "+name] = h.submit(`{"type":"good","payload":{"name":%q},"tags":["x"]}`, name).ID
		ids["bad "+name] = h.submit(`{"type":"bad","payload":%q}`, name).ID
	}
	for key, id := range ids {
		status := "completed"
		if strings.HasPrefix(key, "bad") {
			status = "failed"
		}
		h.await(id, status)
	}
	for query, want := range map[string]int{
		"error=disk": 5, "error=MACHINE-3": 1, "payload=machine": 10, "payload=Machine-2": 2, "payload=machine-2&type=good": 1,
		"payload=machine-2&status=failed": 1, "error=none": 0, "tag=x&payload=machine-4": 1,
		"ended_after=2020-01-01": 10, "ended_before=2020-01-01": 0,
	} {
		found, next := h.list("?" + query)
		if len(found) != want || next != "" {
			t.Errorf("%s finds %d jobs, next %q; want %d", query, len(found), next, want)
		}
	}
}

// TestContractPages: pages of large jobs end early, over REST as over NATS, and all of
// them together are the whole list.
func TestContractPages(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"big": jobs.HandlerFunc(nothing)}})
	payload := strings.Repeat("x", 900_000)
	var want []string
	for range 12 {
		want = append(want, h.submit(`{"type":"big","payload":%q}`, payload).ID)
	}
	slices.Reverse(want)
	waitUntil(t, func() bool { return h.stats().CompletedJobs == 12 })
	type page struct {
		Jobs []struct {
			ID      string
			Payload string
		}
		Next string `json:"next_cursor"`
	}
	nc := h.dial()
	and := func(cursor string) string {
		if cursor == "" {
			return ""
		}
		return "&cursor=" + cursor
	}
	for door, ask := range map[string]struct {
		most, pages int
		get         func(cursor string) []byte
	}{
		"REST": {8<<20 + 1000, 2, func(cursor string) []byte {
			if r := h.do(http.MethodHead, "/jobs?limit=500"+and(cursor), ""); r.code != http.StatusOK || len(r.body) != 0 {
				t.Errorf("HEAD: %d", r.code)
			}
			return h.do(http.MethodGet, "/jobs?limit=500"+and(cursor), "").body
		}},
		"NATS": {2 << 20, 6, func(cursor string) []byte {
			return h.call(nc, "list", strings.Replace(fmt.Sprintf(`{"limit":500,"cursor":%q}`, cursor), `,"cursor":""`, "", 1)).Data
		}},
	} {
		var got []string
		pages, cursor := 0, ""
		for {
			var p page
			body := ask.get(cursor)
			pages++
			mustDo(t, json.Unmarshal(body, &p))
			if len(body) > ask.most {
				t.Errorf("%s: a page has %d bytes", door, len(body))
			}
			for _, j := range p.Jobs {
				got = append(got, j.ID)
				if j.Payload != payload {
					t.Errorf("%s: a payload of %d bytes", door, len(j.Payload))
				}
			}
			if cursor = p.Next; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) || pages != ask.pages {
			t.Errorf("%s: %d jobs on %d pages, want %d on %d", door, len(got), pages, len(want), ask.pages)
		}
	}
	// The answer to a batch repeats its payloads with as much again around them.
	batch := `{"jobs":[` + strings.TrimSuffix(strings.Repeat(`{"type":"big"},`, jobs.MaxBatch), ",") + `]}`
	if m := h.call(nc, "batch", batch); m.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("a batch is answered with %.200s", m.Data)
	}
}
