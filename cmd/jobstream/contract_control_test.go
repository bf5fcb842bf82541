package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// counted is a handler that counts how often it runs.
type counted struct{ n atomic.Int64 }

func (c *counted) Handle(context.Context, *jobs.Task) (jobs.Result, error) {
	c.n.Add(1)
	return jobs.Result{}, nil
}

// batchOf is what a batch is answered with.
func batchOf(t *testing.T, body []byte) (ids []string) {
	t.Helper()
	var answer struct{ Jobs []*seen }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Jobs == nil {
		t.Fatalf("not a batch: %v: %s", err, body)
	}
	for _, j := range answer.Jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

// keyed makes a request of the service with an idempotency key; it may be called
// from any goroutine.
func keyed(nc *nats.Conn, endpoint, body, key string) (*nats.Msg, error) {
	m := nats.NewMsg("jobstream." + endpoint)
	m.Data = []byte(body)
	m.Header.Set("Idempotency-Key", key)
	return nc.RequestMsg(m, patience)
}

// totals are the answer of /jobs/counts.
type totals struct {
	Total    int
	Statuses map[string]int
	Types    map[string]map[string]int // "total" and the statuses
}

func (c *totals) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	c.Statuses = make(map[string]int)
	for name, raw := range fields {
		var err error
		switch name {
		case "total":
			err = json.Unmarshal(raw, &c.Total)
		case "types":
			err = json.Unmarshal(raw, &c.Types)
		default:
			var n int
			err = json.Unmarshal(raw, &n)
			c.Statuses[name] = n
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *house) counts(query string) *totals {
	h.t.Helper()
	var c totals
	r := h.do(http.MethodGet, "/jobs/counts"+query, "")
	if r.code != http.StatusOK {
		h.t.Fatalf("the counts of %q are answered with %d: %s", query, r.code, r.body)
	}
	mustDo(h.t, json.Unmarshal(r.body, &c))
	return &c
}

// TestContractIdempotency makes the same request from fifty sides at once, through
// each door: each gets the one job, now and after a restart.
func TestContractIdempotency(t *testing.T) {
	t.Parallel()
	const clients = 50
	dir := t.TempDir()
	quick := &counted{}
	s := setup{handlers: map[string]jobs.Handler{"quick": quick}}
	h := open(t, dir, s)
	requests := map[string]string{"submit": `{"type":"quick","payload":{"a":1}}`, "batch": `{"jobs":[{"type":"quick"},{"type":"quick","priority":1}]}`}
	paths := map[string]string{"submit": "/jobs", "batch": "/jobs/batch"}
	first := map[string]string{} // by door and request, what the first one got
	same := func(name, body string) {
		t.Helper()
		var got struct {
			ID   string
			Jobs []struct{ ID string }
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s is answered with %s", name, body)
		}
		ids := fmt.Sprint(got.ID, got.Jobs)
		if first[name] == "" {
			first[name] = ids
		}
		if ids != first[name] {
			t.Errorf("%s brought %s, another %s", name, ids, first[name])
		}
	}
	round := func(h *house, known bool) {
		t.Helper()
		nc := h.dial()
		for what, body := range requests {
			var mu sync.Mutex
			replays := 0
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					r, err := h.try(t.Context(), http.MethodPost, paths[what], body, "Idempotency-Key", "key-"+what)
					if err != nil || r.code != http.StatusAccepted {
						t.Errorf("%s: %+v, %v", what, r, err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					same("REST "+what, string(r.body))
					if r.header.Get("Idempotent-Replay") == "true" {
						replays++
					}
				})
				all.Go(func() {
					m, err := keyed(nc, what, body, "key-"+what)
					if err != nil || m.Header.Get("Nats-Service-Error-Code") != "" {
						t.Errorf("%s: %+v, %v", what, m, err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					same("NATS "+what, string(m.Data))
				})
			}
			all.Wait()
			if want := map[bool]int{true: clients, false: clients - 1}[known]; replays != want {
				t.Errorf("%s: %d of %d answers are marked as replays, want %d", what, replays, clients, want)
			}
			other := strings.Replace(body, `"type"`, `"retry_count":1,"type"`, 1)
			h.do(http.MethodPost, paths[what], other, "Idempotency-Key", "key-"+what).wantProblem(t, 422, "idempotency_mismatch")
			m, err := keyed(nc, what, other, "key-"+what)
			mustDo(t, err)
			wantProblem(t, m.Data, 422, "idempotency_mismatch")
		}
	}
	round(h, false)
	waitUntil(t, func() bool { return h.stats().CompletedJobs == 6 })
	h.close()
	h = open(t, dir, s)
	round(h, true)
	if c := h.counts(""); c.Total != 6 || c.Statuses["completed"] != 6 || quick.n.Load() != 6 {
		t.Errorf("there are %+v, and %d ran; want 6", c, quick.n.Load())
	}
	other := h.do(http.MethodPost, "/jobs", requests["submit"], "Idempotency-Key", "another")
	if other.code != http.StatusAccepted || other.header.Get("Idempotent-Replay") != "" || strings.Contains(first["REST submit"], readJob(t, other.body).ID) {
		t.Errorf("another key gets %d %s", other.code, other.body)
	}
	// The answer for a deleted job has what is still known of it, and it does not run
	// again.
	id := readJob(t, other.body).ID
	h.await(id, "completed")
	deletedIsReplayed := func() {
		t.Helper()
		after := h.do(http.MethodPost, "/jobs", `{"payload":{"a":1.0}, "type":"quick","delay":null}`, "Idempotency-Key", "another", "Prefer", "wait=1")
		if after.code != http.StatusAccepted || after.header.Get("Idempotent-Replay") != "true" {
			t.Fatalf("the key of a deleted job gets %d %v %s", after.code, after.header, after.body)
		}
		if j := readJob(t, after.body); j.ID != id || j.Type != "quick" || !strings.Contains(j.Message, "deleted") || j.Seq != 0 {
			t.Errorf("the key of a deleted job gets %s", after.body)
		}
		h.do(http.MethodPost, "/jobs", `{"type":"quick","payload":{"a":2}}`, "Idempotency-Key", "another").wantProblem(t, 422, "idempotency_mismatch")
		m, err := keyed(h.dial(), "batch", requests["batch"], "key-batch")
		mustDo(t, err)
		var ids []string
		for _, id := range batchOf(t, m.Data) {
			ids = append(ids, "{"+id+"}")
		}
		if got := "[" + strings.Join(ids, " ") + "]"; got != first["NATS batch"] {
			t.Errorf("the batch with deleted jobs gets %s, want %s", got, first["NATS batch"])
		}
	}
	h.do(http.MethodDelete, "/jobs/"+id, "")
	deletedIsReplayed()
	r := h.do(http.MethodPost, "/jobs/bulk", `{"action":"delete","all":true}`, "Prefer", "wait=30")
	h.await(readJob(t, r.body).ID, "completed")
	deletedIsReplayed()
	h.close()
	h = open(t, dir, s)
	deletedIsReplayed()
	if n := quick.n.Load(); n != 7 {
		t.Errorf("%d ran, want 7", n)
	}
}

// TestContractRunOnce uses idempotency keys for a schedule's run by hand and for a bulk
// change. Each key makes one job, and refuses another request.
func TestContractRunOnce(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"quick": &counted{}}})
	for _, name := range []string{"a", "b"} {
		h.do(http.MethodPost, "/schedules", `{"name":"`+name+`","cron":"0 0 1 1 *","type":"quick"}`)
	}
	for path, body := range map[string]string{"/schedules/a/run": "", "/jobs/bulk": `{"action":"delete","filter":{"type":"quick","status":"failed"}}`} {
		first := ""
		for i := range 3 {
			r := h.do(http.MethodPost, path, body, "Idempotency-Key", path)
			if r.code != http.StatusAccepted || (r.header.Get("Idempotent-Replay") == "true") != (i > 0) {
				t.Fatalf("%s is answered with %d %v %s", path, r.code, r.header, r.body)
			}
			id := readJob(t, r.body).ID
			if first == "" {
				first = id
				h.await(id, "completed")
			}
			if id != first {
				t.Errorf("%s made the jobs %s and %s", path, first, id)
			}
		}
	}
	h.do(http.MethodPost, "/schedules/b/run", "", "Idempotency-Key", "/schedules/a/run").wantProblem(t, 422, "idempotency_mismatch")
	h.do(http.MethodPost, "/jobs", `{"type":"quick"}`, "Idempotency-Key", "/schedules/a/run").wantProblem(t, 422, "idempotency_mismatch")
	h.do(http.MethodPost, "/schedules/a/run", "", "Idempotency-Key", " ").wantProblem(t, 422, "invalid_request")
}

