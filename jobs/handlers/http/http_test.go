package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/handlertest"
)

// handler makes one from the settings of a type, by path.
func handler(t *testing.T, settings map[string]any) *Handler {
	t.Helper()
	o := NewOptions()
	for _, s := range o.Settings() {
		if v, ok := settings[s.Path]; ok && !s.Set(v) {
			t.Fatalf("%s: %v is not %s", s.Path, v, s.Allowed)
		}
	}
	o.Check(t.TempDir(), func(path, text string) { t.Errorf("%s: %s", path, text) })
	h := New(o, "http://server.test/", nil)
	t.Cleanup(func() { h.CloseIdle() })
	return h
}

// at is settings with an address, and more of them in pairs.
func at(url string, more ...any) map[string]any {
	all := map[string]any{"url": url}
	for i := 0; i < len(more); i += 2 {
		all[more[i].(string)] = more[i+1]
	}
	return all
}

func serve(t *testing.T, f nethttp.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

// received is a request as an endpoint gets it.
type received struct {
	*nethttp.Request
	body []byte
}

// recorder answers 200 and keeps what it gets.
func recorder(t *testing.T) (url string, got func() []received) {
	t.Helper()
	var mu sync.Mutex
	var all []received
	s := serve(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, received{r, b})
	})
	return s.URL, func() []received {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func secretOf(c byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{c}, 24))
}

