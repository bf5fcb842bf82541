package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	handlerhttp "jobstream/jobs/handlers/http"
)

// endpoint is a server of somebody else, and the requests that it has got.
type endpoint struct {
	*httptest.Server
	mu  sync.Mutex
	got []call
}

// call is one request.
type call struct {
	at     time.Time
	path   string
	header http.Header
	body   string
	beside int // how many others were being answered then
}

// newEndpoint answers as answer does.
func newEndpoint(t *testing.T, answer func(w http.ResponseWriter, c *call)) *endpoint {
	t.Helper()
	e := &endpoint{}
	inside := 0
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c := call{at: time.Now(), path: r.URL.RequestURI(), header: r.Header, body: string(body)}
		e.mu.Lock()
		c.beside = inside
		inside++
		e.got = append(e.got, c)
		e.mu.Unlock()
		defer func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			inside--
		}()
		answer(w, &c)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) calls() []call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]call(nil), e.got...)
}

// TestContractHandOver has an endpoint answer 202, and end its jobs later by their leases.
func TestContractHandOver(t *testing.T) {
	t.Parallel()
	tokens := make(chan string, 9)
	e := newEndpoint(t, func(w http.ResponseWriter, c *call) {
		w.WriteHeader(http.StatusAccepted)
		tokens <- c.header.Get("Jobstream-Lease")
	})
	h := configured(t, "\n  render: {run: http, url: "+e.URL+", async: 1m, retry_count: 0}\n  plain: {run: http, url: "+e.URL+"}\n")
	post := func(token, verb, body string, status int) string {
		t.Helper()
		r := h.do(http.MethodPost, "/leases/"+token+"/"+verb, body)
		if r.code != status {
			t.Fatalf("%s: %d %s", verb, r.code, r.body)
		}
		return string(r.body)
	}
	done, failed := h.submit(`{"type":"render"}`).ID, ""
	token := <-tokens
	if got := post(token, "progress", `{"percent":45,"message":"half"}`, 200); !strings.Contains(got, `"lease_seconds":60`) {
		t.Errorf("progress: %s", got)
	}
	post(token, "done", `{"result":{"pages":3}}`, 200)
	if j := h.await(done, "completed"); string(j.Result) != `{"pages":3}` || j.Attempt != 1 {
		t.Errorf("the job is %+v", j)
	}
	if got := post(token, "done", `{"result":{"pages":3}}`, 200); !strings.Contains(got, `"repeated":true`) {
		t.Errorf("again: %s", got)
	}
	failed = h.submit(`{"type":"render"}`).ID
	post(<-tokens, "fail", `{"error":"out of paper"}`, 200)
	if j := h.await(failed, "failed"); j.Error != "out of paper" {
		t.Errorf("the job is %+v", j)
	}
	plain := h.submit(`{"type":"plain"}`).ID
	if token := <-tokens; token != "" {
		t.Errorf("a type that is not async has the lease %s", token)
	}
	h.await(plain, "completed")
}