// TestContractFoundBySeq asks for jobs by the sequence of the stream's answer, at
// once, in every way.
func TestContractFoundBySeq(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"quick": &counted{}}})
	nc := h.dial()
	for i := range 200 {
		seq := h.accepted(nc, "jobs.quick", `{}`, "Job-Delay", "1h")
		path := fmt.Sprintf("/jobs/%d", seq)
		code := 0
		switch i % 6 {
		case 0:
			code = h.do(http.MethodGet, path, "").code
		case 1:
			code = h.do(http.MethodGet, path+"/events", "").code
		case 2:
			code = h.do(http.MethodGet, path+"?wait=0", "").code
		case 3:
			code = h.do(http.MethodPost, path+"/cancel", "").code - 2 // 202
		case 4:
			m := h.call(nc, "get", fmt.Sprintf(`{"id":%d}`, seq))
			code = http.StatusOK
			if m.Header.Get("Nats-Service-Error-Code") != "" {
				t.Errorf("jobstream.get of %d: %s", seq, m.Data)
			}
		case 5: // found, and not to be retried or deleted
			code = h.do(http.MethodPost, path+"/retry", "").code - 209 // 409
			if c := h.do(http.MethodDelete, path, "").code; c != http.StatusConflict {
				t.Errorf("DELETE %s: %d", path, c)
			}
		}
		if code != http.StatusOK {
			t.Fatalf("request %d for %s: %d", i%6, path, code)
		}
	}
	h.do(http.MethodGet, "/jobs/100000", "").wantProblem(t, 404, "not_found")
}

// TestContractUniqueKey has one unfinished job at a time hold a key.
func TestContractUniqueKey(t *testing.T) {
	t.Parallel()
	const body = `{"type":"held","unique_key":"order 7"}`
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.ShutdownGrace = 0 }}
	h := open(t, dir, s)
	var mu sync.Mutex
	var taken []string
	var refused []*reply
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			r, err := h.try(t.Context(), http.MethodPost, "/jobs", body)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
			case r.code == http.StatusAccepted:
				id, _ := idIn(r.body)
				taken = append(taken, id)
			default:
				refused = append(refused, r)
			}
		})
	}
	all.Wait()
	if len(taken) != 1 {
		t.Fatalf("%d of 20 were taken", len(taken))
	}
	duplicate := func(r *reply) {
		t.Helper()
		r.wantProblem(t, http.StatusConflict, "duplicate")
		var p struct {
			JobID string `json:"job_id"`
		}
		mustDo(t, json.Unmarshal(r.body, &p))
		if p.JobID != taken[0] || r.header.Get("Location") != "/jobs/"+taken[0] {
			t.Errorf("the problem is %s with the Location %q, want job %s", r.body, r.header.Get("Location"), taken[0])
		}
	}
	for _, r := range refused {
		duplicate(r)
	}
	p.next(t)
	h.close()
	h = open(t, dir, s)
	pl := p.next(t)
	duplicate(h.do(http.MethodPost, "/jobs", body))
	duplicate(h.do(http.MethodPost, "/jobs/batch", `{"jobs":[{"type":"held"},`+body+`]}`))
	pl.finish()
	h.await(taken[0], "completed")
	again := h.submit(body).ID
	if again == taken[0] {
		t.Error("the key brought the ended job back")
	}
	p.next(t).finish()
	h.await(again, "completed")
	if c := h.counts(""); c.Total != 2 {
		t.Errorf("there are %+v", c)
	}
}

