package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/webhook"
)

// request is what an endpoint has got.
type request struct {
	path string
	head http.Header
	body []byte
}

// message is the body of one.
type message struct {
	Type string `json:"type"`
	Data struct {
		ID      string          `json:"id"`
		Status  string          `json:"status"`
		Run     int             `json:"run"`
		Payload json.RawMessage `json:"payload"`
	} `json:"data"`
}

func (r request) message(t *testing.T) (m message) {
	t.Helper()
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Errorf("%s: %v", r.body, err)
	}
	return m
}

// endpoint is a real server that counts, and answers as a test wants.
type endpoint struct {
	*httptest.Server
	got    chan request
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{got: make(chan request, 100_000)}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.got <- request{r.URL.Path, r.Header, body}
		e.mu.Lock()
		answer := e.answer
		e.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) answers(f func(w http.ResponseWriter, r *http.Request)) {
	e.mu.Lock()
	e.answer = f
	e.mu.Unlock()
}

func (e *endpoint) code(code int) {
	e.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

func (e *endpoint) next(t *testing.T) request {
	t.Helper()
	select {
	case r := <-e.got:
		return r
	case <-time.After(patience):
		t.Fatal("no request came")
		return request{}
	}
}

// local lets callbacks go to this machine.
func local(hooks ...webhook.Webhook) webhook.Options {
	return webhook.Options{Allow: []string{"127.0.0.1"}, Webhooks: hooks}
}

// submit submits a job over Go.
func submit(t *testing.T, n *Node, s jobs.Submission) *jobs.Job {
	t.Helper()
	s.Priority, s.RetryCount = jobs.DefaultPriority, -1
	j, err := n.Submit(t.Context(), &s)
	mustDo(t, err)
	return j
}

func called(url string) *jobs.Terms { return &jobs.Terms{CallbackURL: url} }

// deliveriesOf is the answer of GET /deliveries.
func deliveriesOf(t *testing.T, n *Node, query string) (out struct {
	Deliveries []struct {
		ID, Job       jobs.ID
		Event, URL    string
		Status, Error string
		Attempts      int
		Last          struct{ HTTP_Status, MS int } //nolint:revive // as in JSON
		NextAt        string                        `json:"next_at"`
	}
	Disabled []struct{ URL string }
	Next     string `json:"next_cursor"`
},
) {
	t.Helper()
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/deliveries?"+query, nil))
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return out
}

// sent waits until the callback of a job's run to a URL has ended.
func sent(t *testing.T, n *Node, j *jobs.Job, url string) *jobs.Job {
	t.Helper()
	_, err := n.Wait(t.Context(), j.ID) // there is none before
	mustDo(t, err)
	c, err := n.Wait(t.Context(), jobs.CallbackID(j.ID, j.Run, url))
	mustDo(t, err)
	if c == nil {
		t.Fatalf("job %s has no callback to %s", j.ID, url)
	}
	return c
}

func TestCallback(t *testing.T) {
	t.Parallel()
	e, hook := newEndpoint(t), newEndpoint(t)
	n, _ := open(t, Options{
		Callbacks: local(webhook.Webhook{Webhook: jobs.Webhook{URL: hook.URL, Types: []string{"broken", "other"}, Statuses: []jobs.Status{jobs.Failed}}}),
	}, append(typesOf(jobs.HandlerFunc(echo), "echo", "other"), typesOf(jobs.HandlerFunc(broken), "broken")...)...)
	j := submit(t, n, jobs.Submission{Type: "echo", Payload: []byte(`"hello"`), Terms: called(e.URL + "/a?b=c")})
	got := e.next(t)
	m := got.message(t)
	if m.Type != "job.completed" || m.Data.ID != j.ID.String() || m.Data.Status != "completed" || string(m.Data.Payload) != `"hello"` || got.path != "/a" {
		t.Errorf("%s: %s", got.path, got.body)
	}
	if id := got.head.Get("Webhook-Id"); id != j.ID.String()+".completed.1" {
		t.Errorf("webhook-id is %q", id)
	}
	if d := deliveriesOf(t, n, "job="+j.ID.String()); len(d.Deliveries) != 1 || d.Deliveries[0].URL != e.URL+"/a?b=c" || d.Deliveries[0].Job != j.ID {
		t.Errorf("deliveries: %+v", d)
	}
	c := sent(t, n, j, e.URL+"/a?b=c")
	if c.Status != jobs.Completed || !strings.Contains(string(c.Result), `"http_status":200`) {
		t.Errorf("the callback is %s %s", c.Status, c.Result)
	}

	submit(t, n, jobs.Submission{Type: "other"})
	failed := submit(t, n, jobs.Submission{Type: "broken", Terms: called(hook.URL)})
	if m := hook.next(t).message(t); m.Type != "job.failed" || m.Data.ID != failed.ID.String() {
		t.Errorf("the webhook got %+v", m)
	}
	sent(t, n, failed, hook.URL)
	if d := deliveriesOf(t, n, "url="+url.QueryEscape(hook.URL)); len(d.Deliveries) != 1 || d.Deliveries[0].Last.HTTP_Status != 200 || d.Deliveries[0].Event != "job.failed" {
		t.Errorf("deliveries to the webhook: %+v", d)
	}
	if len(hook.got)+len(e.got) > 0 {
		t.Error("somebody was notified twice")
	}
	// They are in no list of jobs, unless they are asked for, and fill no queue.
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/jobs", nil))
	if strings.Contains(w.Body.String(), jobs.CallbackType) {
		t.Errorf("the list has callbacks: %s", w.Body)
	}
	// A new run is a new end.
	retry(t, n, failed.ID)
	if m := hook.next(t).message(t); m.Data.Run != 2 {
		t.Errorf("the second run: %+v", m)
	}
}

// retry retries a job by hand.
func retry(t *testing.T, n *Node, id jobs.ID) {
	t.Helper()
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://localhost/jobs/%s/retry", id), nil))
	if w.Code != http.StatusAccepted {
		t.Fatalf("retry: %d %s", w.Code, w.Body)
	}
}

// broken fails for good.
func broken(context.Context, *jobs.Task) (jobs.Result, error) {
	return jobs.Result{}, jobs.Permanentf("broken")
}

// soon makes the retries of callbacks come at once.
func soon(n *Node, delays ...time.Duration) {
	n.registry.Lookup(jobs.CallbackType).Backoff = jobs.Backoff{Kind: jobs.ListKind, Delays: delays}
}

// TestCallbackIsRetried: a repetition has the same id and body, until one is accepted.
func TestCallbackIsRetried(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.code(http.StatusInternalServerError)
	n, _ := open(t, Options{Callbacks: local()}, typesOf(jobs.HandlerFunc(echo), "echo")...)
	soon(n, 0)
	j := submit(t, n, jobs.Submission{Type: "echo", Payload: []byte(`"hello"`), Terms: called(e.URL)})
	first := e.next(t)
	second := e.next(t)
	e.code(http.StatusNoContent)
	if string(first.body) != string(second.body) || first.head.Get("Webhook-Id") != second.head.Get("Webhook-Id") {
		t.Errorf("%s and then %s", first.body, second.body)
	}
	c := sent(t, n, j, e.URL)
	if c.Status != jobs.Completed || c.Attempt < 2 || len(c.Errors) != c.Attempt-1 || c.Errors[0].Error != "answered 500 Internal Server Error" {
		t.Errorf("%+v", c)
	}
	d := deliveriesOf(t, n, "status=completed&job="+j.ID.String()).Deliveries
	if len(d) != 1 || d[0].Last.HTTP_Status != 204 || d[0].Attempts != c.Attempt || d[0].Error != "" {
		t.Errorf("%+v", d)
	}
	if d := deliveriesOf(t, n, "status=failed").Deliveries; len(d) != 0 {
		t.Errorf("failed: %+v", d)
	}
}

// TestCallbackFails after ten attempts, and can be retried by hand.
func TestCallbackFails(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.code(http.StatusTeapot)
	n, _ := open(t, Options{Callbacks: local()}, typesOf(jobs.HandlerFunc(echo), "echo")...)
	soon(n, 0)
	j := submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	c := sent(t, n, j, e.URL)
	d := deliveriesOf(t, n, "status=failed").Deliveries
	if c.Status != jobs.Failed || len(e.got) != 10 || len(d) != 1 || d[0].Last.HTTP_Status != 418 || d[0].Error != "answered 418 I'm a teapot" {
		t.Errorf("%s after %d requests; %+v", c.Status, len(e.got), d)
	}
	for len(e.got) > 0 {
		<-e.got
	}
	e.code(http.StatusOK)
	retry(t, n, c.ID)
	if id := e.next(t).head.Get("Webhook-Id"); id != j.ID.String()+".completed.1" {
		t.Errorf("the retry has the id %q", id)
	}
}

// TestCallbackGone disables a URL, durably, until a delivery to it is accepted.
func TestCallbackGone(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.code(http.StatusGone)
	dir := t.TempDir()
	o := Options{Dir: dir, Callbacks: local()}
	n, err := Open(t.Context(), o, jobs.NewRegistry(typesOf(jobs.HandlerFunc(echo), "echo")...))
	mustDo(t, err)
	j := submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	if c := sent(t, n, j, e.URL); c.Status != jobs.Failed || c.Attempt != 1 {
		t.Errorf("%+v", c)
	}
	e.next(t)
	mustDo(t, n.Shutdown(t.Context()))
	n, _ = open(t, o, typesOf(jobs.HandlerFunc(echo), "echo")...)
	other := submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	_, err = n.Wait(t.Context(), other.ID)
	mustDo(t, err)
	d := deliveriesOf(t, n, "")
	if len(d.Deliveries) != 1 || len(d.Disabled) != 1 || d.Disabled[0].URL != e.URL || len(e.got) != 0 {
		t.Fatalf("%+v, and %d requests", d, len(e.got))
	}
	e.code(http.StatusOK)
	retry(t, n, d.Deliveries[0].ID)
	e.next(t)
	if c := sent(t, n, j, e.URL); c.Status != jobs.Completed {
		t.Errorf("%+v", c)
	}
	if d := deliveriesOf(t, n, ""); len(d.Disabled) != 0 {
		t.Errorf("still disabled: %+v", d)
	}
	submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	e.next(t)
}

// TestCallbacksNeedNoWorkers: neither jobs that take all workers nor a pause keep them
// back, and an endpoint that hangs takes no worker from a job.
func TestCallbacksNeedNoWorkers(t *testing.T) {
	t.Parallel()
	e, hanging := newEndpoint(t), newEndpoint(t)
	hold := make(chan struct{})
	hanging.answers(func(http.ResponseWriter, *http.Request) { <-hold })
	gate, running := make(chan struct{}), make(chan struct{}, 1)
	types := append(typesOf(jobs.HandlerFunc(echo), "echo"), typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
		running <- struct{}{}
		return gated(gate)(ctx, task)
	}), "long")...)
	n, c := open(t, Options{Callbacks: local(), Workers: Workers{Max: 1}}, types...)
	t.Cleanup(func() { close(hold) })
	for range 2 * webhook.PerHost {
		submit(t, n, jobs.Submission{Type: "echo", Terms: called(hanging.URL)})
	}
	for range webhook.PerHost {
		hanging.next(t)
	}
	// The only worker goes on, and so does the other host.
	j := submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	e.next(t)
	sent(t, n, j, e.URL)
	long := submit(t, n, jobs.Submission{Type: "long"})
	<-running
	cancelled := submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://localhost/jobs/%s/cancel", cancelled.ID), nil))
	if m := e.next(t).message(t); m.Type != "job.cancelled" || w.Code != http.StatusAccepted {
		t.Errorf("%+v, %d %s", m, w.Code, w.Body)
	}
	c.Pool.PauseAll(true)
	close(gate)
	_, err := n.Wait(t.Context(), long.ID)
	mustDo(t, err)
	waiting := submit(t, n, jobs.Submission{Type: "echo", Terms: called(e.URL)})
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://localhost/jobs/%s/cancel", waiting.ID), nil))
	e.next(t)
}

