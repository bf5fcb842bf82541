package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

const deadline = 20 * time.Second

const anEmail = `{"type":"email","payload":{"to":"user@example.com","subject":"Hello","body":"Test email"}}`

// rig is a server on a port of its own, with what stands behind it.
type rig struct {
	*backend
	server *httpapi.Server
	url    string
	log    *bytes.Buffer // read it only after the requests
}

func newRig(t *testing.T, change func(o *httpapi.Options)) *rig {
	t.Helper()
	r := &rig{backend: newBackend(), log: &bytes.Buffer{}}
	o := httpapi.Options{
		Backend: behind(r.backend), MaxBody: 1024,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	o.Backend.Artifacts = jobs.NewArtifactDir(t.TempDir(), 0)
	if change != nil {
		change(&o)
	}
	r.server = httpapi.New(o)
	s := httptest.NewServer(r.server.Handler())
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

// answer is a response that has been read.
type answer struct {
	*http.Response
	body []byte
}

func (r *rig) do(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	return r.send(t, method, path, reader, header...)
}

func (r *rig) send(t *testing.T, method, path string, body io.Reader, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, b}
}

type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	Errors                    []jobs.FieldError
}

// wantProblem checks that a is the problem with this status, code and pointers.
func (a answer) wantProblem(t *testing.T, status int, code string, pointers ...string) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%d with a body that is not JSON (%v): %s", a.StatusCode, err, a.body)
	}
	if ct := a.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type is %q", ct)
	}
	if a.StatusCode != status || p.Status != status || p.Code != code || p.Title == "" || p.Detail == "" || p.Type == "" {
		t.Errorf("got %d %s, want %d and a whole problem with code %s", a.StatusCode, a.body, status, code)
	}
	got := make([]string, len(p.Errors))
	for i, e := range p.Errors {
		got[i] = e.Pointer
	}
	if strings.Join(got, " ") != strings.Join(pointers, " ") {
		t.Errorf("pointers are %q, want %q", got, pointers)
	}
	a.wantPlain(t)
	return p
}

// wantPlain checks the headers that all answers but files have.
func (a answer) wantPlain(t *testing.T) {
	t.Helper()
	if a.Header.Get("X-Request-Id") == "" {
		t.Error("no X-Request-Id")
	}
	if got := a.Header.Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("X-Content-Type-Options is %q", got)
	}
	if got := a.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
}

// wantJSON checks the status and reads the body into v.
func (a answer) wantJSON(t *testing.T, status int, v any) {
	t.Helper()
	a.wantPlain(t)
	if a.StatusCode != status {
		t.Fatalf("got %d %s, want %d", a.StatusCode, a.body, status)
	}
	if ct := a.Header.Get("Content-Type"); ct != "application/json; charset=utf-8" {
		t.Errorf("Content-Type is %q", ct)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	if !bytes.HasSuffix(a.body, []byte("}\n")) {
		t.Error("no newline at the end")
	}
	if cl := a.Header.Get("Content-Length"); cl != strconv.Itoa(len(a.body)) {
		t.Errorf("Content-Length is %q, the body has %d bytes", cl, len(a.body))
	}
}

func TestSubmit(t *testing.T) {
	tests := []struct {
		name, body string
		header     []string
	}{
		{name: "plain curl", body: anEmail, header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{name: "no content type", body: anEmail},
		{name: "json", body: anEmail, header: []string{"Content-Type", "application/json"}},
		{name: "identity", body: anEmail, header: []string{"Content-Encoding", "identity"}},
		{name: "a preference", body: anEmail, header: []string{"Prefer", "respond-async"}},
		{name: "everything", body: `{"type":"email","payload":{"to":"a"},"priority":1,"retry_count":0,"timeout":"5m","tags":["a"]}`},
		{name: "spread out", body: "\n{\n \"type\" : \"cleanup\"\n}\n"},
	}
	r := newRig(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := r.do(t, "POST", "/jobs", tt.body, tt.header...)
			var j, again jobs.Job
			a.wantJSON(t, http.StatusAccepted, &j)
			loc := a.Header.Get("Location")
			if loc != "/jobs/"+j.ID.String() {
				t.Errorf("Location is %q", loc)
			}
			b := r.do(t, "GET", loc, "")
			b.wantJSON(t, http.StatusOK, &again)
			if !bytes.Equal(a.body, b.body) {
				t.Errorf("GET shows\n%s, POST\n%s", b.body, a.body)
			}
			c := r.do(t, "GET", fmt.Sprintf("/jobs/%d", j.Seq), "")
			if !bytes.Equal(a.body, c.body) {
				t.Errorf("GET by seq shows\n%s", c.body)
			}
		})
	}
}