// TestContractBatch submits many jobs at once: all or none.
func TestContractBatch(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing), "held": newPuppet()},
		change:   func(c *config.Config) { c.Worker.QueueSize, c.Worker.ShutdownGrace = 2000, 0 },
	})
	nc := h.dial()
	list := func(n int, last string) string {
		return `{"jobs":[` + strings.Repeat(`{"type":"quick","tags":["b"]},`, n) + last + `]}`
	}
	holder := h.submit(`{"type":"held","unique_key":"k"}`)
	for _, try := range []struct {
		last, code string
		status     int
	}{
		{`{"type":"nope"}`, "unknown_type", 422},
		{`{"type":"quick","priority":0}`, "invalid_request", 422},
		{`{"type":"email","payload":{}}`, "invalid_request", 422},
		{`{"type":"quick","unique_key":"k"}`, "duplicate", 409},
		{`5`, "invalid_request", 422},
	} {
		h.do(http.MethodPost, "/jobs/batch", list(999, try.last)).wantProblem(t, try.status, try.code)
		wantProblem(t, h.call(nc, "batch", list(999, try.last)).Data, try.status, try.code)
	}
	h.do(http.MethodPost, "/jobs/batch", list(1000, `{"type":"quick"}`)).wantProblem(t, 422, "invalid_request")
	if c := h.counts("?tag=b"); c.Total != 0 {
		t.Errorf("refused batches left %+v", c)
	}
	r := h.do(http.MethodPost, "/jobs/batch", list(999, `{"type":"quick","tags":["b","last"],"delay":"1h"}`))
	if r.code != http.StatusAccepted {
		t.Fatalf("a batch is answered with %d: %.500s", r.code, r.body)
	}
	ids := batchOf(t, r.body)
	if c := h.counts("?tag=b"); c.Total != 1000 || c.Statuses["scheduled"] != 1 {
		t.Errorf("after its 202 there are %+v", c)
	}
	waitUntil(t, func() bool { return h.counts("?tag=b").Statuses["completed"] == 999 })
	inOrder := h.pages("tag=b", "asc", 500)
	if !slices.Equal(ids, inOrder) {
		t.Error("the jobs do not stand in the order of the batch")
	}
	if last := h.job(ids[999]); last.Status != "scheduled" || !slices.Contains(last.Tags, "last") {
		t.Errorf("the last one is %+v", last)
	}
	m := h.call(nc, "batch", list(999, `{"type":"quick","tags":["b"]}`))
	if n := len(batchOf(t, m.Data)); n != 1000 {
		t.Errorf("a batch over NATS made %d jobs", n)
	}
	waitUntil(t, func() bool { return h.counts("?tag=b").Statuses["completed"] == 1999 })

	// A batch that does not fit as a whole is refused as a whole.
	many := `{"jobs":[` + strings.Repeat(`{"type":"held","tags":["f"]},`, 999) + `{"type":"held","tags":["f"]}]}`
	if r := h.do(http.MethodPost, "/jobs/batch", many); r.code != http.StatusAccepted {
		t.Fatalf("a batch is answered with %d: %.500s", r.code, r.body)
	}
	h.do(http.MethodPost, "/jobs/batch", many).wantProblem(t, 429, "queue_full")
	if c := h.counts("?tag=f"); c.Total != 1000 || h.job(holder.ID).EndedAt != nil {
		t.Errorf("there are %+v", c)
	}
}