// TestCallbacksFillNoQueue: those that wait for a dead host leave the bounds of the queue
// to others.
func TestCallbacksFillNoQueue(t *testing.T) {
	t.Parallel()
	hanging := newEndpoint(t)
	hold := make(chan struct{})
	hanging.answers(func(http.ResponseWriter, *http.Request) { <-hold })
	n, _ := open(t, Options{Callbacks: local(), Bounds: Bounds{Queue: 100}}, typesOf(jobs.HandlerFunc(echo), "echo")...)
	t.Cleanup(func() { close(hold) })
	for range 300 {
		j := submit(t, n, jobs.Submission{Type: "echo", Terms: called(hanging.URL)})
		_, err := n.Wait(t.Context(), j.ID)
		mustDo(t, err)
	}
	if d := deliveriesOf(t, n, "limit=500").Deliveries; len(d) != 300 {
		t.Errorf("%d deliveries", len(d))
	}
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/workers/stats", nil))
	var stats struct {
		QueuedJobs    int `json:"queued_jobs"`
		CompletedJobs int `json:"completed_jobs"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &stats); err != nil || stats.QueuedJobs != 0 || stats.CompletedJobs != 300 {
		t.Errorf("%s", w.Body)
	}
}

// TestCallbackRefused at the door names the field, at both forms of a submission.
func TestCallbackRefused(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{Callbacks: local()}, typesOf(jobs.HandlerFunc(echo), "echo")...)
	for _, c := range []struct{ path, body, want string }{
		{"/jobs", `{"type":"echo","callback_url":"http://example.com"}`, `"pointer":"/callback_url","detail":"must begin with https://`},
		{"/jobs", `{"type":"echo","callback_url":"https://10.0.0.1"}`, `"pointer":"/callback_url","detail":"the address 10.0.0.1 is refused: it is private; callbacks.allow could name it"`},
		{"/jobs", `{"type":"echo","callback_url":"nowhere"}`, `"pointer":"/callback_url","detail":"must be an absolute URL`},
		{"/jobs/batch", `{"jobs":[{"type":"echo"},{"type":"echo","callback_url":"https://[::1]/"}]}`, `"pointer":"/jobs/1/callback_url","detail":"the address ::1 is refused`},
		{"/schedules", `{"name":"a","cron":"@daily","type":"echo","callback_url":"https://10.0.0.1"}`, `"pointer":"/callback_url","detail":"the address 10.0.0.1 is refused`},
		{"/jobs", `{"type":"jobstream-webhook","payload":{}}`, `unknown_type`},
	} {
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+c.path, strings.NewReader(c.body)))
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", c.body, w.Code, w.Body)
		}
	}
}