func TestSubmitRefused(t *testing.T) {
	tests := []struct {
		name, path, body string
		header           []string
		status           int
		code             string
		pointers         []string
	}{
		{name: "empty", status: 400, code: "malformed_json"},
		{name: "blank", body: " \n", status: 400, code: "malformed_json"},
		{name: "not JSON", body: "type=email", status: 400, code: "malformed_json"},
		{name: "cut off", body: `{"type":`, status: 400, code: "malformed_json"},
		{name: "two values", body: `{"type":"email"}{}`, status: 400, code: "malformed_json"},
		{name: "NUL", body: "{\"type\":\"em\x00ail\"}", status: 400, code: "malformed_json"},
		{name: "not UTF-8", body: "{\"type\":\"em\xffail\"}", status: 400, code: "malformed_json"},
		{name: "deep", body: strings.Repeat("[", 1000), status: 400, code: "malformed_json"},
		{name: "a list", body: `[]`, status: 422, code: "invalid_request", pointers: []string{""}},
		{name: "null", body: `null`, status: 422, code: "invalid_request", pointers: []string{""}},
		{name: "no type", body: `{}`, status: 422, code: "invalid_request", pointers: []string{"/type"}},
		{name: "unknown type", body: `{"type":"fax"}`, status: 422, code: "unknown_type", pointers: []string{"/type"}},
		{name: "unknown fields", body: `{"type":"email","callback_url":"x","colour":"red"}`, status: 422, code: "invalid_request", pointers: []string{"/callback_url", "/colour"}},
		{name: "bad terms", body: `{"type":"email","delay":-5,"unique_key":""}`, status: 422, code: "invalid_request", pointers: []string{"/delay", "/unique_key"}},
		{name: "twice", body: `{"type":"email","type":"email"}`, status: 422, code: "invalid_request", pointers: []string{"/type"}},
		{name: "bad values", body: `{"type":"email","priority":6,"retry_count":-1,"timeout":0,"tags":"a"}`, status: 422, code: "invalid_request", pointers: []string{"/priority", "/retry_count", "/timeout", "/tags"}},
		{name: "bad payload", body: `{"type":"email","payload":{}}`, status: 422, code: "invalid_request", pointers: []string{"/payload/to"}},
		{name: "wait", path: "?wait=30s", body: anEmail, status: 422, code: "invalid_request", pointers: []string{"query/wait"}},
		{name: "queries", path: "?x=1&a=2&x=3", body: anEmail, status: 422, code: "invalid_request", pointers: []string{"query/a", "query/x"}},
		{name: "bad query", path: "?x=%zz", body: anEmail, status: 422, code: "invalid_request", pointers: []string{"query"}},
		{name: "empty idempotency key", body: anEmail, header: []string{"Idempotency-Key", ""}, status: 422, code: "invalid_request", pointers: []string{"header/Idempotency-Key"}},
		{name: "long idempotency key", body: anEmail, header: []string{"Idempotency-Key", strings.Repeat("k", 257)}, status: 422, code: "invalid_request", pointers: []string{"header/Idempotency-Key"}},
		{name: "tab in an idempotency key", body: anEmail, header: []string{"Idempotency-Key", "a\tb"}, status: 422, code: "invalid_request", pointers: []string{"header/Idempotency-Key"}},
		{name: "gzip", body: anEmail, header: []string{"Content-Encoding", "gzip"}, status: 422, code: "invalid_request", pointers: []string{"header/Content-Encoding"}},
		{name: "too large", body: `{"type":"` + strings.Repeat("x", 1024) + `"}`, status: 413, code: "payload_too_large"},
	}
	r := newRig(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.do(t, "POST", "/jobs"+tt.path, tt.body, tt.header...).wantProblem(t, tt.status, tt.code, tt.pointers...)
		})
	}
	if len(r.all) != 0 {
		t.Errorf("%d jobs were stored", len(r.all))
	}
}