func TestRequest(t *testing.T) {
	t.Setenv("TEST_HTTP_TOKEN", "s3cret")
	url, got := recorder(t)
	before, now := secretOf('a'), secretOf('b')
	h := handler(t, at(url+"/invoices/{{.payload.id}}?for={{.payload.who}}&attempt={{.job.attempt}}",
		"method", "PUT", "secret", []string{before, now}, "headers", map[string]string{"authorization": "Bearer ${env:TEST_HTTP_TOKEN}", "X-Kind": "a b"}))
	payload := `{"id": "a/../b?c#d%41", "who": "Jürgen & Söhne=1"}`
	task := handlertest.NewTask(t, payload)
	task.Job.Run, task.Job.MaxAttempts, task.Attempt, task.Until = 2, 5, 3, time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	for range 2 {
		if r, err := h.Handle(t.Context(), task.Task); err != nil || r.Value != nil {
			t.Fatalf("%v %v", r, err)
		}
	}
	all := got()
	r := all[0]
	if r.Method != "PUT" || r.RequestURI != "/invoices/a%2F..%2Fb%3Fc%23d%2541?for=J%C3%BCrgen%20%26%20S%C3%B6hne%3D1&attempt=3" || string(r.body) != payload {
		t.Errorf("%s %s %s", r.Method, r.RequestURI, r.body)
	}
	if r.URL.Path != "/invoices/a/../b?c#d%41" || r.URL.Query().Get("for") != "Jürgen & Söhne=1" {
		t.Errorf("%q %q", r.URL.Path, r.URL.Query())
	}
	run := task.Job.ID.String() + ".2"
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer s3cret", "X-Kind": "a b", "User-Agent": "jobstream",
		"ce-id": run + ".3", "ce-type": "jobstream.job.run", "ce-specversion": "1.0", "ce-source": "jobstream", "ce-subject": task.Job.ID.String(),
		"Idempotency-Key": run, "webhook-id": run,
		"Jobstream-Job-Id": task.Job.ID.String(), "Jobstream-Job-Type": "under-test", "Jobstream-Attempt": "3", "Jobstream-Max-Attempts": "5",
		"Jobstream-Deadline": "2030-01-02T03:04:05Z",
	} {
		if v := r.Header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, r.Header.Get("ce-time")); err != nil || time.Since(at) > time.Hour {
		t.Errorf("ce-time: %v", err)
	}
	for _, text := range []string{before, now} {
		w, err := standardwebhooks.NewWebhook(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(r.body, r.Header); err != nil {
			t.Error(err)
		}
	}
	if all[0].RemoteAddr != all[1].RemoteAddr {
		t.Error("the second request had a connection of its own")
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	url, got := recorder(t)
	for _, tt := range []struct{ method, body, payload, want string }{
		{"POST", "payload", `{"a":1}`, `{"a":1}`},
		{"PATCH", "payload", "", "null"},
		{"DELETE", "none", `{"a":1}`, ""},
		{"GET", "none", `{"a":1}`, ""},
		{"POST", "none", `{"a":1}`, ""},
	} {
		task := handlertest.NewTask(t, tt.payload)
		h := handler(t, at(url, "method", tt.method, "body", tt.body, "secret", []string{secretOf('a')}))
		if _, err := h.Handle(t.Context(), task.Task); err != nil {
			t.Fatal(err)
		}
		all := got()
		r := all[len(all)-1]
		if r.Method != tt.method || string(r.body) != tt.want || len(r.TransferEncoding) > 0 || (r.Header.Get("Content-Type") != "") != (tt.want != "") {
			t.Errorf("%+v: %s %q %v %v", tt, r.Method, r.body, r.TransferEncoding, r.Header)
		}
		w, err := standardwebhooks.NewWebhook(secretOf('a'))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(r.body, r.Header); err != nil {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	task := handlertest.NewTask(t, `{"a":1}`)
	h := handler(t, at(url, "body", "job", "headers", map[string]string{"Content-Type": "application/vnd.x+json", "User-Agent": "me"}))
	if _, err := h.Handle(t.Context(), task.Task); err != nil {
		t.Fatal(err)
	}
	all := got()
	r := all[len(all)-1]
	var j struct {
		ID, Type string
		Payload  struct{ A int }
	}
	if err := json.Unmarshal(r.body, &j); err != nil || j.ID != task.Job.ID.String() || j.Payload.A != 1 || r.Header.Get("User-Agent") != "me" {
		t.Errorf("%s %v", r.body, err)
	}
	if v := r.Header.Values("Content-Type"); len(v) != 1 || v[0] != "application/vnd.x+json" {
		t.Errorf("%q", v)
	}
}

// TestAnswers is the table of the documentation.
func TestAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", jobs.MaxResult-2)
	for name, tt := range map[string]struct {
		status  int
		header  string // "Name: value" with | between
		body    string
		more    []any
		value   string // the result; "" = no result is wanted
		file    string // "name type size"
		err     string // its beginning
		forGood bool
		busy    string // for how long
	}{
		"JSON":               {status: 200, header: "Content-Type: application/json; charset=utf-8", body: ` {"a": [1, "<b>"]}` + "\n", value: `{"a":[1,"\u003cb\u003e"]}`},
		"problem JSON":       {status: 201, header: "Content-Type: application/vnd.api+json", body: `1`, value: `1`},
		"accepted":           {status: 202, header: "Content-Type: application/json", body: `{}`, value: `{}`},
		"no type, JSON":      {status: 200, header: "Content-Type: ", body: `[]`, value: `[]`},
		"no type, no JSON":   {status: 200, header: "Content-Type: ", body: `hello`, file: "report application/octet-stream 5"},
		"no content":         {status: 204, value: `null`},
		"reset content":      {status: 205, value: `null`},
		"empty":              {status: 200, header: "Content-Type: text/html", value: `null`},
		"empty JSON":         {status: 200, header: "Content-Type: application/json", body: " \n", value: `null`},
		"the most":           {status: 200, header: "Content-Type: application/json", body: `"` + long + `"`, value: `"` + long + `"`},
		"large JSON":         {status: 200, header: "Content-Type: application/json", body: `"` + long + `x"`, file: "report application/json 262145"},
		"no JSON":            {status: 200, header: "Content-Type: application/json", body: `{"a":`, file: "report application/json 5"},
		"too deep":           {status: 200, header: "Content-Type: application/json", body: strings.Repeat("[", 20000) + strings.Repeat("]", 20000), file: "report application/json 40000"},
		"text":               {status: 200, header: "Content-Type: text/plain", body: `{}`, file: "report text/plain 2"},
		"named":              {status: 200, header: `Content-Type: image/png|Content-Disposition: attachment; filename="../a\\b.png"`, body: "png", file: "b.png image/png 3"},
		"named in UTF-8":     {status: 200, header: `Content-Type: image/png|Content-Disposition: attachment; filename*=UTF-8''R%C3%A9sum%C3%A9.png`, body: "png", file: "Résumé.png image/png 3"},
		"large":              {status: 200, header: "Content-Type: video/mp4", body: strings.Repeat("y", 3<<20), file: "report video/mp4 3145728"},
		"of the limit":       {status: 200, header: "Content-Type: video/mp4", body: strings.Repeat("y", 1<<20), more: []any{"limits.output", "1MiB"}, file: "report video/mp4 1048576"},
		"above the limit":    {status: 200, header: "Content-Type: video/mp4", body: strings.Repeat("y", 1<<20+1), more: []any{"limits.output", "1MiB"}, err: "the answer has more than 1048576 bytes (limits.output)", forGood: true},
		"JSON above it":      {status: 200, header: "Content-Type: application/json", body: `"abc"`, more: []any{"limits.output", "4"}, err: "the answer has more than 4 bytes (limits.output)", forGood: true},
		"unknown encoding":   {status: 200, header: "Content-Encoding: br|Content-Type: application/json", body: `{}`, err: `the endpoint answered 200 OK with the encoding "br"`},
		"bad request":        {status: 400, body: "no such\n field:  \x07 a", err: "the endpoint answered 400 Bad Request: no such field: a", forGood: true},
		"not found":          {status: 404, err: "the endpoint answered 404 Not Found", forGood: true},
		"gone":               {status: 410, err: "the endpoint answered 410 Gone", forGood: true},
		"too large":          {status: 413, err: "the endpoint answered 413 Request Entity Too Large", forGood: true},
		"other type":         {status: 415, err: "the endpoint answered 415 Unsupported Media Type", forGood: true},
		"unprocessable":      {status: 422, err: "the endpoint answered 422 Unprocessable Entity", forGood: true},
		"unauthorized":       {status: 401, err: "the endpoint answered 401 Unauthorized"},
		"request timeout":    {status: 408, err: "the endpoint answered 408 Request Timeout"},
		"conflict":           {status: 409, err: "the endpoint answered 409 Conflict"},
		"too early":          {status: 425, err: "the endpoint answered 425 Too Early"},
		"error":              {status: 500, body: strings.Repeat("é", 2000), err: "the endpoint answered 500 Internal Server Error: " + strings.Repeat("é", 512)},
		"a cut character":    {status: 500, body: "x" + strings.Repeat("é", 2000), err: "the endpoint answered 500 Internal Server Error: x" + strings.Repeat("é", 511)},
		"not UTF-8":          {status: 500, body: "a\xffb", err: "the endpoint answered 500 Internal Server Error: a\ufffdb"},
		"encoded words":      {status: 500, header: "Content-Encoding: br", body: "abc", err: "the endpoint answered 500 Internal Server Error"},
		"unknown status":     {status: 599, err: "the endpoint answered 599"},
		"own list":           {status: 500, more: []any{"permanent", []string{"500"}}, err: "the endpoint answered 500 Internal Server Error", forGood: true},
		"not in own list":    {status: 400, more: []any{"permanent", []string{"500"}}, err: "the endpoint answered 400 Bad Request"},
		"no retry":           {status: 500, header: "Job-Retry: No", err: "the endpoint answered 500 Internal Server Error", forGood: true},
		"busy, no retry":     {status: 429, header: "Job-Retry: no|Retry-After: 5", err: "the endpoint answered 429 Too Many Requests", forGood: true},
		"other word":         {status: 500, header: "Job-Retry: nope", err: "the endpoint answered 500 Internal Server Error"},
		"moved":              {status: 301, header: "Location: https://example.com/a b", err: "the endpoint answered 301 Moved Permanently to https://example.com/a b; redirects are not followed"},
		"found":              {status: 302, header: "Location: /b", body: "see there", err: "the endpoint answered 302 Found to /b; redirects are not followed: see there"},
		"see other":          {status: 303, err: "the endpoint answered 303 See Other; redirects are not followed"},
		"not modified":       {status: 304, err: "the endpoint answered 304 Not Modified; redirects are not followed"},
		"temporary":          {status: 307, header: "Location: /b", err: "the endpoint answered 307 Temporary Redirect to /b; redirects are not followed"},
		"busy":               {status: 429, header: "Retry-After: 17", err: "the endpoint answered 429 Too Many Requests", busy: "17s"},
		"unavailable":        {status: 503, header: "Retry-After: 1", err: "the endpoint answered 503 Service Unavailable", busy: "1s"},
		"busy for unknown":   {status: 429, body: "later", err: "the endpoint answered 429 Too Many Requests", busy: "0s"},
		"busy, nonsense":     {status: 503, header: "Retry-After: -3", err: "the endpoint answered 503 Service Unavailable", busy: "0s"},
		"busy in the past":   {status: 503, header: "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", err: "the endpoint answered 503 Service Unavailable", busy: "0s"},
		"busy for a year":    {status: 503, header: "Retry-After: 31536000", err: "the endpoint answered 503 Service Unavailable", busy: "24h0m0s"},
		"busy for ever":      {status: 503, header: "Retry-After: 18446744073709551615", err: "the endpoint answered 503 Service Unavailable", busy: "24h0m0s"},
		"busy until 2200":    {status: 503, header: "Retry-After: Tue, 21 Oct 2200 07:28:00 GMT", err: "the endpoint answered 503 Service Unavailable", busy: "24h0m0s"},
		"busy, for good":     {status: 503, header: "Retry-After: 9", more: []any{"permanent", []string{"503"}}, err: "the endpoint answered 503 Service Unavailable", forGood: true},
		"a gateway's errors": {status: 502, header: "Retry-After: 9", err: "the endpoint answered 502 Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				for _, line := range strings.Split(tt.header, "|") {
					if name, value, ok := strings.Cut(line, ": "); ok && value == "" {
						w.Header()[name] = nil // none is made up
					} else if ok {
						w.Header().Set(name, value)
					}
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			h := handler(t, at(s.URL+"/v1/report?x=/y", tt.more...))
			task := handlertest.NewTask(t, `{}`)
			r, err := h.Handle(t.Context(), task.Task)
			after, _, failed, busy := jobs.BusyOf(err)
			switch {
			case tt.err == "" && err != nil:
				t.Fatal(err)
			case tt.err != "" && (err == nil || err.Error() != tt.err && (name != "unknown encoding" || !strings.HasPrefix(err.Error(), tt.err)) || jobs.IsPermanent(err) != tt.forGood):
				t.Errorf("%v, for good %t; want %s", err, jobs.IsPermanent(err), tt.err)
			case busy != (tt.busy != ""), busy && (failed || after.Round(time.Second).String() != tt.busy):
				t.Errorf("busy %t for %s", busy, after)
			}
			if tt.value != "" {
				if b, err := json.Marshal(r.Value); err != nil || string(b) != tt.value {
					t.Errorf("the result is %.200s, %v", b, err)
				}
			}
			if tt.file == "" {
				if n := len(task.End()); n > 0 {
					t.Errorf("it has left %d files", n)
				}
				return
			}
			f, content := task.Open()
			defer content.Close()
			if got := f.Name + " " + f.ContentType + " " + jsonOf(f.Size); got != tt.file {
				t.Errorf("the file is %q, want %q", got, tt.file)
			}
			if b, err := io.ReadAll(content); err != nil || string(b) != tt.body {
				t.Errorf("it has %d bytes, %v", len(b), err)
			}
		})
	}
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestHandOver: an endpoint gets a lease with its request, and goes on by a 202.
func TestHandOver(t *testing.T) {
	t.Parallel()
	status := nethttp.StatusAccepted
	var lease nethttp.Header
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		lease = r.Header
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "7")
	})
	h := handler(t, at(s.URL, "async", "1m"))
	task := handlertest.NewTask(t, `{}`)
	task.Token = "token"
	if _, err := h.Handle(t.Context(), task.Task); !errors.Is(err, jobs.ErrHandedOver) {
		t.Errorf("202: %v", err)
	}
	if lease.Get("Jobstream-Lease") != "token" || lease.Get("Jobstream-Lease-Seconds") != "60" || lease.Get("Jobstream-Report") != "http://server.test/leases/token" {
		t.Errorf("the endpoint got %v", lease)
	}
	status = nethttp.StatusOK
	if got, err := h.Handle(t.Context(), task.Task); err != nil || string(got.Value.(json.RawMessage)) != "7" {
		t.Errorf("200: %v, %v", got, err)
	}
	if _, err := h.Handle(t.Context(), handlertest.NewTask(t, `{}`).Task); err == nil || err.Error() != "there is no lease" {
		t.Errorf("without a lease: %v", err)
	}
}

func TestRetryAfterAsAMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"Tue, 01 Jan 2030 00:01:30 GMT": 90 * time.Second, "Tuesday, 01-Jan-30 00:00:01 GMT": time.Second, "Tue Jan  1 00:00:02 2030": 2 * time.Second,
		" 7 ": 7 * time.Second, "0": 0, "": 0, "1.5": 0, "1h": 0, "Mon, 31 Dec 2029 00:00:00 GMT": 0,
	} {
		if got := retryAfter(nethttp.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// TestBusyForADay ends after 24 hours in all, also over restarts: the checkpoint has it.
func TestBusyForADay(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(503) })
	h := handler(t, at(s.URL))
	since := func(ago time.Duration, run int) string {
		return `{"busy_since":"` + time.Now().Add(-ago).UTC().Format(time.RFC3339Nano) + `","run":` + jsonOf(run) + `}`
	}
	for _, tt := range []struct {
		checkpoint string
		failed     bool
	}{
		{"", false}, {since(23*time.Hour, 1), false}, {since(25*time.Hour, 1), true}, {since(25*time.Hour, 2), false}, {since(-time.Hour, 1), false}, {`"x"`, false}, {`{"run":1}`, false},
	} {
		task := handlertest.NewTask(t, `{}`)
		task.Job.Run = 1
		if tt.checkpoint != "" {
			task.Job.Checkpoint = json.RawMessage(tt.checkpoint)
		}
		_, err := h.Handle(t.Context(), task.Task)
		_, reason, failed, busy := jobs.BusyOf(err)
		if !busy || failed != tt.failed || !strings.HasPrefix(reason, "the endpoint answered 503 Service Unavailable") {
			t.Errorf("%s: %v", tt.checkpoint, err)
		}
		var c struct {
			Since time.Time `json:"busy_since"`
			Run   int
		}
		if err := json.Unmarshal(task.NextCheckpoint(), &c); err != nil || c.Run != 1 || time.Since(c.Since) > 26*time.Hour || time.Since(c.Since) < 0 {
			t.Errorf("%s: then %s, %v", tt.checkpoint, task.NextCheckpoint(), err)
		}
	}
}