// TestContractRunHTTP has an endpoint do jobs.
func TestContractRunHTTP(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, func(w http.ResponseWriter, c *call) {
		switch {
		case strings.HasSuffix(c.path, "/1"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"paid": true}`)
		case strings.HasSuffix(c.path, "/2"):
			w.Header().Set("Content-Type", "application/pdf")
			_, _ = io.WriteString(w, "%PDF")
		case strings.HasSuffix(c.path, "/3"):
			http.Error(w, "no such invoice", http.StatusNotFound)
		case strings.HasSuffix(c.path, "/4") && c.header.Get("Jobstream-Attempt") == "1":
			http.Error(w, "out of paper", http.StatusBadGateway)
		}
	})
	secret := "whsec_" + strings.Repeat("QUFB", 8)
	h := configured(t, fmt.Sprintf(`
  invoice:
    run: http
    url: %s/invoices/{{.payload.id}}
    headers: {Authorization: Bearer hunter2}
    secret: %s
    backoff: {kind: constant, base: 0.01s}
`, e.URL, secret))
	submit := func(id int) string { return h.submit(`{"type":"invoice","payload":{"id":%d}}`, id).ID }

	one := submit(1)
	if j := h.await(one, "completed"); string(j.Result) != `{"paid":true}` {
		t.Errorf("the result is %s", j.Result)
	}
	c := e.calls()[0]
	if c.path != "/invoices/1" || c.body != `{"id":1}` || c.header.Get("Idempotency-Key") != one+".1" || c.header.Get("ce-id") != one+".1.1" ||
		c.header.Get("Authorization") != "Bearer hunter2" || !strings.HasPrefix(c.header.Get("webhook-signature"), "v1,") || c.header.Get("Jobstream-Deadline") == "" {
		t.Errorf("the endpoint got %+v", c)
	}
	two := submit(2)
	h.await(two, "completed")
	if r := h.do(http.MethodGet, "/jobs/"+two+"/result", ""); string(r.body) != "%PDF" || r.header.Get("Content-Type") != "application/pdf" {
		t.Errorf("the file is %s %s", r.header.Get("Content-Type"), r.body)
	}
	if j := h.await(submit(3), "failed"); j.Attempt != 1 || j.Error != "the endpoint answered 404 Not Found: no such invoice" {
		t.Errorf("in attempt %d it failed: %s", j.Attempt, j.Error)
	}
	if j := h.await(submit(4), "completed"); j.Attempt != 2 || len(j.Errors) != 1 || j.Errors[0].Error != "the endpoint answered 502 Bad Gateway: out of paper" {
		t.Errorf("it needed attempt %d after %+v", j.Attempt, j.Errors)
	}

	r := h.do(http.MethodPost, "/jobs", `{"type":"invoice","payload":{"id":".."}}`)
	if r.code != http.StatusUnprocessableEntity || !strings.Contains(string(r.body), `"pointer":"/payload/id"`) {
		t.Errorf("another address gives %d %s", r.code, r.body)
	}
	bare := h.await(h.accepted(h.dial(), "jobs.invoice", `{"number":1}`), "failed")
	if bare.Error != "/payload/id: is required" {
		t.Errorf("a bare message fails with %q", bare.Error)
	}
	r = h.do(http.MethodGet, "/types/invoice", "")
	if !strings.Contains(string(r.body), `"runs":"POST `+e.URL+`/invoices/{{.payload.id}}"`) || strings.Contains(string(r.body), "hunter2") || strings.Contains(string(r.body), "whsec") {
		t.Errorf("the type is %s", r.body)
	}
}

// TestContractRunHTTPBusy has an endpoint that answers a storm with 429. Nothing of the
// type reaches it before the moment that it has named. Then jobs come one at a time, until
// one is done.
func TestContractRunHTTPBusy(t *testing.T) {
	t.Parallel()
	const workers, all = 4, 12
	var mu sync.Mutex
	refused, failed := 0, false
	storm := make(chan struct{}) // closed when all workers have asked
	e := newEndpoint(t, func(w http.ResponseWriter, _ *call) {
		mu.Lock()
		defer mu.Unlock()
		switch refused++; {
		case refused < workers:
			mu.Unlock()
			<-storm
			mu.Lock()
		case refused == workers:
			close(storm)
		case !failed: // the first that comes afterwards
			failed = true
			w.WriteHeader(http.StatusInternalServerError)
			return
		default:
			return
		}
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	h := configured(t, fmt.Sprintf("\n  call:\n    run: http\n    url: %s\n    max_workers: %d\n    backoff: {kind: constant, base: 0.01s}\n", e.URL, workers))
	ids := make([]string, all)
	for i := range ids {
		ids[i] = h.submit(`{"type":"call"}`).ID
	}
	waitUntil(t, func() bool { return len(e.calls()) >= workers })
	waiting := func(id string) bool {
		body := string(h.do(http.MethodGet, "/jobs/"+id, "").body)
		return strings.Contains(body, `"reason":"target_busy","until":"`) && strings.Contains(body, "the endpoint answered 429 Too Many Requests; jobs of its type wait until ")
	}
	waitUntil(t, func() bool { return waiting(ids[0]) && waiting(ids[all-1]) })
	for _, id := range ids {
		j := h.await(id, "completed")
		if want := 1 + len(j.Errors); j.Attempt != want || want > 2 {
			t.Errorf("it needed attempt %d after %+v", j.Attempt, j.Errors)
		}
	}
	calls := e.calls()
	if len(calls) != workers+all+1 {
		t.Errorf("the endpoint got %d requests, want %d", len(calls), workers+all+1)
	}
	if gap := calls[workers].at.Sub(calls[workers-1].at); gap < 2*time.Second {
		t.Errorf("it was asked again after %s", gap)
	}
	for i, c := range calls[workers : workers+2] {
		if c.beside != 0 {
			t.Errorf("request %d after the pause came beside %d others", i+1, c.beside)
		}
	}
}

// TestContractRunHTTPBusyAndDeadline ends a job at its deadline, however long the endpoint
// wants it to wait. A cancellation ends it at once.
func TestContractRunHTTPBusyAndDeadline(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, func(w http.ResponseWriter, _ *call) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	h := configured(t, fmt.Sprintf("\n  call: {run: http, url: %q, max_workers: 1}\n", e.URL))
	first := h.submit(`{"type":"call","deadline":"2s"}`).ID
	waits := h.submit(`{"type":"call","deadline":"2s"}`).ID
	cancelled := h.submit(`{"type":"call"}`).ID
	for _, id := range []string{first, waits} {
		if j := h.await(id, "failed"); !strings.Contains(j.Error, "deadline") {
			t.Errorf("it failed with %q", j.Error)
		}
	}
	h.cancel(cancelled, "")
	h.await(cancelled, "cancelled")
	if n := len(e.calls()); n != 1 {
		t.Errorf("the endpoint got %d requests", n)
	}
}

// TestContractRunHTTPTimeout waits for an answer that does not come, and for one that does
// not end.
func TestContractRunHTTPTimeout(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	defer close(end)
	e := newEndpoint(t, func(w http.ResponseWriter, c *call) {
		if c.path == "/body" {
			_, _ = io.WriteString(w, "half of")
			_ = http.NewResponseController(w).Flush()
		}
		<-end
	})
	h := configured(t, fmt.Sprintf("\n  call: {run: http, url: %q, retry_count: 0, timeout: 0.2s}\n", e.URL+"/{{.payload}}"))
	for path, want := range map[string]string{
		"header": "timed out after 200ms: no answer came from " + strings.TrimPrefix(e.URL, "http://"),
		"body":   "timed out after 200ms: the endpoint answered 200 OK, and then its body broke off",
	} {
		if j := h.await(h.submit(`{"type":"call","payload":%q}`, path).ID, "failed"); j.Error != want {
			t.Errorf("it failed with %q, want %q", j.Error, want)
		}
	}
}

// TestContractRunHTTPInput sends an endpoint the file that a job was submitted with.
func TestContractRunHTTPInput(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, func(http.ResponseWriter, *call) {})
	h := configured(t, fmt.Sprintf("\n  scan: {run: http, url: %q, method: PUT, body: input:image, inputs: {image: {types: [image/png]}}}\n", e.URL+"/{{.inputs.image.name}}"))
	r := h.do(http.MethodPost, "/artifacts", "a picture", "Content-Type", "image/png", "Content-Disposition", `attachment; filename="a b.png"`)
	var file struct{ ID string }
	if err := json.Unmarshal(r.body, &file); err != nil || r.code != http.StatusCreated {
		t.Fatalf("the upload gives %d %s", r.code, r.body)
	}
	h.await(h.submit(`{"type":"scan","inputs":{"image":%q}}`, file.ID).ID, "completed")
	if c := e.calls()[0]; c.path != "/a%20b.png" || c.body != "a picture" || c.header.Get("Content-Type") != "image/png" || c.header.Get("Content-Disposition") != `attachment; filename="a b.png"` {
		t.Errorf("the endpoint got %+v", c)
	}
	if r := h.do(http.MethodPost, "/jobs", `{"type":"scan"}`); r.code != http.StatusUnprocessableEntity || !strings.Contains(string(r.body), `"/inputs/image"`) {
		t.Errorf("without the file it is %d %s", r.code, r.body)
	}
}