func TestBackendErrors(t *testing.T) {
	tests := []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{&jobs.Error{Kind: jobs.QueueFull, Detail: "full", RetryAfter: 1500 * time.Millisecond}, 429, "queue_full", "2"},
		{&jobs.Error{Kind: jobs.ShuttingDown, Detail: "bye", RetryAfter: time.Second}, 503, "shutting_down", "1"},
		{fmt.Errorf("submitting: %w", &jobs.Error{Kind: jobs.Unavailable, Detail: "disk full"}), 503, "unavailable", ""},
		{&jobs.Error{Kind: jobs.Conflict, Detail: "no"}, 409, "conflict", ""},
		{errors.New("secret-detail"), 500, "internal", ""},
	}
	requests := []struct{ method, path, body string }{
		{"POST", "/jobs", anEmail},
		{"POST", "/jobs/batch", `{"jobs":[` + anEmail + `]}`},
		{"POST", "/jobs/bulk", `{"action":"cancel","all":true}`},
		{"POST", "/jobs/bulk", `{"action":"cancel","all":true,"dry_run":true}`},
		{"GET", "/jobs/counts", ""},
		{"POST", "/jobs/1/cancel", ""},
		{"POST", "/jobs/1/retry", ""},
		{"DELETE", "/jobs/1", ""},
		{"GET", "/types", ""},
		{"GET", "/types/email", ""},
		{"POST", "/types/email/pause", ""},
		{"POST", "/types/email/resume", ""},
		{"GET", "/jobs", ""},
		{"GET", "/jobs/1", ""},
		{"GET", "/jobs/" + jobs.NewID().String(), ""},
		{"GET", "/jobs/1/events", ""},
		{"GET", "/jobs/1/result", ""},
		{"GET", "/workers/stats", ""},
		{"PUT", "/workers", `{"max_workers":5}`},
	}
	for _, tt := range tests {
		t.Run(tt.code, func(t *testing.T) {
			r := newRig(t, nil)
			r.fail(tt.err)
			for _, q := range requests {
				a := r.do(t, q.method, q.path, q.body, "X-Request-Id", "id-of-the-request")
				a.wantProblem(t, tt.status, tt.code)
				if got := a.Header.Get("Retry-After"); got != tt.retry {
					t.Errorf("Retry-After is %q, want %q", got, tt.retry)
				}
				if bytes.Contains(a.body, []byte("secret")) {
					t.Errorf("an internal error shows its details: %s", a.body)
				}
			}
			logged := r.log.String()
			if tt.status == 500 != (strings.Contains(logged, "secret-detail") && strings.Contains(logged, "id-of-the-request")) {
				t.Errorf("the log says %q", logged)
			}
		})
	}
}

// TestBodies sends bodies of all kinds around the bound, with a known length and
// in chunks.
func TestBodies(t *testing.T) {
	const bound = 200 << 10
	r := newRig(t, func(o *httpapi.Options) { o.MaxBody = bound })
	around := `{"type":"email","payload":{"to":""}}`
	for _, size := range []int{100, 64 << 10, 64<<10 + 1, bound - 1, bound, bound + 1, 4 * bound} {
		to := strings.Repeat("x", size-len(around))
		body := strings.Replace(around, `""`, `"`+to+`"`, 1)
		for name, reader := range map[string]io.Reader{
			"known": strings.NewReader(body), "chunked": struct{ io.Reader }{strings.NewReader(body)},
		} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				a := r.send(t, "POST", "/jobs", reader)
				if size > bound {
					a.wantProblem(t, 413, "payload_too_large")
					return
				}
				var j jobs.Job
				a.wantJSON(t, 202, &j)
				if want := `{"to":"` + to + `"}`; string(j.Payload) != want {
					t.Errorf("the payload has %d bytes, want %d", len(j.Payload), len(want))
				}
			})
		}
	}
}