// TestInput sends a file, signed.
func TestInput(t *testing.T) {
	t.Parallel()
	url, got := recorder(t)
	h := handler(t, at(url+"/{{.inputs.image.name}}?size={{.inputs.image.size}}&kind={{.payload.kind}}", "method", "PUT", "body", "input:image", "secret", []string{secretOf('a')}))
	payload := jobs.NewPayload(json.RawMessage(`{"kind":"x"}`))
	if err := h.Check(payload); err != nil {
		t.Error(err)
	}
	content := bytes.Repeat([]byte("picture"), 100_000)
	task := handlertest.NewTask(t, `{"kind":"x"}`)
	task.Give("image", "Übung 1.png", "image/png", content)
	if _, err := h.Handle(t.Context(), task.Task); err != nil {
		t.Fatal(err)
	}
	r := got()[0]
	if !bytes.Equal(r.body, content) || r.RequestURI != "/%C3%9Cbung%201.png?size=700000&kind=x" || r.ContentLength != 700_000 ||
		r.Header.Get("Content-Type") != "image/png" || r.Header.Get("Content-Disposition") != `attachment; filename*=utf-8''%C3%9Cbung%201.png` {
		t.Errorf("%s %d %v", r.RequestURI, len(r.body), r.Header)
	}
	w, err := standardwebhooks.NewWebhook(secretOf('a'))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(r.body, r.Header); err != nil {
		t.Error(err)
	}
	for _, payload := range []string{`{"kind":"x"}`, `{}`} {
		if _, err := h.Handle(t.Context(), handlertest.NewTask(t, payload).Task); !jobs.IsPermanent(err) || err.Error() != `the job has no input "image"` {
			t.Errorf("without it: %v", err)
		}
	}
	task = handlertest.NewTask(t, `{"kind":"x"}`)
	task.Give("image", "x", "", nil) // an empty file
	if _, err := h.Handle(t.Context(), task.Task); err != nil {
		t.Fatal(err)
	}
	if r := got()[1]; len(r.body) != 0 || r.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d bytes, %v", len(r.body), r.Header)
	}
}

