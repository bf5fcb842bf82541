package main

import (
	"net/http"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// TestContractLiveLimits changes the limits of a type while its jobs wait for them.
func TestContractLiveLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) {
		typ := c.Jobs["held"]
		typ.Rate = jobs.Rate{Count: 1, Per: 24 * time.Hour}
		c.Jobs["held"] = typ
		c.Worker.ShutdownGrace = 0
	}}
	h := open(t, dir, s)
	put := func(body string) *reply { return h.do(http.MethodPut, "/workers", body) }
	a, b := h.submit(`{"type":"held","concurrency_key":"k"}`), h.submit(`{"type":"held","concurrency_key":"k"}`)
	first := p.next(t)
	free := h.submit(`{"type":"held"}`)
	put(`{"types":{"held":{"rate":"1000/s","burst":10}}}`)
	if second := p.next(t); second.id() != free.ID {
		t.Errorf("job %s runs, which has a key", second.id())
	}
	typ := h.jobType(http.MethodGet, "held")
	if typ.Rate != "1000/s" || typ.Burst != 10 || typ.Sources["rate"] != "live" || typ.Sources["burst"] != "live" || typ.Sources["max_workers"] != "config" {
		t.Errorf("the type is %+v", typ)
	}
	put(`{"types":{"held":{"concurrency_per_key":2,"max_workers":7}}}`)
	c := h.submit(`{"type":"held","concurrency_key":"k"}`) // it brings all of its key a turn
	if next := p.next(t); next.id() != b.ID {
		t.Errorf("job %s is the second one with the key, want %s", next.id(), b.ID)
	}
	first.finish()
	h.await(a.ID, "completed")
	if next := p.next(t); next.id() != c.ID {
		t.Errorf("job %s is the last one with the key, want %s", next.id(), c.ID)
	}
	for body, pointer := range map[string]string{
		`{"types":{"held":{"rate":"fast"}}}`: "/types/held/rate", `{"types":{"held":{"burst":-1}}}`: "/types/held/burst", `{"types":{"held":{}}}`: "/types/held/max_workers",
		`{"types":{"held":{"concurrency_per_key":0}}}`: "/types/held/concurrency_per_key", `{"types":{"email":{"burst":3}}}`: "/types/email/burst",
		`{"types":{"held":{"rate":"5/s"},"email":{"speed":1}}}`: "/types/email/speed",
	} {
		put(body).wantPointer(t, pointer)
	}
	put(`{"types":{"nope":{"rate":"5/s"}}}`).wantProblem(t, 422, "unknown_type")
	if typ := h.jobType(http.MethodGet, "held"); typ.Rate != "1000/s" {
		t.Errorf("a refused change has an effect: %+v", typ)
	}
	h.jobType(http.MethodPost, "held/pause")
	before := h.jobType(http.MethodPost, "held/pause")
	if before.PausedBy != "anonymous" || before.PausedAt == nil || time.Since(*before.PausedAt) > time.Hour {
		t.Errorf("who has paused it: %+v", before)
	}
	h.close()
	h = open(t, dir, s)
	typ = h.jobType(http.MethodGet, "held")
	if typ.PausedBy != before.PausedBy || typ.PausedAt == nil || !typ.PausedAt.Equal(*before.PausedAt) {
		t.Errorf("after a restart it was paused by %s at %v", typ.PausedBy, typ.PausedAt)
	}
	if typ.Rate != "1/d" || typ.MaxWorkers != 0 || typ.Sources["rate"] != "config" {
		t.Errorf("the limits have outlived the server: %+v", typ)
	}
	if typ := h.jobType(http.MethodPost, "held/resume"); typ.Paused || typ.PausedBy != "" || typ.PausedAt != nil {
		t.Errorf("resumed: %+v", typ)
	}
}