// TestPayloadsStay submits different jobs over one connection: no payload may
// change when the next request comes.
func TestPayloadsStay(t *testing.T) {
	r := newRig(t, nil)
	for i := range 100 {
		r.do(t, "POST", "/jobs", fmt.Sprintf(`{"type":"email","payload":{"to":"%d"}}`, i))
	}
	for i, j := range r.all {
		if want := fmt.Sprintf(`{"to":"%d"}`, i); string(j.Payload) != want {
			t.Errorf("payload %d is %s", i, j.Payload)
		}
	}
}

func TestNotFound(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit(t, anEmail)
	id := j.ID.String()
	paths := []string{
		"/nothing", "/jobs/", "/jobs/" + id + "/", "/jobs/" + id + "/events/", "/jobs/" + id + "/nothing",
		"/jobs/" + jobs.NewID().String(), "/jobs/99", "/jobs/0", "/jobs/-1", "/jobs/01", "/jobs/1x", "/jobs/x",
		"/jobs/99999999999999999999", "/jobs/" + id[:35], "/jobs/" + id + "0", "/jobs/{" + id + "}",
		"/jobs/" + strings.ReplaceAll(id, "-", ""), "/jobs/urn:uuid:" + id,
		"/jobs/%00", "/jobs/%2f", "/jobs/%ff", "/jobs/%31", "/jobs/..", "/jobs/%2e%2e/events", "//jobs", "/jobs//events", "/%6aobs",
		"/Jobs", "/jobs/1/Events", "/workers/", "/workers/x", "/jobs/batch", "/jobs/bulk", "/metrics/", "/openapi.yaml",
		"/docs/", "/docs/x", "/types/", "/types/fax", "/types/Email", "/types/" + api.BulkType, "/types/email/x", "/events/", "/jobs/99/events", "/jobs/99/result", "/jobs/x/result",
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			r.do(t, "GET", path, "").wantProblem(t, 404, "not_found")
		})
	}
	for _, path := range []string{"/jobs/x/cancel", "/jobs/99x/retry", "/jobs/x", "/jobs/x/events"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			t.Run(method+" "+path, func(t *testing.T) {
				r.do(t, method, path, "{}").wantProblem(t, 404, "not_found")
			})
		}
	}
}

func TestMethods(t *testing.T) {
	r := newRig(t, nil)
	id := r.submit(t, anEmail).ID.String()
	allowed := map[string][]string{
		"/jobs":                   {"GET", "HEAD", "POST"},
		"/jobs/" + id:             {"GET", "HEAD", "DELETE", "PATCH"},
		"/jobs/1":                 {"GET", "HEAD", "DELETE", "PATCH"},
		"/jobs/1/cancel":          {"POST"},
		"/jobs/1/retry":           {"POST"},
		"/types":                  {"GET", "HEAD"},
		"/types/email":            {"GET", "HEAD"},
		"/types/email/pause":      {"POST"},
		"/types/email/resume":     {"POST"},
		"/jobs/" + id + "/events": {"GET", "HEAD"},
		"/jobs/" + id + "/result": {"GET", "HEAD"},
		"/workers":                {"GET", "HEAD", "PUT"},
		"/workers/stats":          {"GET", "HEAD"},
		"/livez":                  {"GET", "HEAD"},
		"/readyz":                 {"GET", "HEAD"},
		"/healthz":                {"GET", "HEAD"},
		"/health":                 {"GET", "HEAD"},
	}
	for path, methods := range allowed {
		want := map[string]bool{"OPTIONS": true}
		for _, m := range methods {
			want[m] = true
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW"} {
			t.Run(method+" "+path, func(t *testing.T) {
				a := r.do(t, method, path, "")
				if want[method] && method != "OPTIONS" {
					if a.StatusCode == 405 {
						t.Errorf("got 405")
					}
					return
				}
				switch {
				case method == "OPTIONS" && a.StatusCode != 204:
					t.Errorf("got %d, want 204", a.StatusCode)
				case method == "HEAD" && a.StatusCode != 405:
					t.Errorf("got %d, want 405", a.StatusCode)
				case method != "OPTIONS" && method != "HEAD":
					p := a.wantProblem(t, 405, "method_not_allowed")
					if allow := a.Header.Get("Allow"); allow == "" || !strings.Contains(p.Detail, allow) {
						t.Errorf("the detail %q does not say what is allowed: %q", p.Detail, allow)
					}
				}
				got := strings.Split(a.Header.Get("Allow"), ", ")
				if len(got) != len(want) {
					t.Errorf("Allow is %q, want %v", got, want)
				}
				for _, m := range got {
					if !want[m] {
						t.Errorf("Allow has %q, want %v", m, want)
					}
				}
			})
		}
	}
}