func TestCheckAtTheDoor(t *testing.T) {
	t.Parallel()
	h := handler(t, at("http://127.0.0.1:1/{{.payload.a}}/b/{{.payload.c | default `c`}}?q={{.payload.q}}"))
	for payload, want := range map[string]string{
		`{"a":"x","q":""}`:                    "",
		`{"a":1,"c":true,"q":1.50}`:           "",
		`{"a":"...","q":".."}`:                "",
		`{"a":"x"}`:                           "/payload/q: is required",
		`{}`:                                  "/payload/a: is required",
		`{"a":{},"q":1}`:                      "/payload/a: must be a string, a number, true or false, not an object",
		`{"a":"..","q":1}`:                    `/payload/a: makes an address with the part ".." in its path, which could be another address`,
		`{"a":".","q":1}`:                     `/payload/a: makes an address with the part "." in its path, which could be another address`,
		`{"a":"","q":1}`:                      `/payload/a: makes an address with the part "" in its path, which could be another address`,
		`{"a":"` + longText + `","q":1}`:      "/payload/a: makes an address of more than 8192 bytes",
		`[]`:                                  "/payload: must be an object with a, not a list",
		`{"a":"@example.com/\\..//","q":"&"}`: "",
	} {
		err := h.Check(jobs.NewPayload(json.RawMessage(payload)))
		got := ""
		if e, ok := jobs.AsError(err); err != nil && ok {
			got = e.Fields[0].Pointer + ": " + e.Fields[0].Detail
		} else if err != nil {
			t.Error(err)
		}
		if got != want {
			t.Errorf("%.80s: %q, want %q", payload, got, want)
		}
	}
	task := handlertest.NewTask(t, `{}`) // as a bare message brings it
	if _, err := h.Handle(t.Context(), task.Task); !jobs.IsPermanent(err) || err.Error() != "/payload/a: is required" {
		t.Errorf("then %v", err)
	}
	if err := handler(t, at("http://127.0.0.1:1/a//b/./c/")).Check(jobs.NewPayload(nil)); err != nil {
		t.Error(err)
	}
}

