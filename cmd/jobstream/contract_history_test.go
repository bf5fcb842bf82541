package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
	jobfigures "jobstream/jobs/figures"
)

// pastOf is an answer of GET /stats/history.
type pastOf struct {
	Range   string
	Step    int `json:"step_seconds"`
	From    string
	Periods int
	Total   map[string][]*float64
	Types   map[string]map[string][]*float64
}

func parsePast(t *testing.T, body []byte) (p pastOf) {
	t.Helper()
	mustDo(t, json.Unmarshal(body, &p))
	for name, columns := range p.Types {
		if len(columns) != 14 {
			t.Fatalf("%s has %d columns", name, len(columns))
		}
		for column, values := range columns {
			if len(values) != p.Periods {
				t.Fatalf("%s of %s has %d of %d periods", column, name, len(values), p.Periods)
			}
		}
	}
	return p
}

// sum adds up a column. counted is how many periods were counted.
func sum(column []*float64) (sum float64, counted int) {
	for _, v := range column {
		if v != nil {
			sum += *v
			counted++
		}
	}
	return sum, counted
}

// TestContractHistory counts what jobs do by the second, over a clean stop.
func TestContractHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"work": p}}
	h := open(t, dir, s)
	get := func(query string) pastOf {
		t.Helper()
		r := h.do(http.MethodGet, "/stats/history"+query, "")
		if r.code != http.StatusOK {
			t.Fatalf("the history is answered with %d: %s", r.code, r.body)
		}
		return parsePast(t, r.body)
	}
	awaitPast := func(typ, column string, want float64) {
		t.Helper()
		waitUntil(t, func() bool { got, _ := sum(get("").Types[typ][column]); return got == want })
	}
	h.submit(`{"type":"work"}`)
	h.submit(`{"type":"work","delay":"1h"}`)
	failing := h.submit(`{"type":"work","retry_count":1}`)
	first := p.next(t)
	p.next(t).end <- os.ErrInvalid
	awaitPast("work", "retried", 1)
	p.next(t).end <- os.ErrInvalid
	h.await(failing.ID, "failed")
	first.finish()
	h.await(first.id(), "completed")
	awaitPast("work", "done", 1)
	awaitPast("work", "failed", 1)
	awaitPast("work", "in", 3)
	past := get("?range=5m&type=work")
	if past.Range != "5m" || past.Step != 1 || past.Periods != 300 || len(past.Types) != 1 {
		t.Errorf("the history is %s by %d s, with %d periods of %d types", past.Range, past.Step, past.Periods, len(past.Types))
	}
	_, ran := sum(past.Types["work"]["run_p95"])
	if _, counted := sum(past.Types["work"]["in"]); counted == 0 || counted == 300 || ran == 0 || ran > 3 {
		t.Errorf("%d periods were counted, in %d an attempt ended", counted, ran)
	}
	for query, want := range map[string]string{
		"?range=2h": "/range", "?type=": "/type", "?step=1": "/step", "?range=5m&range=1h": "/range",
	} {
		if r := h.do(http.MethodGet, "/stats/history"+query, ""); r.code != http.StatusUnprocessableEntity || !strings.Contains(string(r.body), `"pointer":"query`+want) {
			t.Errorf("%s is answered with %d: %s", query, r.code, r.body)
		}
	}

	h.close()
	h = open(t, dir, s)
	awaitPast("work", "done", 1)
	for _, span := range []string{"1h", "24h"} {
		h.submit(`{"type":"work"}`)
		p.next(t).finish()
		past := get("?range=" + span)
		if past.Range != span || past.Periods*past.Step != map[string]int{"1h": 3600, "24h": 24 * 3600}[span] {
			t.Errorf("the history of %s has %d periods of %d s", span, past.Periods, past.Step)
		}
	}
	awaitPast("work", "done", 3)
}

// TestCrashHistory kills the server again and again. What it has shown of the past is
// still there, and damage of the file does not keep it from starting.
func TestCrashHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var stored float64
	for life := range 3 {
		c := startChild(t, dir)
		look := func() float64 {
			var raw json.RawMessage
			get(t, c.rest+"/stats/history", &raw)
			n, _ := sum(parsePast(t, raw).Total["in"])
			return n
		}
		shown := look()
		if shown < stored {
			t.Errorf("life %d shows %v jobs of the last minutes, the one before had stored %v", life, shown, stored)
		}
		for range 2 { // a second is stored before the next one is shown
			stored = shown
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.rest+"/jobs", strings.NewReader(`{"type":"quick"}`))
			mustDo(t, err)
			resp, err := http.DefaultClient.Do(req)
			mustDo(t, err)
			mustDo(t, resp.Body.Close())
			if resp.StatusCode != http.StatusAccepted {
				t.Fatalf("a job is answered with %s", resp.Status)
			}
			waitUntil(t, func() bool { shown = look(); return shown > stored })
		}
		c.kill()
	}
	path := filepath.Join(dir, "data", "figures.log")
	content, err := os.ReadFile(path)
	mustDo(t, err)
	mustDo(t, os.WriteFile(path, append(content[:len(content)/2], "nonsense"...), 0o600))
	c := startChild(t, dir)
	mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
	mustDo(t, <-c.done)
}