// TestCallbackOfASchedule: its jobs have the schedule's URL.
func TestCallbackOfASchedule(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	n, _ := open(t, Options{Callbacks: local()}, typesOf(jobs.HandlerFunc(echo), "echo")...)
	for _, c := range []struct{ path, body string }{
		{"/schedules", fmt.Sprintf(`{"name":"a","cron":"@yearly","type":"echo","callback_url":%q}`, e.URL)}, {"/schedules/a/run", ""},
	} {
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+c.path, strings.NewReader(c.body)))
		if w.Code/100 != 2 || !strings.Contains(w.Body.String(), `"callback_url":"`+e.URL) {
			t.Fatalf("%s: %d %s", c.path, w.Code, w.Body)
		}
	}
	if m := e.next(t).message(t); m.Type != "job.completed" {
		t.Errorf("%+v", m)
	}
}

// TestCallbacksAfterAReload: an exchange of the types leaves them alone.
func TestCallbacksAfterAReload(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	types := typesOf(jobs.HandlerFunc(echo), "echo")
	n, _ := open(t, Options{Callbacks: local(), Handlers: Handlers{Reread: func() (Reread, error) {
		return Reread{Types: append(typesOf(jobs.HandlerFunc(echo), "added"), types...)}, nil
	}}}, types...)
	r, err := n.Reload(t.Context())
	mustDo(t, err)
	if fmt.Sprint(r.Added, r.Changed, r.Removed) != "[added] [] []" {
		t.Errorf("%+v", r)
	}
	j := submit(t, n, jobs.Submission{Type: "added", Terms: called(e.URL)})
	e.next(t)
	if c := sent(t, n, j, e.URL); c.Status != jobs.Completed || len(e.got) > 0 {
		t.Errorf("%+v", c)
	}
}