func TestHead(t *testing.T) {
	r := newRig(t, nil)
	for range 60 { // a list that does not fit into net/http's own buffer
		r.submit(t, anEmail)
	}
	for _, path := range []string{"/jobs", "/jobs?limit=1", "/jobs/1", "/jobs/1/events", "/jobs/1/result", "/jobs/99", "/nothing", "/workers/stats", "/types", "/jobs/counts", "/livez", "/readyz", "/health", "/healthz"} {
		t.Run(path, func(t *testing.T) {
			get, head := r.do(t, "GET", path, ""), r.do(t, "HEAD", path, "")
			if head.StatusCode != get.StatusCode || len(head.body) != 0 {
				t.Errorf("HEAD gives %d and %d bytes, GET %d", head.StatusCode, len(head.body), get.StatusCode)
			}
			for _, name := range []string{"Content-Length", "Content-Type"} {
				h, g := head.Header.Get(name), get.Header.Get(name)
				if listed := strings.HasPrefix(path, "/jobs?") || path == "/jobs"; listed && name == "Content-Length" && h == "" {
					continue // it is not made for HEAD
				}
				if h != g || g == "" {
					t.Errorf("%s is %q for HEAD, %q for GET", name, h, g)
				}
			}
		})
	}
}

func TestList(t *testing.T) {
	r := newRig(t, nil)
	for i := range 5 {
		r.submit(t, fmt.Sprintf(`{"type":"email","payload":{"to":"a"},"tags":["t%d"]}`, i%2))
	}
	r.submit(t, `{"type":"cleanup"}`)
	type list struct {
		Jobs []*jobs.Job
		Next string `json:"next_cursor"`
	}
	tests := []struct {
		query string
		seqs  []uint64
		next  string
	}{
		{"", []uint64{1, 2, 3, 4, 5, 6}, ""},
		{"?limit=2", []uint64{1, 2}, "2"},
		{"?limit=2&cursor=2", []uint64{3, 4}, "4"},
		{"?type=cleanup", []uint64{6}, ""},
		{"?type=cleanup&type=email&limit=500", []uint64{1, 2, 3, 4, 5, 6}, ""},
		{"?tag=t1", []uint64{2, 4}, ""},
		{"?status=failed", nil, ""},
		{"?status=failed&status=pending", []uint64{1, 2, 3, 4, 5, 6}, ""},
		{"?created_before=2020-01-01", nil, ""},
		{"?created_after=2020-01-01&order=asc", []uint64{1, 2, 3, 4, 5, 6}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			var got list
			r.do(t, "GET", "/jobs"+tt.query, "").wantJSON(t, 200, &got)
			var seqs []uint64
			for _, j := range got.Jobs {
				seqs = append(seqs, j.Seq)
			}
			if fmt.Sprint(seqs) != fmt.Sprint(tt.seqs) || got.Next != tt.next || got.Jobs == nil {
				t.Errorf("got %v, next %q; want %v, %q", seqs, got.Next, tt.seqs, tt.next)
			}
		})
	}
	refused := map[string]string{
		"?status=done": "query/status", "?limit=0": "query/limit", "?limit=501": "query/limit", "?order=x": "query/order",
		"?cursor=x": "query/cursor", "?created_after=x": "query/created_after", "?wait=1": "query/wait", "?a=1;b=2": "query",
		"?limit=1&limit=2": "query/limit",
	}
	for q, pointer := range refused {
		t.Run(q, func(t *testing.T) {
			r.do(t, "GET", "/jobs"+q, "").wantProblem(t, 422, "invalid_request", pointer)
		})
	}
	for _, path := range []string{"/jobs/counts", "/jobs/1/events", "/jobs/1/result", "/workers/stats", "/types", "/types/email"} {
		t.Run(path, func(t *testing.T) {
			r.do(t, "GET", path+"?wait=30s", "").wantProblem(t, 422, "invalid_request", "query/wait")
		})
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit(t, anEmail)
	var got struct {
		Events []struct {
			Seq  int
			Kind string
		}
	}
	r.do(t, "GET", "/jobs/"+j.ID.String()+"/events", "").wantJSON(t, 200, &got)
	if len(got.Events) != 1 || got.Events[0].Kind != "submitted" || got.Events[0].Seq != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestWorkers(t *testing.T) {
	r := newRig(t, nil)
	var st api.Stats
	r.do(t, "GET", "/workers/stats", "").wantJSON(t, 200, &st)
	if st.MaxWorkers != 10 {
		t.Errorf("max_workers is %d", st.MaxWorkers)
	}
	r.do(t, "PUT", "/workers", `{"max_workers":20,"types":{"email":{"max_workers":2}}}`).wantJSON(t, 200, &st)
	if st.MaxWorkers != 20 || r.resizes[0].Types["email"] != 2 {
		t.Errorf("got %+v after %+v", st, r.resizes)
	}
	refused := []struct {
		path, body string
		status     int
		code       string
		pointers   []string
	}{
		{"", ``, 400, "malformed_json", nil},
		{"", `{}`, 422, "invalid_request", []string{"/max_workers"}},
		{"", `{"max_workers":0}`, 422, "invalid_request", []string{"/max_workers"}},
		{"", `{"max_workers":1,"min":1}`, 422, "invalid_request", []string{"/min"}},
		{"", `{"types":{"fax":{"max_workers":2}}}`, 422, "unknown_type", []string{"/types/fax"}},
		{"?x=1", `{"max_workers":1}`, 422, "invalid_request", []string{"query/x"}},
		{"", `"` + strings.Repeat("x", 1024) + `"`, 413, "payload_too_large", nil},
	}
	for _, tt := range refused {
		t.Run(tt.path+tt.body[:min(len(tt.body), 40)], func(t *testing.T) {
			r.do(t, "PUT", "/workers"+tt.path, tt.body).wantProblem(t, tt.status, tt.code, tt.pointers...)
		})
	}
	if len(r.resizes) != 1 {
		t.Errorf("%d resizes came through, want 1", len(r.resizes))
	}
}

func TestHealth(t *testing.T) {
	check := func(t *testing.T, r *rig, path string, status int, want string) {
		t.Helper()
		var got map[string]any
		a := r.do(t, "GET", path, "")
		a.wantJSON(t, status, &got)
		if s := strings.TrimSpace(string(a.body)); s != want {
			t.Errorf("%s says %s, want %s", path, s, want)
		}
	}
	t.Run("well", func(t *testing.T) {
		r := newRig(t, func(o *httpapi.Options) { o.Health = health{"broker": nil, "tracker": nil} })
		check(t, r, "/livez", 200, `{"status":"ok","checks":{}}`)
		check(t, r, "/readyz?verbose", 200, `{"status":"ok","checks":{"broker":"ok","server":"ok","tracker":"ok"}}`)
		check(t, r, "/healthz", 200, `{"status":"ok","checks":{"broker":"ok","tracker":"ok"}}`)
		check(t, r, "/health", 200, `{"status":"ok","checks":{"broker":"ok","tracker":"ok"}}`)
	})
	t.Run("ill", func(t *testing.T) {
		r := newRig(t, func(o *httpapi.Options) { o.Health = health{"broker": errors.New("disk full"), "tracker": nil} })
		check(t, r, "/livez", 200, `{"status":"ok","checks":{}}`)
		check(t, r, "/readyz", 503, `{"status":"unavailable","checks":{"broker":"disk full","server":"ok","tracker":"ok"}}`)
		check(t, r, "/health", 503, `{"status":"unavailable","checks":{"broker":"disk full","tracker":"ok"}}`)
	})
	t.Run("draining", func(t *testing.T) {
		r := newRig(t, nil)
		r.submit(t, anEmail)
		r.server.Drain()
		check(t, r, "/livez", 200, `{"status":"ok","checks":{}}`)
		check(t, r, "/healthz", 200, `{"status":"ok","checks":{}}`)
		check(t, r, "/readyz", 503, `{"status":"unavailable","checks":{"server":"shutting down"}}`)
		for path, body := range map[string]string{"": anEmail, "/batch": `{"jobs":[` + anEmail + `]}`, "/bulk": `{"action":"cancel","all":true}`} {
			a := r.do(t, "POST", "/jobs"+path, body)
			a.wantProblem(t, 503, "shutting_down")
			if a.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
		r.do(t, "GET", "/jobs/1", "").wantJSON(t, 200, new(jobs.Job))
		r.do(t, "PUT", "/workers", `{"max_workers":1}`).wantJSON(t, 200, new(api.Stats))
	})
}

func TestRequestID(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/jobs", "/jobs/99", "/nothing", "/livez"} {
		for given, kept := range map[string]bool{
			"abc-123": true, "a b": true, strings.Repeat("x", 128): true,
			"": false, strings.Repeat("x", 129): false, "ümlaut": false, "a\tb": false,
		} {
			t.Run(path+" "+given, func(t *testing.T) {
				got := r.do(t, "GET", path, "", "X-Request-Id", given).Header["X-Request-Id"]
				if len(got) != 1 {
					t.Fatalf("X-Request-Id is %q", got)
				}
				if kept && got[0] != given {
					t.Errorf("got %q back", got)
				}
				if _, err := uuid.Parse(got[0]); !kept && err != nil {
					t.Errorf("got %q, want a UUID", got)
				}
			})
		}
	}
}

// panicking is a Backend that breaks.
type panicking struct{ *backend }

func (panicking) Stats(context.Context) (api.Stats, error) { panic("secret-detail") }

func TestPanic(t *testing.T) {
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Workers = panicking{newBackend()} })
	a := r.do(t, "GET", "/workers/stats", "", "X-Request-Id", "id-of-the-request")
	a.wantProblem(t, 500, "internal")
	if bytes.Contains(a.body, []byte("secret")) {
		t.Errorf("it shows %s", a.body)
	}
	if l := r.log.String(); !strings.Contains(l, "secret-detail") || !strings.Contains(l, "id-of-the-request") || !strings.Contains(l, "server_test.go") {
		t.Errorf("the log says %q", l)
	}
	r.do(t, "GET", "/livez", "").wantJSON(t, 200, new(any))
}

