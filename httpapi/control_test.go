package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// TestIdempotency repeats requests of every kind that makes jobs.
func TestIdempotency(t *testing.T) {
	for path, bodies := range map[string][2]string{
		"/jobs":       {anEmail, `{"type":"cleanup"}`},
		"/jobs/batch": {`{"jobs":[` + anEmail + `,{"type":"cleanup"}]}`, `{"jobs":[` + anEmail + `]}`},
		"/jobs/bulk":  {`{"action":"cancel","all":true}`, `{"action":"delete","all":true}`},
	} {
		t.Run(path, func(t *testing.T) {
			r := newRig(t, nil)
			first := r.do(t, "POST", path, bodies[0], "Idempotency-Key", "k")
			first.wantJSON(t, 202, new(any))
			stored := len(r.all)
			again := r.do(t, "POST", path, bodies[0], "Idempotency-Key", "k")
			again.wantJSON(t, 202, new(any))
			if string(first.body) != string(again.body) || first.Header.Get("Location") != again.Header.Get("Location") {
				t.Errorf("the repetition is answered with\n%s, the first with\n%s", again.body, first.body)
			}
			if a, b := first.Header.Get("Idempotent-Replay"), again.Header.Get("Idempotent-Replay"); a != "" || b != "true" {
				t.Errorf("Idempotent-Replay is %q, then %q", a, b)
			}
			r.do(t, "POST", path, bodies[1], "Idempotency-Key", "k").wantProblem(t, 422, "idempotency_mismatch")
			if len(r.all) != stored {
				t.Errorf("%d jobs are stored, %d after the first", len(r.all), stored)
			}
			r.do(t, "POST", path, bodies[0], "Idempotency-Key", "other").wantJSON(t, 202, new(any))
			r.do(t, "POST", path, bodies[0]).wantJSON(t, 202, new(any))
			if len(r.all) != 3*stored {
				t.Errorf("%d jobs are stored, want %d", len(r.all), 3*stored)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		r := newRig(t, nil)
		req, err := http.NewRequestWithContext(t.Context(), "POST", r.url+"/jobs", strings.NewReader(anEmail))
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Idempotency-Key"] = []string{"a", "b"}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 422 || !strings.Contains(string(b), "header/Idempotency-Key") || len(r.all) != 0 {
			t.Errorf("two keys are answered with %d %s", resp.StatusCode, b)
		}
	})
}

// TestDuplicate has an unfinished job hold a unique key.
func TestDuplicate(t *testing.T) {
	r := newRig(t, nil)
	const body = `{"type":"cleanup","unique_key":"u"}`
	j := r.submit(t, body)
	taken := func(a answer) {
		t.Helper()
		a.wantProblem(t, 409, "duplicate")
		var p struct {
			JobID jobs.ID `json:"job_id"`
		}
		if err := json.Unmarshal(a.body, &p); err != nil || p.JobID != j.ID || a.Header.Get("Location") != "/jobs/"+j.ID.String() {
			t.Errorf("the problem is %s with Location %q", a.body, a.Header.Get("Location"))
		}
	}
	taken(r.do(t, "POST", "/jobs", body))
	taken(r.do(t, "POST", "/jobs/batch", `{"jobs":[{"type":"cleanup"},`+body+`]}`))
	old := r.end(j, jobs.KindFailed, "oh")
	j = r.submit(t, body)
	taken(r.do(t, "POST", "/jobs/"+old.ID.String()+"/retry", ""))
}

func TestBatch(t *testing.T) {
	r := newRig(t, nil)
	var got struct{ Jobs []*jobs.Job }
	r.do(t, "POST", "/jobs/batch", `{"jobs":[`+anEmail+`,{"type":"cleanup","tags":["b"]}]}`).wantJSON(t, 202, &got)
	if len(got.Jobs) != 2 || got.Jobs[0].Type != "email" || got.Jobs[1].Tags[0] != "b" || len(r.all) != 2 {
		t.Errorf("got %+v", got.Jobs)
	}
	for _, tt := range []struct {
		path, body string
		status     int
		code       string
		pointers   []string
	}{
		{"", ``, 400, "malformed_json", nil},
		{"", `{}`, 422, "invalid_request", []string{"/jobs"}},
		{"", `[]`, 422, "invalid_request", []string{""}},
		{"", `{"jobs":[]}`, 422, "invalid_request", []string{"/jobs"}},
		{"", `{"jobs":[{"type":"cleanup"},{"type":"fax"}]}`, 422, "unknown_type", []string{"/jobs/1/type"}},
		{"", `{"jobs":[{"type":"cleanup"},{"type":"email"}]}`, 422, "invalid_request", []string{"/jobs/1/payload/to"}},
		{"", `{"jobs":[{"type":"cleanup","priority":9},5]}`, 422, "invalid_request", []string{"/jobs/0/priority", "/jobs/1"}},
		{"?x=1", `{"jobs":[{"type":"cleanup"}]}`, 422, "invalid_request", []string{"query/x"}},
	} {
		t.Run(tt.path+tt.body, func(t *testing.T) {
			r.do(t, "POST", "/jobs/batch"+tt.path, tt.body).wantProblem(t, tt.status, tt.code, tt.pointers...)
		})
	}
	p := r.do(t, "POST", "/jobs/batch", `{"jobs":[`+strings.Repeat(anEmail+",", 20)+anEmail+`]}`).wantProblem(t, 413, "payload_too_large")
	if !strings.Contains(p.Detail, "server.max_body") || !strings.Contains(p.Detail, "fewer jobs") {
		t.Errorf("the detail is %q", p.Detail)
	}
	if len(r.all) != 2 {
		t.Errorf("%d jobs are stored", len(r.all))
	}
}

func TestCancelRetryDelete(t *testing.T) {
	r := newRig(t, nil)
	id := r.submit(t, anEmail).ID.String()
	do := func(method, path, body string, status int, want jobs.Status) *jobs.Job {
		t.Helper()
		var j jobs.Job
		r.do(t, method, "/jobs/"+path, body).wantJSON(t, status, &j)
		if j.Status != want || j.ID.String() != id {
			t.Errorf("%s %s gives %s %s, want %s %s", method, path, j.ID, j.Status, id, want)
		}
		return &j
	}
	refused := func(method, path, body string, status int, code string, pointers ...string) {
		t.Helper()
		r.do(t, method, "/jobs/"+path, body).wantProblem(t, status, code, pointers...)
	}
	refused("POST", id+"/retry", "", 409, "conflict")
	refused("DELETE", id, "", 409, "conflict")
	refused("POST", id+"/cancel", `{"why":"x"}`, 422, "invalid_request", "/why")
	refused("POST", id+"/cancel", `{"reason":"`+strings.Repeat("x", 501)+`"}`, 422, "invalid_request", "/reason")
	refused("POST", id+"/cancel", `reason=x`, 400, "malformed_json")
	refused("POST", id+"/cancel?now=1", "", 422, "invalid_request", "query/now")
	if j := do("POST", id+"/cancel", `{"reason":"no need"}`, 202, jobs.Cancelled); j.Error != "no need" {
		t.Errorf("the error is %q", j.Error)
	}
	refused("POST", id+"/cancel", "", 409, "conflict")
	refused("POST", id+"/retry", `{"reason":"x"}`, 422, "invalid_request", "/reason")
	if j := do("POST", "1/retry", "{}", 202, jobs.Pending); j.Run != 2 {
		t.Errorf("it runs for the time %d", j.Run)
	}
	do("POST", "1/cancel", "", 202, jobs.Cancelled)
	refused("DELETE", id+"?force=1", "", 422, "invalid_request", "query/force")
	a := r.do(t, "DELETE", "/jobs/"+id, "")
	if a.StatusCode != 204 || len(a.body) != 0 {
		t.Errorf("DELETE gives %d %q", a.StatusCode, a.body)
	}
	refused("DELETE", id, "", 404, "not_found")
	refused("POST", id+"/cancel", "", 404, "not_found")
	refused("POST", id+"/retry", "", 404, "not_found")
	refused("POST", "99/retry", "", 404, "not_found")
	refused("DELETE", "nope", "", 404, "not_found")
}

func TestBulk(t *testing.T) {
	r := newRig(t, nil)
	for range 3 {
		r.submit(t, anEmail)
	}
	r.end(r.submit(t, `{"type":"cleanup"}`), jobs.KindFailed, "oh")
	for _, tt := range []struct {
		body string
		want string
	}{
		{`{"action":"cancel","filter":{"type":"email"},"dry_run":true}`, `{"action":"cancel","matched":3}`},
		{`{"action":"retry","all":true,"dry_run":true}`, `{"action":"retry","matched":1}`},
		{`{"action":"delete","filter":{"error":"nothing"},"dry_run":true}`, `{"action":"delete","matched":0}`},
	} {
		a := r.do(t, "POST", "/jobs/bulk", tt.body)
		if a.StatusCode != 200 || strings.TrimSpace(string(a.body)) != tt.want {
			t.Errorf("%s gives %d %s, want %s", tt.body, a.StatusCode, a.body, tt.want)
		}
	}
	if len(r.all) != 4 {
		t.Errorf("a dry run left a job: %d are stored", len(r.all))
	}
	const body = `{"action":"cancel","filter":{"type":"email"},"reason":"r"}`
	var j jobs.Job
	a := r.do(t, "POST", "/jobs/bulk", body)
	a.wantJSON(t, 202, &j)
	if j.Type != api.BulkType || j.Priority != 1 || string(j.Payload) != body || a.Header.Get("Location") != "/jobs/"+j.ID.String() {
		t.Errorf("the job is %s at %s", a.body, a.Header.Get("Location"))
	}
	for _, tt := range []struct {
		body, code string
		status     int
		pointers   []string
	}{
		{``, "malformed_json", 400, nil},
		{`{"action":"cancel"}`, "invalid_request", 422, []string{"/filter"}},
		{`{"action":"burn","filter":{"colour":"red"}}`, "invalid_request", 422, []string{"/filter/colour", "/action"}},
	} {
		r.do(t, "POST", "/jobs/bulk", tt.body).wantProblem(t, tt.status, tt.code, tt.pointers...)
	}
}

func TestWaitingShown(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit(t, anEmail)
	r.waiting[j.ID] = &jobs.Waiting{Reason: jobs.WaitTypePaused, Detail: "paused", Position: 3}
	a := r.do(t, "GET", "/jobs/1", "")
	a.wantJSON(t, 200, new(jobs.Job))
	if want := `,"waiting":{"reason":"type_paused","detail":"paused","position":3}}` + "\n"; !strings.HasSuffix(string(a.body), want) {
		t.Errorf("the job is %s, want %s at its end", a.body, want)
	}
	if a := r.do(t, "GET", "/jobs", ""); strings.Contains(string(a.body), "waiting") {
		t.Errorf("a list shows it, too: %s", a.body)
	}
}

func TestCounts(t *testing.T) {
	r := newRig(t, nil)
	r.submit(t, anEmail)
	r.end(r.submit(t, `{"type":"cleanup"}`), jobs.KindCompleted, "")
	for query, want := range map[string]string{"": "2 1", "?status=completed": "1 0", "?type=email&type=fax": "1 1", "?tag=x": "0 0"} {
		var got map[string]any // total, seven statuses, types
		r.do(t, "GET", "/jobs/counts"+query, "").wantJSON(t, 200, &got)
		if s := fmt.Sprint(got["total"], got["pending"]); s != want || len(got) != 9 {
			t.Errorf("%s: %s of %v, want %s", query, s, got, want)
		}
	}
	for query, pointer := range map[string]string{"?status=x": "query/status", "?limit=1": "query/limit", "?error=x": "query/error", "?%zz": "query"} {
		r.do(t, "GET", "/jobs/counts"+query, "").wantProblem(t, 422, "invalid_request", pointer)
	}
}

func TestTypes(t *testing.T) {
	r := newRig(t, nil)
	type kind struct {
		Name   string
		Paused bool
	}
	var list struct{ Types []kind }
	r.do(t, "GET", "/types", "").wantJSON(t, 200, &list)
	if len(list.Types) != 2 || list.Types[0].Name != "cleanup" || list.Types[1].Name != "email" {
		t.Errorf("the types are %+v", list.Types)
	}
	for _, step := range []struct {
		method, path string
		paused       bool
	}{
		{"GET", "/types/email", false},
		{"POST", "/types/email/pause", true},
		{"POST", "/types/email/pause", true},
		{"GET", "/types/email", true},
		{"GET", "/types/cleanup", false},
		{"POST", "/types/email/resume", false},
		{"GET", "/types/email", false},
	} {
		var got kind
		r.do(t, step.method, step.path, "").wantJSON(t, 200, &got)
		if got.Paused != step.paused || !strings.Contains(step.path, got.Name) {
			t.Errorf("%s %s gives %+v", step.method, step.path, got)
		}
	}
	for _, name := range []string{"fax", api.BulkType} {
		r.do(t, "POST", "/types/"+name+"/pause", "").wantProblem(t, 404, "not_found")
		r.do(t, "POST", "/types/"+name+"/resume", "").wantProblem(t, 404, "not_found")
	}
	r.do(t, "POST", "/types/email/pause", `{"until":5}`).wantProblem(t, 422, "invalid_request", "/until")
	r.do(t, "POST", "/types/email/pause?for=5m", "").wantProblem(t, 422, "invalid_request", "query/for")
}

// TestWaitQuery has jobs end while a client waits for them.
func TestWaitQuery(t *testing.T) {
	r := newRig(t, nil)
	r.waits = make(chan struct{}, 1)
	for _, ref := range []func(j *jobs.Job) string{
		func(j *jobs.Job) string { return j.ID.String() },
		func(j *jobs.Job) string { return fmt.Sprint(j.Seq) },
	} {
		j := r.submit(t, anEmail)
		var ending sync.WaitGroup
		ending.Go(func() {
			<-r.waits
			r.end(j, jobs.KindCompleted, "")
		})
		var got jobs.Job
		r.do(t, "GET", "/jobs/"+ref(j)+"?wait=10m", "").wantJSON(t, 200, &got)
		ending.Wait()
		if got.Status != jobs.Completed || got.ID != j.ID {
			t.Errorf("after the wait it is %s", got.Status)
		}
		r.do(t, "GET", "/jobs/"+ref(j)+"?wait=10m", "").wantJSON(t, 200, &got) // it waits for nothing
	}
	j := r.submit(t, anEmail)
	var got jobs.Job
	r.do(t, "GET", "/jobs/"+j.ID.String()+"?wait=0", "").wantJSON(t, 200, &got)
	if got.Status != jobs.Pending {
		t.Errorf("without a wait it is %s", got.Status)
	}
	for _, q := range []string{"wait=", "wait=-1", "wait=soon", "wait=11m", "wait=601", "wait=1&wait=2"} {
		r.do(t, "GET", "/jobs/1?"+q, "").wantProblem(t, 422, "invalid_request", "query/wait")
	}
	r.do(t, "GET", "/jobs/1?wait=1&colour=red", "").wantProblem(t, 422, "invalid_request", "query/colour")
	r.do(t, "GET", "/jobs/99?wait=1", "").wantProblem(t, 404, "not_found")

	var gone sync.WaitGroup
	gone.Go(func() { // deleted while somebody waits for it
		<-r.waits
		byHand{r.backend}.gone(j)
	})
	r.do(t, "GET", "/jobs/"+j.ID.String()+"?wait=5m", "").wantProblem(t, 404, "not_found")
	gone.Wait()
}

// gone deletes a job.
func (b byHand) gone(j *jobs.Job) {
	b.become(j, func(now *jobs.Job) { *now = jobs.Job{Key: j.Key} })
	b.endings.Committed(&jobs.Commit{Changes: []jobs.Change{{Before: j}}})
}

// TestPrefer submits with a preference to wait.
func TestPrefer(t *testing.T) {
	for _, tt := range []struct {
		prefer  string
		applied string // "" = answered at once
	}{
		{"wait=10", "wait=10"},
		{"WAIT = 10", "wait=10"},
		{`respond-async, wait="10"; x=y`, "wait=10"},
		{`foo="a,wait=1\",", wait=20, wait=5`, "wait=20"},
		{"wait=99999999999999999999", "wait=600"},
		{"wait=3600", "wait=600"},
		{"", ""},
		{"wait", ""},
		{"wait=", ""},
		{"wait=0", ""},
		{"wait=-1", ""},
		{"wait=1.5", ""},
		{"wait=10s", ""},
		{`wait="10`, ""},
		{"await=10", ""},
		{"wait=x, wait=10", ""},
		{`foo="wait=10"`, ""},
		{";;,,==", ""},
	} {
		t.Run(tt.prefer, func(t *testing.T) {
			r := newRig(t, nil)
			r.waits = make(chan struct{}, 1)
			var ending sync.WaitGroup
			if tt.applied != "" {
				ending.Go(func() {
					<-r.waits
					j, _ := r.JobBySeq(t.Context(), 1)
					r.end(j, jobs.KindFailed, "oh")
				})
			}
			a := r.do(t, "POST", "/jobs", anEmail, "Prefer", tt.prefer)
			ending.Wait()
			var j jobs.Job
			want, status := jobs.Failed, 200
			if tt.applied == "" {
				want, status = jobs.Pending, 202
			}
			a.wantJSON(t, status, &j)
			if j.Status != want || a.Header.Get("Preference-Applied") != tt.applied || a.Header.Get("Location") != "/jobs/"+j.ID.String() {
				t.Errorf("got %s with %v", j.Status, a.Header)
			}
		})
	}
	t.Run("a lookup that breaks", func(t *testing.T) {
		r := newRig(t, func(o *httpapi.Options) { o.Backend.Reader = blind{o.Backend.Reader.(*backend)} })
		r.do(t, "POST", "/jobs", anEmail, "Prefer", "wait=10").wantJSON(t, 202, new(jobs.Job))
	})
}

// blind is a Backend that cannot wait.
type blind struct{ *backend }

func (blind) Wait(context.Context, jobs.ID) (*jobs.Job, error) { return nil, errors.New("boom") }

// TestDrainEndsWaits stops the server while clients wait.
func TestDrainEndsWaits(t *testing.T) {
	r := newRig(t, nil)
	r.waits = make(chan struct{}, 2)
	j := r.submit(t, anEmail)
	var clients sync.WaitGroup
	clients.Go(func() {
		var got jobs.Job
		r.do(t, "GET", "/jobs/"+j.ID.String()+"?wait=10m", "").wantJSON(t, 200, &got)
		if got.Status != jobs.Pending {
			t.Errorf("the lookup shows %s", got.Status)
		}
	})
	clients.Go(func() {
		a := r.do(t, "POST", "/jobs", anEmail, "Prefer", "wait=600")
		a.wantJSON(t, 202, new(jobs.Job))
		if a.Header.Get("Preference-Applied") != "" {
			t.Error("the preference counts as applied")
		}
	})
	for range 2 {
		receive(t, "a wait", r.waits)
	}
	r.server.Drain()
	clients.Wait()
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	gone  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.gone) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// TestWaitOutlastsTimeouts waits longer than the server gives other requests, and
// goes on with the same connection.
func TestWaitOutlastsTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		s := httpapi.New(httpapi.Options{Backend: behind(b)})
		l := &pipes{conns: make(chan net.Conn), gone: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		client, server := net.Pipe()
		l.conns <- server
		in := bufio.NewReader(client)
		do := func(request string) answer {
			t.Helper()
			c := &raw{client, in}
			c.write(t, request)
			return c.read(t)
		}
		j := b.submit(t, anEmail)
		start := time.Now()
		time.AfterFunc(9*time.Minute, func() { b.end(j, jobs.KindCompleted, "") })
		var got jobs.Job
		do("GET /jobs/1?wait=10m HTTP/1.1\r\nHost: localhost\r\n\r\n").wantJSON(t, 200, &got)
		if took := time.Since(start); got.Status != jobs.Completed || took != 9*time.Minute {
			t.Errorf("it is %s after %s", got.Status, took)
		}
		start = time.Now()
		body := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(anEmail), anEmail)
		do("POST /jobs HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=500\r\n"+body).wantJSON(t, 202, &got)
		if took := time.Since(start); got.Status != jobs.Pending || took != 500*time.Second {
			t.Errorf("it is %s after %s", got.Status, took)
		}
		do("GET /jobs/2 HTTP/1.1\r\nHost: localhost\r\n\r\n").wantJSON(t, 200, &got)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		client.Close()
	})
}