// TestContractWait waits for the ends of jobs in all ways.
func TestContractWait(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"held": p, "quick": jobs.HandlerFunc(nothing), "bad": jobs.HandlerFunc(failing),
	}})
	nc := h.dial()
	var waiting sync.WaitGroup
	status := func(name string, body []byte, want string) {
		var j seen
		if err := json.Unmarshal(body, &j); err != nil || j.Status != want {
			t.Errorf("%s shows %s, want %s (%v)", name, body, want, err)
		}
	}
	get := func(name, path, want string) {
		r, err := h.try(t.Context(), http.MethodGet, path, "")
		if err != nil || r.code != http.StatusOK {
			t.Errorf("%s: %+v, %v", name, r, err)
			return
		}
		status(name, r.body, want)
	}
	request := func(name, endpoint, body, want string) {
		m, err := nc.Request("jobstream."+endpoint, []byte(body), patience)
		if err != nil || m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Errorf("%s: %+v, %v", name, m, err)
			return
		}
		status(name, m.Data, want)
	}

	j := h.submit(`{"type":"held"}`)
	pl := p.next(t)
	start := time.Now()
	get("a short wait", "/jobs/"+j.ID+"?wait=200ms", "processing")
	request("a short wait", "get", `{"id":"`+j.ID+`","wait":"200ms"}`, "processing")
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("two waits of 200 ms took %s", took)
	}
	waiting.Go(func() { get("by id", "/jobs/"+j.ID+"?wait=10m", "completed") })
	waiting.Go(func() { get("by seq", fmt.Sprintf("/jobs/%d?wait=600", j.Seq), "completed") })
	waiting.Go(func() { request("get", "get", `{"id":"`+j.ID+`","wait":600}`, "completed") })
	pl.finish()
	waiting.Wait()
	get("an ended job", "/jobs/"+j.ID+"?wait=10m", "completed")

	for kind, want := range map[string]string{"quick": "completed", "bad": "failed"} {
		r := h.do(http.MethodPost, "/jobs", `{"type":"`+kind+`","retry_count":0}`, "Prefer", "respond-async, wait=40")
		if r.code != http.StatusOK || r.header.Get("Preference-Applied") != "wait=40" || r.header.Get("Location") == "" {
			t.Errorf("Prefer is answered with %d %v", r.code, r.header)
		}
		status("Prefer", r.body, want)
		request("run", "run", `{"type":"`+kind+`","retry_count":0}`, want)
	}
	r := h.do(http.MethodPost, "/jobs", `{"type":"held"}`, "Prefer", "wait=1")
	if r.code != http.StatusAccepted || r.header.Get("Preference-Applied") != "" {
		t.Errorf("a preference that came to nothing is answered with %d %v", r.code, r.header)
	}
	p.next(t).finish()
	h.await(readJob(t, r.body).ID, "completed")
	m, err := keyed(nc, "run", `{"type":"quick"}`, "once")
	mustDo(t, err)
	again, err := keyed(nc, "run", `{"type":"quick"}`, "once")
	mustDo(t, err)
	if string(m.Data) != string(again.Data) {
		t.Errorf("run with a key brought %s, then %s", m.Data, again.Data)
	}
}

// TestContractManyWait has more requests wait than the service answers at a time.
func TestContractManyWait(t *testing.T) {
	t.Parallel()
	const clients = 400
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": p}, change: one})
	nc := h.dial()
	j := h.submit(`{"type":"held"}`)
	pl := p.next(t)
	answers, err := nc.SubscribeSync(nc.NewInbox())
	mustDo(t, err)
	for range clients {
		// one after the other: the next one comes when this one waits
		mustDo(t, nc.PublishRequest("jobstream.get", answers.Subject, []byte(`{"id":"`+j.ID+`","wait":"10m"}`)))
		if m := h.call(nc, "get", `{"id":"`+j.ID+`"}`); m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Fatalf("while others wait: %s", m.Data)
		}
	}
	pl.finish()
	for range clients {
		m, err := answers.NextMsg(patience)
		mustDo(t, err)
		if got := readJob(t, m.Data); got.Status != "completed" {
			t.Errorf("one that waited got %s", m.Data)
		}
	}
}

// TestContractStopEndsWaits stops the server while clients wait: they get their
// jobs as they are, at once.
func TestContractStopEndsWaits(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": p}})
	nc := h.dial()
	j := h.submit(`{"type":"held"}`)
	pl := p.next(t)
	h.await(j.ID, "processing")
	answers, err := nc.SubscribeSync(nc.NewInbox())
	mustDo(t, err)
	mustDo(t, nc.PublishRequest("jobstream.get", answers.Subject, []byte(`{"id":"`+j.ID+`","wait":"10m"}`)))
	mustDo(t, nc.PublishRequest("jobstream.run", answers.Subject, []byte(`{"type":"held"}`)))
	other := p.next(t) // so run has submitted it
	h.await(other.id(), "processing")
	var waiting sync.WaitGroup
	waiting.Go(func() {
		r, err := h.try(t.Context(), http.MethodGet, "/jobs/"+j.ID+"?wait=10m", "")
		if err != nil || r.code != http.StatusOK || readJob(t, r.body).Status != "processing" {
			t.Errorf("the lookup got %+v, %v", r, err)
		}
	})
	waitUntil(t, func() bool { return h.call(nc, "get", `{"id":"`+j.ID+`"}`) != nil }) // the requests before it have come
	h.end()
	waiting.Wait()
	for range 2 {
		m, err := answers.NextMsg(patience)
		mustDo(t, err)
		if got := readJob(t, m.Data); got.Status != "processing" {
			t.Errorf("a request of the service got %s", m.Data)
		}
	}
	if pl.ctx.Err() != nil || other.ctx.Err() != nil {
		t.Error("the jobs were interrupted within their grace")
	}
	pl.finish()
	other.finish()
	h.awaitEnd()
}

// deaf is a handler that does not hear that its job is cancelled.
type deaf struct{ started, release chan struct{} }

func newDeaf() *deaf { return &deaf{make(chan struct{}, 100), make(chan struct{})} }

func (d *deaf) Handle(context.Context, *jobs.Task) (jobs.Result, error) {
	d.started <- struct{}{}
	<-d.release
	return jobs.Result{Value: "late"}, nil
}

// cancel cancels a job and returns it as it is then.
func (h *house) cancel(id, body string) *seen {
	h.t.Helper()
	r := h.do(http.MethodPost, "/jobs/"+id+"/cancel", body)
	if r.code != http.StatusAccepted {
		h.t.Fatalf("the cancellation of %s is answered with %d: %s", id, r.code, r.body)
	}
	j := readJob(h.t, r.body)
	if j.Status != "cancelled" || j.EndedAt == nil {
		h.t.Errorf("the cancelled job is %s", r.body)
	}
	return j
}