func TestAccessLog(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(o *httpapi.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.server.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost/jobs/7", nil))
	for _, part := range []string{"method=GET", "path=/jobs/7", "status=404", "request_id=", "took=", "bytes="} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("%s is missing in %s", part, &log)
		}
	}
}

// serve runs Serve on a listener and returns its address and what it returned.
func serve(t *testing.T, s *httpapi.Server) (addr string, ended <-chan error) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return l.Addr().String(), done
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

// raw is a connection that speaks HTTP by hand.
type raw struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *raw {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return &raw{c, bufio.NewReader(c)}
}

func (c *raw) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func (c *raw) read(t *testing.T) answer {
	t.Helper()
	return readAnswer(t, c.r, nil)
}

// readAnswer reads the answer to a request, nil for a GET.
func readAnswer(t *testing.T, r *bufio.Reader, request *http.Request) answer {
	t.Helper()
	resp, err := http.ReadResponse(r, request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, b}
}

func TestShutdownWaits(t *testing.T) {
	b := newBackend()
	b.entered, b.release = make(chan struct{}, 1), make(chan struct{})
	s := httpapi.New(httpapi.Options{Backend: behind(b)})
	addr, served := serve(t, s)
	c := dial(t, addr)
	c.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: "+strconv.Itoa(len(anEmail))+"\r\n\r\n"+anEmail)
	receive(t, "the submission", b.entered)

	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.WithoutCancel(t.Context())) }()
	if err := receive(t, "the end of Serve", served); err != nil {
		t.Errorf("Serve returned %v", err)
	}
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown returned %v with a request running", err)
	default:
	}
	close(b.release)
	c.read(t).wantJSON(t, 202, new(jobs.Job))
	if err := receive(t, "the end of Shutdown", stopped); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	b := newBackend()
	b.entered, b.release = make(chan struct{}, 1), make(chan struct{})
	s := httpapi.New(httpapi.Options{Backend: behind(b)})
	addr, served := serve(t, s)
	c := dial(t, addr)
	c.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: "+strconv.Itoa(len(anEmail))+"\r\n\r\n"+anEmail)
	receive(t, "the submission", b.entered)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	if err := receive(t, "the end of Serve", served); err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the connection still talks")
	}
}