// TestContractRunHTTPReload takes up another address and another secret while it runs.
func TestContractRunHTTPReload(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, func(http.ResponseWriter, *call) {})
	token := filepath.Join(t.TempDir(), "token")
	mustDo(t, os.WriteFile(token, []byte("first"), 0o600))
	text := "jobs: {call: {run: http, url: '" + e.URL + "/%s/{{.payload}}', headers: {Authorization: '${file:" + token + "}'}}}\n"
	h := openReload(t, fmt.Sprintf(text, "a"))
	h.await(h.submit(`{"type":"call","payload":1}`).ID, "completed")
	h.wantReload(fmt.Sprintf(text, "a"), "no job type has changed\n")
	mustDo(t, os.WriteFile(token, []byte("second"), 0o600))
	h.wantReload(fmt.Sprintf(text, "a"), "changed: call\n")
	h.await(h.submit(`{"type":"call","payload":2}`).ID, "completed")
	h.wantReload(fmt.Sprintf(text, "b"), "changed: call\n")
	h.await(h.submit(`{"type":"call","payload":3}`).ID, "completed")
	if code, out := h.reload(fmt.Sprintf(text, "{{.dir}}")); code != exitUsage || !strings.Contains(out, "jobs.call.url: names .dir") {
		t.Errorf("a wrong address ends the reload with %d and %q", code, out)
	}
	h.await(h.submit(`{"type":"call","payload":4}`).ID, "completed")
	var got []string
	for _, c := range e.calls() {
		got = append(got, c.path+" "+c.header.Get("Authorization"))
	}
	if want := []string{"/a/1 first", "/a/2 second", "/b/3 second", "/b/4 second"}; !slices.Equal(got, want) {
		t.Errorf("the endpoint got %q, want %q", got, want)
	}
	h.close()
}

