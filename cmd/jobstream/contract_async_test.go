package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
	handlerhttp "jobstream/jobs/handlers/http"
)

// errand is a request to the endpoint of a type with async. Its answer is that of the test.
type errand struct {
	header http.Header
	answer chan int
}

// slowEndpoint passes requests on.
func slowEndpoint(t *testing.T) (at string, errands <-chan *errand) {
	t.Helper()
	all := make(chan *errand, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &errand{r.Header, make(chan int, 1)}
		all <- e
		select {
		case code := <-e.answer:
			w.WriteHeader(code)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, all
}

// asynchronously makes the type async of an endpoint that may answer later.
func asynchronously(at string, lease time.Duration) func(*config.Config) {
	return func(c *config.Config) {
		c.Callbacks.PublicURL = "https://jobs.example.com/"
		o := handlerhttp.NewOptions()
		o.URL, o.Async = at+"/do", lease
		o.Check("", func(path, text string) { panic(path + ": " + text) })
		c.Jobs["async"] = config.JobType{Run: "http", Options: o, RetryCount: 1, Timeout: time.Minute, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 10 * time.Millisecond}}
	}
}

// TestContractAsync has an endpoint that answers 202 and reports later: over a restart of
// the server, before its own answer, and not at all.
func TestContractAsync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at, errands := slowEndpoint(t)
	s := setup{change: asynchronously(at, time.Hour)}
	h := open(t, dir, s)
	next := func() (e *errand, lease string) {
		t.Helper()
		select {
		case e = <-errands:
		case <-time.After(patience):
			t.Fatal("the endpoint is not called")
		}
		lease = e.header.Get("Jobstream-Lease")
		if report := e.header.Get("Jobstream-Report"); lease == "" || report != "https://jobs.example.com/leases/"+lease || e.header.Get("Jobstream-Lease-Seconds") != "3600" {
			t.Errorf("the request has the lease %q, its address %q", lease, report)
		}
		return e, lease
	}

	id := h.submit(`{"type":"async","payload":{"a":1}}`).ID
	e, lease := next()
	e.answer <- http.StatusAccepted
	h.awaitStats(func(s *api.Stats) bool { return s.ActiveWorkers == 0 }) // nobody waits here
	w := restWorker(t, h.rest, "endpoint")
	var b beatOf
	w.ask(&b, "progress", lease, map[string]any{"percent": 45})
	if b.Seconds != 3600 {
		t.Errorf("the progress is answered with %+v", b)
	}
	waitUntil(t, func() bool { j := h.job(id); return j.Status == "processing" && j.Progress == 45 })
	h.close()
	h = open(t, dir, s)
	w = restWorker(t, h.rest, "endpoint")
	if e := w.end("done", lease, map[string]any{"result": "later"}); e.Status != "completed" {
		t.Errorf("the end is answered with %+v", e)
	}
	if j := h.job(id); j.Status != "completed" || string(j.Result) != `"later"` || j.Attempt != 1 {
		t.Errorf("the job is %+v", j)
	}

	id = h.submit(`{"type":"async"}`).ID
	e, lease = next()
	if e := w.end("done", lease, map[string]any{"result": "at once"}); e.Status != "completed" {
		t.Errorf("before the answer the end is answered with %+v", e)
	}
	e.answer <- http.StatusAccepted
	if j := h.await(id, "completed"); string(j.Result) != `"at once"` {
		t.Errorf("the result is %s", j.Result)
	}

	id = h.submit(`{"type":"async"}`).ID
	e, lease = next()
	e.answer <- http.StatusOK // it is done, without a report
	if j := h.await(id, "completed"); string(j.Result) != "null" {
		t.Errorf("the result is %s", j.Result)
	}
	if p := w.refused(http.StatusConflict, "fail", lease, map[string]any{"error": "late"}); p.Code != "lease_lost" {
		t.Errorf("a late report is refused with %+v", p)
	}

	id = h.submit(`{"type":"async"}`).ID
	e, first := next()
	e.answer <- http.StatusInternalServerError
	e, lease = next() // the second attempt
	w.refused(http.StatusConflict, "done", first, nil)
	e.answer <- http.StatusAccepted
	h.await(id, "processing")
	if e := w.end("fail", lease, map[string]any{"error": "no luck", "permanent": true}); e.Status != "failed" {
		t.Errorf("the failure is answered with %+v", e)
	}

	id = h.submit(`{"type":"async"}`).ID
	e, lease = next()
	e.answer <- http.StatusAccepted
	h.awaitStats(func(s *api.Stats) bool { return s.ActiveWorkers == 0 })
	h.cancel(id, `{"reason":"wrong input"}`)
	waitUntil(t, func() bool { return strings.Contains(w.beat(lease).Cancel[lease], "wrong input") })
}

// TestContractAsyncSilent has an endpoint that answers 202 and never reports. It gets the
// same attempt again.
func TestContractAsyncSilent(t *testing.T) {
	t.Parallel()
	at, errands := slowEndpoint(t)
	h := open(t, t.TempDir(), setup{change: asynchronously(at, jobs.MinLease)})
	id := h.submit(`{"type":"async"}`).ID
	e := <-errands
	e.answer <- http.StatusAccepted
	again := <-errands
	if again.header.Get("Jobstream-Attempt") != "1" || again.header.Get("Jobstream-Lease") == e.header.Get("Jobstream-Lease") {
		t.Errorf("the second request has %v", again.header)
	}
	again.answer <- http.StatusOK
	h.await(id, "completed")
}