// TestBrokenBodies speaks HTTP by hand, to send what a client library wouldn't.
func TestBrokenBodies(t *testing.T) {
	s := httpapi.New(httpapi.Options{Backend: behind(newBackend()), MaxBody: 1024})
	addr, _ := serve(t, s)
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) //nolint:usetesting // the test's context has ended by then

	t.Run("shorter than said", func(t *testing.T) {
		c := dial(t, addr)
		c.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{}")
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		// net/http takes the half-closed connection for a client that is gone or
		// lets the answer through: both are fine, an accepted job is not
		if resp, err := http.ReadResponse(c.r, nil); err == nil {
			defer resp.Body.Close() //nolint:errcheck // only the status counts
			if resp.StatusCode != 400 && resp.StatusCode != 503 {
				t.Errorf("got %s", resp.Status)
			}
		}
	})
	t.Run("bad chunks", func(t *testing.T) {
		c := dial(t, addr)
		c.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
		c.read(t).wantProblem(t, 400, "malformed_json")
	})
	t.Run("endless chunks", func(t *testing.T) {
		c := dial(t, addr)
		c.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := "200\r\n" + strings.Repeat("x", 0x200) + "\r\n"
		c.write(t, chunk+chunk+chunk)
		c.read(t).wantProblem(t, 413, "payload_too_large")
	})
	t.Run("too large, not sent", func(t *testing.T) {
		c := dial(t, addr)
		c.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n")
		a := c.read(t)
		a.wantProblem(t, 413, "payload_too_large")
		if !a.Close {
			t.Error("the connection stays open")
		}
	})
	t.Run("a huge header", func(t *testing.T) {
		c := dial(t, addr)
		c.write(t, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
		if a := c.read(t); a.StatusCode != 431 {
			t.Errorf("got %d", a.StatusCode)
		}
	})
	t.Run("odd targets", func(t *testing.T) {
		for _, target := range []string{"/jobs/%2e%2e%2fetc", "/jobs/%e2%82", "/jobs/%252f", "http://localhost/nothing", "/jobs/1%20"} {
			c := dial(t, addr)
			c.write(t, "GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
			c.read(t).wantProblem(t, 404, "not_found")
		}
	})
	t.Run("alive", func(t *testing.T) {
		c := dial(t, addr)
		c.write(t, "GET /livez HTTP/1.0\r\n\r\n")
		c.read(t).wantJSON(t, 200, new(any))
	})
}