// TestContractCancel cancels jobs that wait, that run, and whose handlers do not
// listen.
func TestContractCancel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, d := newPuppet(), newDeaf()
	s := setup{handlers: map[string]jobs.Handler{"held": p, "deaf": d}, change: one}
	h := open(t, dir, s)
	nc := h.dial()
	told, err := nc.SubscribeSync("job.cancelled.>")
	mustDo(t, err)
	mustDo(t, nc.Flush())
	notified := func(id string) {
		t.Helper()
		m, err := told.NextMsg(patience)
		mustDo(t, err)
		if got := readJob(t, m.Data); got.ID != id || got.Status != "cancelled" || m.Header.Get("ce-id") != id+".cancelled.1" {
			t.Errorf("the notification for %s is %v %s", id, m.Header, m.Data)
		}
	}

	running := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	h.await(running, "processing")
	pending := h.submit(`{"type":"held"}`).ID
	later := h.submit(`{"type":"held","delay":3600}`).ID
	if j := h.cancel(pending, `{"reason":"no need"}`); j.Error != "no need" {
		t.Errorf("its error is %q", j.Error)
	}
	notified(pending)
	m := h.call(nc, "cancel", `{"id":"`+later+`","reason":"not today"}`)
	if j := readJob(t, m.Data); j.Status != "cancelled" || j.Error != "not today" {
		t.Errorf("over NATS: %s", m.Data)
	}
	notified(later)
	h.do(http.MethodPost, "/jobs/"+pending+"/cancel", "").wantProblem(t, http.StatusConflict, "conflict")

	h.cancel(running, "")
	notified(running)
	select {
	case <-pl.ctx.Done():
	case <-time.After(patience):
		t.Fatal("the handler is not told")
	}
	if cause := context.Cause(pl.ctx); !errors.Is(cause, jobs.ErrCancelled) {
		t.Errorf("its context ended with %v", cause)
	}
	if _, kinds := h.events(running); kinds != "submitted started cancelled" {
		t.Errorf("its events are %s", kinds)
	}
	// The only worker is free again.
	next := h.submit(`{"type":"held"}`).ID
	p.next(t).finish()
	h.await(next, "completed")

	ignoring := h.submit(`{"type":"deaf"}`).ID
	<-d.started
	h.await(ignoring, "processing")
	h.cancel(ignoring, `{"reason":"hopeless"}`)
	notified(ignoring)
	next = h.submit(`{"type":"held"}`).ID
	p.next(t).finish() // though the handler still runs
	h.await(next, "completed")
	close(d.release)
	h.await(h.submit(`{"type":"export"}`).ID, "completed") // the late result has come by now, or never will
	if j := h.job(ignoring); j.Status != "cancelled" || j.Error != "hopeless" || string(j.Result) != "null" {
		t.Errorf("the late result changed the job: %+v", j)
	}
	h.close()

	h = open(t, dir, s)
	h.await(h.submit(`{"type":"export"}`).ID, "completed")
	for _, id := range []string{running, pending, later, ignoring} {
		if j := h.job(id); j.Status != "cancelled" {
			t.Errorf("after a restart job %s is %s", id, j.Status)
		}
	}
	if len(p.stage) != 0 || len(d.started) != 0 {
		t.Error("a cancelled job has started")
	}
	if s := h.stats(); s.CancelledJobs != 4 || s.ActiveWorkers != 0 {
		t.Errorf("the stats are %+v", s)
	}
}

// TestContractRetry lets ended jobs run again.
func TestContractRetry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.ShutdownGrace = 0 }}
	h := open(t, dir, s)
	nc := h.dial()
	id := h.submit(`{"type":"held","retry_count":0,"payload":{"a":1}}`).ID
	retry := func() *seen {
		t.Helper()
		r := h.do(http.MethodPost, "/jobs/"+id+"/retry", "")
		if r.code != http.StatusAccepted {
			t.Fatalf("the retry is answered with %d: %s", r.code, r.body)
		}
		return readJob(t, r.body)
	}
	h.do(http.MethodPost, "/jobs/"+id+"/retry", "").wantProblem(t, http.StatusConflict, "conflict")
	p.next(t).end <- errors.New("the first time")
	h.await(id, "failed")
	if j := retry(); j.ID != id || j.EndedAt != nil || j.Status == "failed" || j.Attempt > 1 {
		t.Errorf("the retry shows %+v", j)
	}
	if pl := p.next(t); pl.task.Attempt != 1 || string(pl.task.Job.Payload) != `{"a":1}` || pl.id() != id {
		t.Errorf("it runs as attempt %d of %+v", pl.task.Attempt, pl.task.Job)
	}
	h.await(id, "processing")
	h.cancel(id, "")
	waitUntil(t, func() bool { return h.stats().ActiveWorkers == 0 })
	m := h.call(nc, "retry", `{"id":"`+id+`"}`)
	if j := readJob(t, m.Data); j.ID != id || j.EndedAt != nil {
		t.Errorf("over NATS: %s", m.Data)
	}
	p.next(t)
	h.await(id, "processing")
	h.close() // hands it back
	h = open(t, dir, s)
	p.next(t).finish()
	j := h.await(id, "completed")
	if j.Attempt != 1 || len(j.Errors) != 1 || j.Errors[0].Error != "the first time" || j.Error != "" {
		t.Errorf("it ended as %+v", j)
	}
	if _, kinds := h.events(id); kinds != "submitted started failed rerun started cancelled rerun started released started completed" {
		t.Errorf("its events are %s", kinds)
	}
	h.do(http.MethodPost, "/jobs/"+id+"/retry", "").wantProblem(t, http.StatusConflict, "conflict")
	js, err := jetstream.New(h.dial())
	mustDo(t, err)
	kept, err := js.OrderedConsumer(t.Context(), "NOTIFICATIONS", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"job.*.held.*"}})
	mustDo(t, err)
	for _, want := range []string{".failed.1", ".cancelled.2", ".completed.3"} {
		m, err := kept.Next(jetstream.FetchMaxWait(patience))
		mustDo(t, err)
		if ce := m.Headers().Get("ce-id"); ce != id+want {
			t.Errorf("the notification on %s has the id %s, want %s", m.Subject(), ce, id+want)
		}
	}
}