var longText = strings.Repeat("x", 9000)

func TestOptions(t *testing.T) {
	t.Setenv("TEST_HTTP_BREAK", "a\r\nb")
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "no.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "key"), []byte(secretOf('a')+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := map[string]any{"url": "http://127.0.0.1:9000/x"}
	for name, tt := range map[string]struct {
		set  map[string]any
		want string // key: beginning of the text; "" = it is fine
	}{
		"fine":             {good, ""},
		"none":             {map[string]any{"url": ""}, "url: is required"},
		"async":            {at("http://a/", "async", "2h"), ""},
		"a short lease":    {at("http://a/", "async", "4s"), "async: must be 5s at least"},
		"no scheme":        {at("example.com/x"), "url: must begin with http:// or https:// and a host"},
		"other scheme":     {at("ftp://example.com/x"), "url: must begin with"},
		"no host":          {at("http:///x"), "url: must begin with"},
		"broken":           {at("http://exa mple/"), "url: is no address"},
		"broken port":      {at("http://a:b/"), "url: is no address"},
		"large port":       {at("http://a:65536/"), `url: has no port "65536"`},
		"empty port":       {at("http://a:/"), `url: has no port ""`},
		"user":             {at("http://me:pass@a/"), "url: must have no user in it"},
		"fragment":         {at("http://a/#b"), "url: must have no #"},
		"a template":       {at("http://a/{{.payload.x}}"), ""},
		"in the query":     {at("http://a?x={{.payload.x}}"), ""},
		"host":             {at("http://{{.payload.host}}/"), "url: must begin with http:// or https:// and a host"},
		"half of the host": {at("http://a.{{.payload.host}}/"), "url: must be literal up to its path"},
		"port":             {at("http://a:80{{.payload.port}}/"), "url: must be literal up to its path"},
		"scheme":           {at("{{.payload.scheme}}://a/"), "url: must begin with"},
		"user by template": {at("http://a{{.payload.x}}@b/"), "url: must be literal up to its path"},
		"unknown field":    {at("http://a/{{.dir}}"), "url: names .dir, which does not exist; known are .payload, .inputs, .job"},
		"no template":      {at("http://a/{{.payload"), "url: "},
		"link-local":       {at("http://169.254.169.254/latest"), "url: the address 169.254.169.254 is refused: it is link-local; name it in allow if that is meant"},
		"link-local v6":    {at("http://[fe80::1]/"), "url: the address fe80::1 is refused"},
		"mapped":           {at("http://[::ffff:169.254.169.254]/"), "url: the address ::ffff:169.254.169.254 is refused"},
		"allowed":          {at("http://169.254.169.254/latest", "allow", []string{"169.254.169.254"}), ""},
		"allow":            {at("http://a/", "allow", []string{"x y"}), `allow: "x y": `},
		"GET with a body":  {at("http://a/", "method", "GET"), "body: must be none with the method GET"},
		"GET":              {at("http://a/", "method", "GET", "body", "none"), ""},
		"header name":      {at("http://a/", "headers", map[string]string{"a b": "c"}), "headers.a b: must be the name of a header"},
		"reserved":         {at("http://a/", "headers", map[string]string{"CE-Id": "c"}), "headers.CE-Id: is set by the server"},
		"reserved webhook": {at("http://a/", "headers", map[string]string{"webhook-signature": "c"}), "headers.webhook-signature: is set by the server"},
		"reserved own":     {at("http://a/", "headers", map[string]string{"Jobstream-X": "c"}), "headers.Jobstream-X: is set by the server"},
		"reserved key":     {at("http://a/", "headers", map[string]string{"idempotency-key": "c"}), "headers.idempotency-key: is set by the server"},
		"reserved trace":   {at("http://a/", "headers", map[string]string{"traceparent": "c"}), "headers.traceparent: is set by the server"},
		"reserved length":  {at("http://a/", "headers", map[string]string{"content-length": "5"}), "headers.content-length: is set by the server"},
		"reserved host":    {at("http://a/", "headers", map[string]string{"HOST": "b"}), "headers.HOST: is set by the server"},
		"twice":            {at("http://a/", "headers", map[string]string{"x-a": "b", "X-A": "b"}), "headers.x-a: is there twice"},
		"header template":  {at("http://a/", "headers", map[string]string{"x-a": "{{.payload.x}}"}), "headers.x-a: must not be a template"},
		"header break":     {at("http://a/", "headers", map[string]string{"x-a": "${env:TEST_HTTP_BREAK}"}), "headers.x-a: must have no line break"},
		"no variable":      {at("http://a/", "headers", map[string]string{"x-a": "${env:TEST_HTTP_NONE}"}), "headers.x-a: the environment has no TEST_HTTP_NONE"},
		"no file":          {at("http://a/", "headers", map[string]string{"x-a": "${file:none}"}), "headers.x-a: open "},
		"secret":           {at("http://a/", "secret", []string{"${file:key}"}), ""},
		"no secret":        {at("http://a/", "secret", []string{"hunter2"}), "secret: must be whsec_ and a key"},
		"second secret":    {at("http://a/", "secret", []string{"${file:key}", "hunter2"}), "secret[1]: must be whsec_ and a key"},
		"no such secret":   {at("http://a/", "secret", []string{"${file:none}"}), "secret: open "},
		"no CA":            {at("http://a/", "ca", "none.pem"), "ca: open " + folder},
		"empty CA":         {at("http://a/", "ca", "no.pem"), "ca: " + filepath.Join(folder, "no.pem") + " has no certificate in PEM"},
		"proxy":            {at("http://a/", "proxy", "http://proxy:3128"), ""},
		"no proxy":         {at("http://a/", "proxy", "proxy:3128"), "proxy: must be an address like"},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			for _, s := range o.Settings() {
				if v, ok := tt.set[s.Path]; ok && !s.Set(v) {
					t.Fatalf("%s: %v is not %s", s.Path, v, s.Allowed)
				}
			}
			var got []string
			o.Check(folder, func(path, text string) { got = append(got, path+": "+text) })
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("%q", got)
			case tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)):
				t.Errorf("%q, want %s", got, tt.want)
			}
			if strings.Contains(strings.Join(got, ""), "hunter2") {
				t.Errorf("it shows a secret: %q", got)
			}
		})
	}
	for path, v := range map[string]any{"method": "TRACE", "body": "all", "permanent": []string{"200"}, "limits.output": "0", "url": "a\nb"} {
		for _, s := range NewOptions().Settings() {
			if s.Path == path && s.Set(v) {
				t.Errorf("%s may be %v", path, v)
			}
		}
	}
	o := NewOptions()
	for _, s := range o.Settings() {
		switch s.Path {
		case "proxy":
			s.Set("http://me:hunter2@proxy:3128")
			if got := s.Get(); got != "http://me:xxxxx@proxy:3128" {
				t.Errorf("it is shown as %s", got)
			}
		case "headers", "secret":
			if !s.Secret {
				t.Errorf("%s is shown", s.Path)
			}
		}
	}
}