// TestContractBacklog asks how long jobs have waited, and for what, of each type and
// priority, and what happened in the last minute. Waits count from when a job is due.
func TestContractBacklog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{
		handlers: map[string]jobs.Handler{"work": p, "idle": jobs.HandlerFunc(nothing)},
		change:   limited("work", func(k *config.JobType) { k.MaxWorkers = 1 }),
	}
	h := open(t, dir, s)
	type backlog struct {
		api.Backlog
		Name       string
		Priorities map[string]struct {
			Waiting int
			Oldest  float64 `json:"oldest_seconds"`
		}
	}
	look := func() (b backlog) {
		t.Helper()
		r := h.do(http.MethodGet, "/types/work", "")
		mustDo(t, json.Unmarshal(r.body, &b))
		return b
	}
	await := func(what string, reasons map[string]int) {
		t.Helper()
		var b backlog
		waitUntil(t, func() bool { b = look(); return maps.Equal(b.Reasons, reasons) })
		st := h.stats()
		if !maps.Equal(st.Types["work"].Reasons, reasons) || !maps.Equal(st.Reasons, reasons) {
			t.Errorf("%s: the stats have %v of all, and %v of the type; want %v", what, st.Reasons, st.Types["work"].Reasons, reasons)
		}
		if oldest := st.Types["work"].OldestSeconds; b.OldestSeconds == 0 || oldest < b.OldestSeconds || st.OldestSeconds != oldest {
			t.Errorf("%s: the oldest has waited %v s, then %v s, and of all %v s", what, b.OldestSeconds, oldest, st.OldestSeconds)
		}
	}
	first := h.submit(`{"type":"work","delay":0.3}`)
	running := p.next(t)
	for _, body := range []string{`"priority":1`, `"priority":1`, `"priority":5`, `"delay":"1h"`} {
		h.submit(`{"type":"work",%s}`, body)
	}
	await("at the limit", map[string]int{"type_limit": 3, "scheduled": 1})
	b := look()
	if n := b.Priorities; len(n) != 5 || n["1"].Waiting != 2 || n["5"].Waiting != 1 || n["3"].Waiting != 0 || n["1"].Oldest == 0 || n["3"].Oldest != 0 || n["5"].Oldest > n["1"].Oldest {
		t.Errorf("by priority there wait %+v", n)
	}
	if r := h.do(http.MethodPost, "/types/work/pause", ""); r.code != http.StatusOK {
		t.Fatalf("%d: %s", r.code, r.body)
	}
	await("paused", map[string]int{"type_paused": 3, "scheduled": 1})
	before := look().OldestSeconds
	running.finish()
	done := h.await(first.ID, "completed")
	var lately jobfigures.Period
	waitUntil(t, func() bool { lately = h.stats().Types["work"].LastMinute; return lately.Done == 1 })
	waited := done.StartedAt.Sub(done.CreatedAt.Add(300 * time.Millisecond)).Seconds()
	if lately.Wait == nil || lately.Run == nil || lately.Wait.P50 > waited*1.05+0.001 {
		t.Errorf("in the last minute: %+v, waits %+v; the job was due %v s before its start", lately, lately.Wait, waited)
	}
	waitUntil(t, func() bool { return h.stats().Node.DiskFree > 0 }) // it is looked at each second
	if n := h.stats().Node; n.TrackerBytes == 0 || n.JournalBytes == 0 || len(n.Streams) != 3 || n.Streams["JOBS"].Messages == 0 || n.Streams["NOTIFICATIONS"].Bytes == 0 {
		t.Errorf("the node: %+v", n)
	}
	h.close()

	h = open(t, dir, s)
	await("after a restart", map[string]int{"type_paused": 3, "scheduled": 1})
	if again := look().OldestSeconds; again < before {
		t.Errorf("the oldest has waited for %v s, and before the restart for %v s", again, before)
	}
	if st := h.stats(); st.Types["idle"].OldestSeconds != 0 || len(st.Types["idle"].Reasons) != 0 {
		t.Errorf("of a type without jobs there wait %+v", st.Types["idle"].Backlog)
	}
}