// TestContractDelete deletes jobs with what they have left.
func TestContractDelete(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}}
	h := open(t, dir, s)
	nc := h.dial()
	export := h.await(h.submit(`{"type":"export"}`).ID, "completed").ID
	mail := h.await(h.submit(`{"type":"email","payload":`+letter+`}`).ID, "completed")
	kept := h.await(h.submit(`{"type":"export"}`).ID, "completed").ID
	running := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	files := map[string]string{
		filepath.Join(dir, "artifacts", export+".d"): export, filepath.Join(dir, "outbox", mail.ID+".eml"): mail.ID,
	}
	for path := range files {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("before: %v", err)
		}
	}
	h.do(http.MethodDelete, "/jobs/"+running, "").wantProblem(t, http.StatusConflict, "conflict")
	if r := h.do(http.MethodDelete, "/jobs/"+export, ""); r.code != http.StatusNoContent || len(r.body) != 0 {
		t.Errorf("DELETE is answered with %d %s", r.code, r.body)
	}
	if m := h.call(nc, "delete", fmt.Sprintf(`{"id":%d}`, mail.Seq)); string(m.Data) != "{}" {
		t.Errorf("over NATS: %s", m.Data)
	}
	check := func(h *house) {
		t.Helper()
		for path, id := range files {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is still there: %v", path, err)
			}
			for _, sub := range []string{"", "/events", "/result"} {
				h.do(http.MethodGet, "/jobs/"+id+sub, "").wantProblem(t, http.StatusNotFound, "not_found")
			}
			h.do(http.MethodDelete, "/jobs/"+id, "").wantProblem(t, http.StatusNotFound, "not_found")
		}
		if got := h.pages("", "asc", 0); !slices.Equal(got, []string{kept, running}) {
			t.Errorf("listed are %v", got)
		}
		if r := h.do(http.MethodGet, "/jobs/"+kept+"/result", ""); r.code != http.StatusOK {
			t.Errorf("the file of another job is answered with %d", r.code)
		}
	}
	check(h)
	if s := h.stats(); s.CompletedJobs != 3 {
		t.Errorf("what was ever completed is %d now", s.CompletedJobs)
	}
	pl.finish()
	h.await(running, "completed")
	h.close()
	check(open(t, dir, s))
}

// TestContractBulk cancels, retries and deletes many jobs by a filter.
func TestContractBulk(t *testing.T) {
	t.Parallel()
	const some = 700 // more than a page
	quick := &counted{}
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"quick": quick, "other": newPuppet()},
		change:   func(c *config.Config) { c.Worker.QueueSize = some + 1 },
	})
	h.do(http.MethodPost, "/types/quick/pause", "")
	batch := `{"jobs":[` + strings.Repeat(`{"type":"quick","tags":["x"]},`, some-1) + `{"type":"quick","tags":["x","last"]}]}`
	ids := batchOf(t, h.do(http.MethodPost, "/jobs/batch", batch).body)
	other := h.submit(`{"type":"other","tags":["x"]}`).ID // now the queue is full
	h.do(http.MethodPost, "/jobs", `{"type":"quick"}`).wantProblem(t, 429, "queue_full")

	type outcome struct {
		Action                    string
		Matched, Changed, Refused int
	}
	run := func(body string, want outcome) {
		t.Helper()
		var dry struct {
			Action  string
			Matched int
		}
		r := h.do(http.MethodPost, "/jobs/bulk", `{"dry_run":true,`+body[1:])
		mustDo(t, json.Unmarshal(r.body, &dry))
		if r.code != http.StatusOK || dry.Action != want.Action || dry.Matched != want.Matched {
			t.Errorf("the dry run of %s is answered with %d %s, want %+v", body, r.code, r.body, want)
		}
		r = h.do(http.MethodPost, "/jobs/bulk", body)
		if r.code != http.StatusAccepted {
			t.Fatalf("%s is answered with %d: %s", body, r.code, r.body)
		}
		j := readJob(t, h.do(http.MethodGet, r.header.Get("Location")+"?wait=50s", "").body)
		var got outcome
		mustDo(t, json.Unmarshal(j.Result, &got))
		if j.Status != "completed" || j.Type != "jobstream-bulk" || got != want || j.Progress != 100 {
			t.Errorf("%s ended as %+v with %s, want %+v", body, j, j.Result, want)
		}
	}
	counted := func(query, status string, want int) {
		t.Helper()
		if c := h.counts(query); c.Statuses[status] != want {
			t.Errorf("%s: %d are %s, want %d: %+v", query, c.Statuses[status], status, want, c)
		}
	}
	run(`{"action":"cancel","filter":{"type":"quick","tag":"last"},"reason":"too much"}`, outcome{"cancel", 1, 1, 0})
	if j := h.job(ids[some-1]); j.Status != "cancelled" || j.Error != "too much" {
		t.Errorf("the job is %+v", j)
	}
	run(`{"action":"cancel","filter":{"type":"quick"}}`, outcome{"cancel", some - 1, some - 1, 0})
	counted("?type=quick", "cancelled", some)
	if h.job(other).EndedAt != nil || quick.n.Load() != 0 {
		t.Errorf("it went beyond its filter, or %d jobs started", quick.n.Load())
	}
	h.do(http.MethodPost, "/types/quick/resume", "")
	run(`{"action":"retry","filter":{"type":"quick","status":["cancelled"]}}`, outcome{"retry", some, some, 0})
	waitUntil(t, func() bool { return h.counts("?type=quick").Statuses["completed"] == some })
	if n := quick.n.Load(); n != some {
		t.Errorf("%d runs, want %d", n, some)
	}
	run(`{"action":"retry","all":true}`, outcome{"retry", 0, 0, 0})
	run(`{"action":"delete","filter":{"error":"too much"}}`, outcome{"delete", 0, 0, 0}) // the retry has cleared it
	run(`{"action":"delete","all":true}`, outcome{"delete", some, some, 0})
	if c := h.counts("?type=quick"); c.Total != 0 {
		t.Errorf("left are %+v", c)
	}
	run(`{"action":"cancel","all":true}`, outcome{"cancel", 1, 1, 0})
	h.await(other, "cancelled")
	counted("?type=jobstream-bulk", "completed", 7)
	if found, _ := h.list("?type=other&type=quick"); len(found) != 1 {
		t.Errorf("%d are listed", len(found))
	}
	// The same over NATS is a plain submission.
	m := h.call(h.dial(), "run", `{"type":"jobstream-bulk","payload":{"action":"delete","filter":{"type":"other"}}}`)
	if j := readJob(t, m.Data); j.Status != "completed" || !strings.Contains(string(j.Result), `"changed":1`) {
		t.Errorf("over NATS: %s", m.Data)
	}
	var types struct{ Types []struct{ Name string } }
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/types", "").body, &types))
	if s := h.stats(); len(types.Types) != 6 || len(s.Types) != 6 {
		t.Errorf("shown are the types %+v and stats of %+v", types.Types, s.Types)
	}
}