// TestProxyOfTheEnvironment is not used, and one of the configuration is.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "")
	url, got := recorder(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	task := handlertest.NewTask(t, `{}`)
	h := handler(t, at("http://jobstream.test:"+port+"/x"))
	if _, err := h.Handle(t.Context(), task.Task); err == nil || strings.Contains(err.Error(), "127.0.0.1:1:") || strings.Contains(err.Error(), "proxyconnect") {
		t.Errorf("got %v", err)
	}
	h = handler(t, at("http://jobstream.test:"+port+"/x", "proxy", url))
	if _, err := h.Handle(t.Context(), task.Task); err != nil {
		t.Fatal(err)
	}
	if all := got(); len(all) != 1 || all[0].RequestURI != "http://jobstream.test:"+port+"/x" {
		t.Errorf("the proxy got %v", all)
	}
}

func TestLinkLocalIsRefusedWhenDialled(t *testing.T) {
	t.Parallel()
	h := handler(t, at("http://169.254.169.254/", "allow", []string{"169.254.169.254"}))
	h.o.allow, h.requests = NewOptions().allow, New(&Options{}, "", nil).requests // as if a name had that address
	task := handlertest.NewTask(t, `{}`)
	_, err := h.Handle(t.Context(), task.Task)
	if err == nil || !strings.Contains(err.Error(), "the address 169.254.169.254 is refused: it is link-local") {
		t.Errorf("got %v", err)
	}
}