// callType calls url.
func callType(url string) config.JobType {
	o := handlerhttp.NewOptions()
	o.URL = url
	o.Check(".", func(path, text string) { panic(path + ": " + text) })
	return config.JobType{
		Run: "http", Options: o, Timeout: time.Minute, RetryCount: 3,
		Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 50 * time.Millisecond},
	}
}

// TestCallsOfAKilledServer repeats a request whose answer it did not live to see: it has
// the same key and is the same attempt.
func TestCallsOfAKilledServer(t *testing.T) {
	t.Parallel()
	dead := make(chan struct{})
	e := newEndpoint(t, func(w http.ResponseWriter, _ *call) {
		<-dead
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `"done"`)
	})
	dir := t.TempDir()
	c := startChild(t, dir, childCall+"="+e.URL)
	h := &programHouse{t: t, c: c, dir: dir}
	id := h.submitAs("call", "x", "")
	waitUntil(t, func() bool { return len(e.calls()) == 1 })
	h.await(id, "processing")
	h.c.kill()
	close(dead)
	h.c = startChild(t, dir, childCall+"="+e.URL)
	h.await(id, "completed")
	calls := e.calls()
	if len(calls) != 2 {
		t.Fatalf("the endpoint got %d requests", len(calls))
	}
	for _, name := range []string{"Idempotency-Key", "Ce-Id", "Jobstream-Attempt"} {
		if a, b := calls[0].header.Get(name), calls[1].header.Get(name); a != b || a == "" {
			t.Errorf("%s was %s, and then %s", name, a, b)
		}
	}
	h.c.kill()
}