// shownType is a job type as clients see it.
type shownType struct {
	Name              string
	Paused            bool
	ActiveWorkers     int `json:"active_workers"`
	MaxWorkers        int `json:"max_workers"`
	RetryCount        int `json:"retry_count"`
	Timeout           float64
	PausedBy          string     `json:"paused_by"`
	PausedAt          *time.Time `json:"paused_at"`
	Rate              string
	Burst             int
	ConcurrencyPerKey int `json:"concurrency_per_key"`
	Sources           map[string]string
	Depth             struct{ Scheduled, Pending, Processing, Retrying int }
}

func (h *house) jobType(method, path string) *shownType {
	h.t.Helper()
	r := h.do(method, "/types/"+path, "")
	if r.code != http.StatusOK {
		h.t.Fatalf("%s /types/%s is answered with %d: %s", method, path, r.code, r.body)
	}
	var k shownType
	mustDo(h.t, json.Unmarshal(r.body, &k))
	return &k
}

// TestContractPause pauses a type, over a restart as well.
func TestContractPause(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, quick := newPuppet(), &counted{}
	s := setup{handlers: map[string]jobs.Handler{"held": p, "quick": quick}, change: func(c *config.Config) { c.Worker.MaxWorkers = 2 }}
	h := open(t, dir, s)
	running := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	if k := h.jobType(http.MethodPost, "held/pause"); !k.Paused || k.Name != "held" {
		t.Errorf("paused it is %+v", k)
	}
	waitingID := h.submit(`{"type":"held"}`).ID
	h.submit(`{"type":"held","delay":3600}`)
	h.await(h.submit(`{"type":"quick"}`).ID, "completed") // others go on
	pl.finish()                                           // so does what runs
	h.await(running, "completed")
	check := func(h *house) {
		t.Helper()
		k := h.jobType(http.MethodGet, "held")
		if !k.Paused || k.Depth.Pending != 1 || k.Depth.Scheduled != 1 || k.Depth.Processing != 0 || k.RetryCount != 0 || k.Timeout != 60 {
			t.Errorf("the type is %+v", k)
		}
		if h.jobType(http.MethodGet, "quick").Paused || !h.stats().Types["held"].Paused {
			t.Error("the pause shows in the wrong places")
		}
		r := h.do(http.MethodGet, "/jobs/"+waitingID, "")
		if !strings.Contains(string(r.body), `"waiting":{"reason":"type_paused"`) {
			t.Errorf("the job does not say what it waits for: %s", r.body)
		}
	}
	check(h)
	h.close()
	h = open(t, dir, s)
	h.await(h.submit(`{"type":"quick"}`).ID, "completed")
	check(h)
	if len(p.stage) != 0 {
		t.Error("a job of the paused type has started")
	}
	nc := h.dial()
	var k shownType
	mustDo(t, json.Unmarshal(h.call(nc, "resume", `{"type":"held"}`).Data, &k))
	if k.Paused {
		t.Error("it is still paused")
	}
	p.next(t).finish()
	h.await(waitingID, "completed")
	mustDo(t, json.Unmarshal(h.call(nc, "pause", `{"type":"held"}`).Data, &k))
	if !k.Paused || !h.jobType(http.MethodGet, "held").Paused {
		t.Error("over NATS it was not paused")
	}
	h.jobType(http.MethodPost, "held/resume")
	h.close()
	if open(t, dir, s).jobType(http.MethodGet, "held").Paused {
		t.Error("after a restart it is paused again")
	}
}

// TestContractWorkersPaused pauses all workers of a server, which goes on with
// everything else. A restart resumes them.
func TestContractWorkersPaused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p, "quick": &counted{}}}
	h := open(t, dir, s)
	running := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	if r := h.do(http.MethodPost, "/workers/pause", ""); r.code != http.StatusOK || !strings.Contains(string(r.body), `"paused":true`) {
		t.Errorf("the pause is answered with %d %s", r.code, r.body)
	}
	pl.finish()
	h.await(running, "completed")
	waiting, called := h.submit(`{"type":"quick"}`).ID, h.submit(`{"type":"quick"}`).ID
	h.cancel(called, "")
	h.await(called, "cancelled")
	if r := h.do(http.MethodGet, "/jobs/"+waiting, ""); !strings.Contains(string(r.body), `"waiting":{"reason":"workers_paused"`) {
		t.Errorf("the job does not say what it waits for: %s", r.body)
	}
	if st := h.stats(); !st.Paused || st.ActiveWorkers != 0 || st.QueuedJobs != 1 {
		t.Errorf("the stats are %+v", st)
	}
	nc := h.dial()
	if m := h.call(nc, "worker.resume", ""); strings.Contains(string(m.Data), `"paused"`) {
		t.Errorf("the resumed stats are %s", m.Data)
	}
	h.await(waiting, "completed")
	if m := h.call(nc, "worker.pause", "{}"); !strings.Contains(string(m.Data), `"paused":true`) {
		t.Errorf("the paused stats are %s", m.Data)
	}
	waiting = h.submit(`{"type":"quick"}`).ID
	h.close()
	h = open(t, dir, s)
	h.await(waiting, "completed")
	if h.stats().Paused {
		t.Error("after a restart they are paused")
	}
}

// TestContractCounts counts jobs by status and type.
func TestContractCounts(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"held": newPuppet(), "bad": jobs.HandlerFunc(failing), "quick": jobs.HandlerFunc(nothing)},
		change:   func(c *config.Config) { c.Worker.MaxWorkers, c.Worker.ShutdownGrace = 1, 0 },
	})
	if c := h.counts(""); c.Total != 0 || len(c.Statuses) != 7 || len(c.Types) != 0 {
		t.Errorf("without jobs the counts are %+v", c)
	}
	h.await(h.submit(`{"type":"quick","tags":["a"]}`).ID, "completed")
	h.await(h.submit(`{"type":"bad","retry_count":0,"tags":["a"]}`).ID, "failed")
	h.await(h.submit(`{"type":"held","tags":["b"]}`).ID, "processing")
	h.submit(`{"type":"quick","delay":600}`)
	h.submit(`{"type":"quick"}`)
	nc := h.dial()
	for query, c := range map[string]struct {
		body string
		want map[string]int
	}{
		"":                                 {`{}`, map[string]int{"completed": 1, "failed": 1, "processing": 1, "scheduled": 1, "pending": 1}},
		"?type=quick":                      {`{"type":"quick"}`, map[string]int{"completed": 1, "scheduled": 1, "pending": 1}},
		"?tag=a&tag=b":                     {`{"tag":["a","b"]}`, map[string]int{"completed": 1, "failed": 1, "processing": 1}},
		"?status=failed&status=processing": {`{"status":["failed","processing"]}`, map[string]int{"failed": 1, "processing": 1}},
		"?created_before=2020-01-01":       {`{"created_before":"2020-01-01"}`, nil},
		"?type=nope":                       {`{"type":["nope"]}`, nil},
	} {
		got := h.counts(query)
		total, inTypes := 0, 0
		for status, n := range got.Statuses {
			total += n
			if n != c.want[status] {
				t.Errorf("%s: %d are %s, want %d", query, n, status, c.want[status])
			}
		}
		for _, k := range got.Types {
			inTypes += k["total"]
		}
		if total != got.Total || inTypes != got.Total {
			t.Errorf("%s: the sums are %d and %d of %+v", query, total, inTypes, got)
		}
		rest := strings.TrimSpace(string(h.do(http.MethodGet, "/jobs/counts"+query, "").body))
		if m := h.call(nc, "counts", c.body); string(m.Data) != rest {
			t.Errorf("%s: NATS says %s, REST %s", query, m.Data, rest)
		}
	}
}

// TestContractWaiting has waiting jobs say what they wait for.
func TestContractWaiting(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"held": p, "bad": jobs.HandlerFunc(failing), "capped": p},
		change: func(c *config.Config) {
			c.Worker.MaxWorkers, c.Worker.ShutdownGrace = 2, 0
			slow := c.Jobs["bad"]
			slow.Backoff.Base = time.Hour
			c.Jobs["bad"] = slow
			capped := c.Jobs["capped"]
			capped.MaxWorkers = 1
			c.Jobs["capped"] = capped
		},
	})
	nc := h.dial()
	waits := func(j *seen, reason string, position int, until bool) {
		t.Helper()
		type shown struct {
			Waiting *struct {
				Reason, Detail string
				Until          *time.Time
				Position       int
			}
		}
		var rest, service shown
		mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/jobs/"+j.ID, "").body, &rest))
		mustDo(t, json.Unmarshal(h.call(nc, "get", `{"id":"`+j.ID+`"}`).Data, &service))
		for door, got := range map[string]shown{"REST": rest, "NATS": service} {
			w := got.Waiting
			if reason == "" {
				if w != nil {
					t.Errorf("%s: it waits: %+v", door, w)
				}
				continue
			}
			if w == nil || w.Reason != reason || w.Position != position || (w.Until != nil) != until {
				t.Errorf("%s: it waits for %+v, want %s at %d", door, w, reason, position)
			}
		}
	}
	bad := h.await(h.submit(`{"type":"bad","retry_count":1}`).ID, "retrying")
	waits(bad, "backoff", 0, true)
	waits(h.submit(`{"type":"held","run_at":"2100-01-01T00:00:00Z"}`), "scheduled", 0, true)
	capped := h.submit(`{"type":"capped"}`)
	p.next(t)
	h.await(capped.ID, "processing")
	waits(capped, "", 0, false)
	waits(h.submit(`{"type":"capped"}`), "type_limit", 1, false)
	waits(h.submit(`{"type":"capped"}`), "type_limit", 2, false)
	second := h.submit(`{"type":"held"}`)
	p.next(t)
	h.await(second.ID, "processing")
	waits(h.submit(`{"type":"held"}`), "all_busy", 1, false)
	if strings.Contains(string(h.do(http.MethodGet, "/jobs", "").body), "waiting") {
		t.Error("a list tells of it, too")
	}
}
