package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// TestContractErrors makes every mistake that the REST door has a word for; and
// none of them leaves a trace.
func TestContractErrors(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { c.Server.MaxBody = 2000 }})
	kept := h.await(h.submit(`{"type":"email","payload":{"to":"a@b.example","subject":"s","body":"b"}}`).ID, "completed")
	before := h.do(http.MethodGet, "/jobs", "").body
	counted := untimed(h.stats())
	invalid, unknown := "invalid_request", "unknown_type"
	type try struct {
		request, body, header string // header is "Name: value"
		status                int
		code, pointer         string
	}
	tries := []try{
		{"POST /jobs/bulk", `{"action":"delete","all":true}`, "Sec-Fetch-Site: cross-site", 403, "forbidden", ""},
		{"POST /jobs/bulk", `{"action":"delete","all":true}`, "Origin: https://evil.example", 403, "forbidden", ""},
		{"GET /jobs", "", "Origin: https://evil.example", 403, "forbidden", ""},
		{"POST /jobs", ``, "", 400, "malformed_json", ""},
		{"POST /jobs", "  \n", "", 400, "malformed_json", ""},
		{"POST /jobs", `{"type":"export"`, "", 400, "malformed_json", ""},
		{"POST /jobs", `{"type":"export"}{}`, "", 400, "malformed_json", ""},
		{"POST /jobs", "{\"type\":\"exp\xffort\"}", "", 400, "malformed_json", ""},
		{"POST /jobs", "{\"type\":\"export\"}\x00", "", 400, "malformed_json", ""},
		{"POST /jobs", `type=export`, "", 400, "malformed_json", ""},
		{"POST /jobs", `[]`, "", 422, invalid, ""},
		{"POST /jobs", `"export"`, "", 422, invalid, ""},
		{"POST /jobs", `null`, "", 422, invalid, ""},
		{"POST /jobs", `{}`, "", 422, invalid, "/type"},
		{"POST /jobs", `{"type":null}`, "", 422, invalid, "/type"},
		{"POST /jobs", `{"type":5}`, "", 422, invalid, "/type"},
		{"POST /jobs", `{"type":""}`, "", 422, unknown, "/type"},
		{"POST /jobs", `{"type":"nope"}`, "", 422, unknown, "/type"},
		{"POST /jobs", `{"type":"Export"}`, "", 422, unknown, "/type"},
		{"POST /jobs", `{"type":"export","type":"export"}`, "", 422, invalid, "/type"},
		{"POST /jobs", `{"type":"export","colour":"red"}`, "", 422, invalid, "/colour"},
		{"POST /jobs", `{"type":"export","a/b~c":1}`, "", 422, invalid, "/a~1b~0c"},
		{"POST /jobs", `{"type":"export","delay":-5}`, "", 422, invalid, "/delay"},
		{"POST /jobs", `{"type":"export","delay":"11y"}`, "", 422, invalid, "/delay"},
		{"POST /jobs", `{"type":"export","run_at":"soon"}`, "", 422, invalid, "/run_at"},
		{"POST /jobs", `{"type":"export","delay":5,"run_at":"2030-01-01T00:00:00Z"}`, "", 422, invalid, "/run_at"},
		{"POST /jobs", `{"type":"export","ttl":0}`, "", 422, invalid, "/ttl"},
		{"POST /jobs", `{"type":"export","expires_at":"2020-01-01"}`, "", 422, invalid, "/expires_at"},
		{"POST /jobs", `{"type":"export","delay":60,"deadline":30}`, "", 422, invalid, "/deadline"},
		{"POST /jobs", `{"type":"export","unique_key":""}`, "", 422, invalid, "/unique_key"},
		{"POST /jobs", `{"type":"export","concurrency_key":["k"]}`, "", 422, invalid, "/concurrency_key"},
		{"POST /jobs", `{"type":"export","callback_url":"http://a.example"}`, "", 422, invalid, "/callback_url"},
		{"POST /jobs", `{"type":"export","id":"01a2086c-903d-7aeb-b422-71b7450089d8"}`, "", 422, invalid, "/id"},
		{"POST /jobs", `{"type":"export"}`, "Idempotency-Key: " + strings.Repeat("k", 257), 422, invalid, "header/Idempotency-Key"},
		{"POST /jobs", `{"type":"export"}`, "Content-Encoding: gzip", 422, invalid, "header/Content-Encoding"},
		{"POST /jobs?wait=1s", `{"type":"export"}`, "", 422, invalid, "query/wait"},
		{"POST /jobs", `{"type":"export","tags":["` + strings.Repeat("x", 2000) + `"]}`, "", 413, "payload_too_large", ""},
		{"POST /jobs", `{"type":"email"}`, "", 422, invalid, "/payload"},
		{"POST /jobs", `{"type":"email","payload":"x"}`, "", 422, invalid, "/payload"},
		{"POST /jobs", `{"type":"email","payload":{"subject":"s","body":"b"}}`, "", 422, invalid, "/payload/to"},
		{"POST /jobs", `{"type":"email","payload":{"to":"nobody","subject":"s","body":"b"}}`, "", 422, invalid, "/payload/to"},
		{"POST /jobs", `{"type":"email","payload":{"to":"a@b.example","subject":"s\r\nBcc: c@d.example","body":"b"}}`, "", 422, invalid, "/payload/subject"},
		{"POST /jobs", `{"type":"email","payload":{"to":"a@b.example","subject":"s"}}`, "", 422, invalid, "/payload/body"},
		{"POST /jobs", `{"type":"email","payload":{"to":"a@b.example","subject":"s","body":"b","form":1}}`, "", 422, invalid, "/payload/form"},
		{"POST /jobs", `{"type":"export","payload":{"format":"xml"}}`, "", 422, invalid, "/payload/format"},
		{"POST /jobs", `{"type":"export","payload":{"filters":{"date":"soon"}}}`, "", 422, invalid, "/payload/filters/date"},
		{"POST /jobs", `{"type":"export","payload":{"columns":["id","colour"]}}`, "", 422, invalid, "/payload/columns/1"},
		{"POST /jobs", `{"type":"cleanup"}`, "", 422, invalid, "/payload/older_than"},
		{"POST /jobs", `{"type":"cleanup","payload":{"older_than":"long"}}`, "", 422, invalid, "/payload/older_than"},
		{"POST /jobs", `{"type":"report","payload":{"date_range":"sometime"}}`, "", 422, invalid, "/payload/date_range"},
		{"GET /jobs/nope", "", "", 404, "not_found", ""},
		{"GET /jobs/0", "", "", 404, "not_found", ""},
		{"GET /jobs/01", "", "", 404, "not_found", ""},
		{"GET /jobs/-1", "", "", 404, "not_found", ""},
		{"GET /jobs/999999", "", "", 404, "not_found", ""},
		{"GET /jobs/99999999999999999999999", "", "", 404, "not_found", ""},
		{"GET /jobs/01a2086c-903d-7aeb-b422-71b7450089d8", "", "", 404, "not_found", ""},
		{"GET /jobs/01a2086c903d7aebb42271b7450089d8", "", "", 404, "not_found", ""},
		{"GET /jobs/01a2086c-903d-7aeb-b422-71b7450089d8/events", "", "", 404, "not_found", ""},
		{"GET /jobs/01a2086c-903d-7aeb-b422-71b7450089d8/result", "", "", 404, "not_found", ""},
		{"GET /jobs/" + kept.ID + "/result", "", "", 404, "no_artifact", ""},
		{"GET /jobs/" + kept.ID + "?wait=soon", "", "", 422, invalid, "query/wait"},
		{"GET /jobs/" + kept.ID + "?wait=11m", "", "", 422, invalid, "query/wait"},
		{"GET /jobs/" + kept.ID + "/events?wait=30s", "", "", 422, invalid, "query/wait"},
		{"GET /jobs/999999?wait=30s", "", "", 404, "not_found", ""},
		{"GET /jobs/counts?status=done", "", "", 422, invalid, "query/status"},
		{"GET /jobs/counts?error=x", "", "", 422, invalid, "query/error"},
		{"GET /jobs?priority=9", "", "", 422, invalid, "query/priority"},
		{"POST /jobs/batch", ``, "", 400, "malformed_json", ""},
		{"POST /jobs/batch", `{"jobs":[]}`, "", 422, invalid, "/jobs"},
		{"POST /jobs/batch", `{"jobs":[{"type":"export"},{"type":"nope"}]}`, "", 422, unknown, "/jobs/1/type"},
		{"POST /jobs/batch", `{"jobs":[{"type":"export"},{"type":"email"}]}`, "", 422, invalid, "/jobs/1/payload"},
		{"POST /jobs/batch", `{"jobs":[{"type":"export","unique_key":"k"},{"type":"export","unique_key":"k"}]}`, "", 422, invalid, "/jobs/1/unique_key"},
		{"POST /jobs/batch", `{"jobs":[` + strings.Repeat(`{"type":"export"},`, 200) + `{"type":"export"}]}`, "", 413, "payload_too_large", ""},
		{"GET /jobs/batch", "", "", 404, "not_found", ""},
		{"POST /jobs/bulk", `{"action":"cancel"}`, "", 422, invalid, "/filter"},
		{"POST /jobs/bulk", `{"action":"cancel","filter":{"colour":"red"}}`, "", 422, invalid, "/filter/colour"},
		{"POST /jobs/bulk", `{"action":"burn","all":true}`, "", 422, invalid, "/action"},
		{"POST /jobs", `{"type":"jobstream-bulk","payload":{"action":"cancel","filter":{}}}`, "", 422, invalid, "/payload/filter"},
		{"POST /jobs/" + kept.ID + "/cancel", "", "", 409, "conflict", ""},
		{"POST /jobs/" + kept.ID + "/cancel", `{"why":"x"}`, "", 422, invalid, "/why"},
		{"POST /jobs/" + kept.ID + "/retry", "", "", 409, "conflict", ""},
		{"POST /jobs/999999/cancel", "", "", 404, "not_found", ""},
		{"POST /jobs/999999/retry", "", "", 404, "not_found", ""},
		{"POST /jobs/nope/retry", "", "", 404, "not_found", ""},
		{"DELETE /jobs/999999", "", "", 404, "not_found", ""},
		{"GET /types/nope", "", "", 404, "not_found", ""},
		{"GET /types/jobstream-bulk", "", "", 404, "not_found", ""},
		{"POST /types/nope/pause", "", "", 404, "not_found", ""},
		{"POST /types/email/pause", `{"for":"5m"}`, "", 422, invalid, "/for"},
		{"GET /jobs?status=done", "", "", 422, invalid, "query/status"},
		{"GET /jobs?status=", "", "", 422, invalid, "query/status"},
		{"GET /jobs?limit=0", "", "", 422, invalid, "query/limit"},
		{"GET /jobs?limit=501", "", "", 422, invalid, "query/limit"},
		{"GET /jobs?limit=ten", "", "", 422, invalid, "query/limit"},
		{"GET /jobs?limit=1&limit=2", "", "", 422, invalid, "query/limit"},
		{"GET /jobs?order=up", "", "", 422, invalid, "query/order"},
		{"GET /jobs?cursor=garbage", "", "", 422, invalid, "query/cursor"},
		{"GET /jobs?created_after=soon", "", "", 422, invalid, "query/created_after"},
		{"GET /jobs?created_before=13", "", "", 422, invalid, "query/created_before"},
		{"GET /jobs?colour=red", "", "", 422, invalid, "query/colour"},
		{"GET /jobs?%25zz", "", "", 422, invalid, "query/%zz"},
		{"POST /workers/pause", `{"type":"email"}`, "", 422, invalid, "/type"},
		{"POST /workers/resume?type=email", ``, "", 422, invalid, "query/type"},
		{"PUT /workers", ``, "", 400, "malformed_json", ""},
		{"PUT /workers", `{}`, "", 422, invalid, "/max_workers"},
		{"PUT /workers", `{"max_workers":0}`, "", 422, invalid, "/max_workers"},
		{"PUT /workers", `{"max_workers":"many"}`, "", 422, invalid, "/max_workers"},
		{"PUT /workers", `{"max_workers":1e9}`, "", 422, invalid, "/max_workers"},
		{"PUT /workers", `{"min_workers":-1}`, "", 422, invalid, "/min_workers"},
		{"PUT /workers", `{"types":{"nope":{"max_workers":1}}}`, "", 422, unknown, "/types/nope"},
		{"PUT /workers", `{"max_workers":3,"types":{"nope":{"max_workers":1}}}`, "", 422, unknown, "/types/nope"},
		{"PUT /workers", `{"types":{"email":{"max_workers":-1}}}`, "", 422, invalid, "/types/email/max_workers"},
		{"PUT /workers", `{"types":{"email":{"paused":true}}}`, "", 422, invalid, "/types/email/paused"},
		{"PUT /log", `{"level":"loud"}`, "Authorization: Bearer " + adminToken, 422, invalid, "/level"},
		{"PUT /log", `{"level":"debug","for":"1h"}`, "Authorization: Bearer " + adminToken, 422, invalid, "/for"},
		{"PUT /log", `{}`, "Authorization: Bearer " + adminToken, 422, invalid, "/level"},
		{"PUT /log", `{"level":"debug"}`, "", 403, "forbidden", ""},
		// what this version does not have yet
		{"GET /jobs/", "", "", 404, "not_found", ""},
		{"GET /../../etc/passwd", "", "", 404, "not_found", ""},
	}
	for _, p := range []string{"0", "6", "-1", "2.5", `"1"`, "1e0"} {
		tries = append(tries, try{"POST /jobs", `{"type":"export","priority":` + p + `}`, "", 422, invalid, "/priority"})
	}
	for _, p := range []string{"-1", "1001", "1.5", `"3"`, "[]"} {
		tries = append(tries, try{"POST /jobs", `{"type":"export","retry_count":` + p + `}`, "", 422, invalid, "/retry_count"})
	}
	for _, p := range []string{"0", "-1", `"soon"`, "1e99", `"8d"`, "{}"} {
		tries = append(tries, try{"POST /jobs", `{"type":"export","timeout":` + p + `}`, "", 422, invalid, "/timeout"})
	}
	for _, p := range []string{`"a"`, `[""]`, `["a,b"]`, `[1]`, `{}`, `["` + strings.Repeat("x", 129) + `"]`, `["` + strings.Repeat(`x","`, 32) + `y"]`} {
		tries = append(tries, try{"POST /jobs", `{"type":"export","tags":` + p + `}`, "", 422, invalid, "/tags"})
	}
	for _, try := range tries {
		t.Run(try.request+" "+try.body, func(t *testing.T) {
			h := h.in(t)
			method, path, _ := strings.Cut(try.request, " ")
			var header []string
			if name, value, ok := strings.Cut(try.header, ": "); ok {
				header = []string{name, value}
			}
			r := h.do(method, path, try.body, header...)
			p := r.wantProblem(t, try.status, try.code)
			if try.pointer != "" && !slices.Contains(p.pointers(), try.pointer) {
				t.Errorf("the errors are at %q, want %s: %s", p.pointers(), try.pointer, r.body)
			}
			if try.code == unknown && try.pointer == "/type" {
				for _, name := range []string{"cleanup", "email", "export", "report"} {
					if !strings.Contains(p.Detail, name) {
						t.Errorf("the detail does not list %s: %s", name, p.Detail)
					}
				}
			}
			if r.header.Get("X-Request-Id") == "" {
				t.Error("there is no X-Request-Id")
			}
		})
	}
	for request, allow := range map[string][]string{
		"DELETE /jobs":                      {"GET", "HEAD", "POST"},
		"PUT /jobs":                         {"GET", "HEAD", "POST"},
		"PUT /jobs/" + kept.ID:              {"GET", "HEAD", "DELETE"},
		"GET /jobs/" + kept.ID + "/cancel":  {"POST"},
		"PUT /jobs/" + kept.ID + "/retry":   {"POST"},
		"DELETE /types/email":               {"GET", "HEAD"},
		"GET /types/email/pause":            {"POST"},
		"PUT /jobs/batch":                   {"POST"},
		"POST /jobs/" + kept.ID + "/events": {"GET", "HEAD"},
		"PUT /jobs/" + kept.ID + "/result":  {"GET", "HEAD"},
		"POST /workers":                     {"GET", "HEAD", "PUT"},
		"POST /workers/stats":               {"GET", "HEAD"},
		"POST /livez":                       {"GET", "HEAD"},
	} {
		method, path, _ := strings.Cut(request, " ")
		r := h.do(method, path, "")
		r.wantProblem(t, http.StatusMethodNotAllowed, "method_not_allowed")
		for _, m := range allow {
			if !strings.Contains(r.header.Get("Allow"), m) {
				t.Errorf("%s: Allow is %q and lacks %s", request, r.header.Get("Allow"), m)
			}
		}
	}
	if after := h.do(http.MethodGet, "/jobs", "").body; !bytes.Equal(before, after) {
		t.Errorf("refused requests left something:\n%s\n%s", before, after)
	}
	if now := untimed(h.stats()); now != counted {
		t.Errorf("refused requests changed the stats:\n%s\n%s", counted, now)
	}
}

// in is h for a subtest.
func (h *house) in(t *testing.T) *house {
	sub := *h
	sub.t = t
	return &sub
}

// untimed are stats without what changes by itself.
func untimed(s *api.Stats) string {
	s.UptimeSeconds, s.Utilisation, s.Backlog, s.Node = 0, 0, api.Backlog{}, api.NodeStats{}
	for name, of := range s.Types {
		of.Backlog = api.Backlog{}
		s.Types[name] = of
	}
	return string(s.AppendJSON(nil))
}

// TestContractChunkedTooLarge sends a body that does not say how long it is.
func TestContractChunkedTooLarge(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { c.Server.MaxBody = 1000 }})
	body := `{"type":"export","payload":` + strings.Repeat(" ", 5000) + `{}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.rest+"/jobs", struct{ *strings.Reader }{strings.NewReader(body)})
	mustDo(t, err)
	req.ContentLength = -1
	resp, err := h.client.Do(req)
	mustDo(t, err)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d", resp.StatusCode)
	}
	h.submit(`{"type":"export"}`) // and it goes on
}

// TestContractRequests has what all requests share: ids, HEAD and health.
func TestContractRequests(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	if r := h.do(http.MethodGet, "/livez", "", "X-Request-Id", "mine-1"); r.header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("X-Request-Id came back as %q", r.header.Get("X-Request-Id"))
	}
	first, second := h.do(http.MethodGet, "/livez", ""), h.do(http.MethodGet, "/livez", "")
	if a, b := first.header.Get("X-Request-Id"), second.header.Get("X-Request-Id"); a == "" || a == b {
		t.Errorf("made request ids %q and %q", a, b)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/health"} {
		r := h.do(http.MethodGet, path, "")
		if r.code != http.StatusOK || !json.Valid(r.body) {
			t.Errorf("%s answers %d: %s", path, r.code, r.body)
		}
		if path != "/livez" && (!bytes.Contains(r.body, []byte(`"broker":"ok"`)) || !bytes.Contains(r.body, []byte(`"tracker":"ok"`))) {
			t.Errorf("%s names no checks: %s", path, r.body)
		}
	}
	j := h.await(h.submit(`{"type":"export"}`).ID, "completed")
	for _, path := range []string{"/jobs", "/jobs/" + j.ID, "/jobs/" + j.ID + "/events", "/jobs/" + j.ID + "/result", "/workers/stats", "/livez", "/jobs/nope"} {
		g, hd := h.do(http.MethodGet, path, ""), h.do(http.MethodHead, path, "")
		switch path {
		case "/jobs": // it is not read only to know its length
			g.header.Del("Content-Length")
		case "/workers/stats": // its figures change between the two
			g.header.Del("Content-Length")
			hd.header.Del("Content-Length")
		}
		if g.code != hd.code || len(hd.body) != 0 || g.header.Get("Content-Type") != hd.header.Get("Content-Type") || g.header.Get("Content-Length") != hd.header.Get("Content-Length") {
			t.Errorf("%s: GET gives %d %v, HEAD %d %v with %d bytes", path, g.code, g.header, hd.code, hd.header, len(hd.body))
		}
	}
	upper := h.do(http.MethodGet, "/jobs/"+strings.ToUpper(j.ID), "")
	if upper.code != http.StatusOK {
		t.Errorf("the id in capitals answers %d", upper.code)
	}
}

// TestContractSubmission has every field of a submission come back.
func TestContractSubmission(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	for timeout, want := range map[string]float64{`90`: 90, `"5m"`: 300, `0.5`: 0.5, `"1d"`: 86400} {
		j := h.submit(`{"type":"export","priority":5,"retry_count":0,"timeout":%s,"tags":["a","ü b","a"],"payload":{"format":"json"}}`, timeout)
		j = h.await(j.ID, "completed")
		if j.Priority != 5 || j.MaxAttempts != 1 || j.Timeout != want || !slices.Equal(j.Tags, []string{"a", "ü b", "a"}) || string(j.Payload) != `{"format":"json"}` {
			t.Errorf("timeout %s: came back as %+v", timeout, j)
		}
	}
	j := h.submit(` {"payload":null, "type":"export" } `)
	if j.MaxAttempts != 2 || j.Priority != 3 || string(j.Payload) != "null" {
		t.Errorf("without fields: %+v", j)
	}
}

// TestContractList pages through jobs by every filter.
func TestContractList(t *testing.T) {
	t.Parallel()
	dud := jobs.HandlerFunc(nothing)
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"good": dud, "other": dud, "bad": jobs.HandlerFunc(failing)}})
	var ids []string
	var middle time.Time
	for i := range 60 {
		kind := []string{"good", "other", "bad"}[i%3]
		j := h.submit(`{"type":%q,"tags":["n%d","t%d"]}`, kind, i%2, i%5)
		ids = append(ids, j.ID)
		if i == 30 {
			middle = j.CreatedAt
		}
	}
	waitUntil(t, func() bool { s := h.stats(); return s.CompletedJobs+s.FailedJobs == 60 })
	choose := func(keep func(i int) bool) (some []string) {
		for i, id := range ids {
			if keep(i) {
				some = append(some, id)
			}
		}
		return some
	}
	at := url.QueryEscape(middle.Format(time.RFC3339Nano))
	for query, keep := range map[string]func(i int) bool{
		"":                                func(int) bool { return true },
		"type=good":                       func(i int) bool { return i%3 == 0 },
		"type=good&type=bad":              func(i int) bool { return i%3 != 1 },
		"status=failed":                   func(i int) bool { return i%3 == 2 },
		"status=completed&type=bad":       func(int) bool { return false },
		"status=completed&status=failed":  func(int) bool { return true },
		"status=pending":                  func(int) bool { return false },
		"tag=n1":                          func(i int) bool { return i%2 == 1 },
		"tag=t3&tag=t4&type=other":        func(i int) bool { return i%5 >= 3 && i%3 == 1 },
		"created_after=" + at:             func(i int) bool { return i >= 30 },
		"created_before=" + at:            func(i int) bool { return i < 30 },
		"type=nope":                       func(int) bool { return false },
		"tag=n0&status=failed&type=bad":   func(i int) bool { return i%2 == 0 && i%3 == 2 },
		"created_after=" + at + "&tag=t0": func(i int) bool { return i >= 30 && i%5 == 0 },
	} {
		for _, order := range []string{"asc", "desc", ""} {
			for _, limit := range []int{0, 1, 7, 500} {
				if limit == 1 && order != "asc" {
					continue // slow, and the same
				}
				want := choose(keep)
				if order != "asc" {
					slices.Reverse(want)
				}
				if got := h.pages(query, order, limit); !slices.Equal(got, want) {
					t.Errorf("%s order %q limit %d: got %d jobs, want %d\n%v\n%v", query, order, limit, len(got), len(want), got, want)
				}
			}
		}
	}
	if found, next := h.list(""); len(found) != 50 || next == "" {
		t.Errorf("a page has %d jobs by default", len(found))
	}
}

// pages gathers the ids of all pages of a list.
func (h *house) pages(query, order string, limit int) (ids []string) {
	h.t.Helper()
	query = "?" + query
	if order != "" {
		query += "&order=" + order
	}
	if limit > 0 {
		query += fmt.Sprintf("&limit=%d", limit)
	}
	for cursor := ""; ; {
		at := query
		if cursor != "" {
			at += "&cursor=" + url.QueryEscape(cursor)
		}
		found, next := h.list(strings.Replace(at, "?&", "?", 1))
		for _, j := range found {
			ids = append(ids, j.ID)
		}
		if limit > 0 && len(found) > limit || next != "" && len(found) == 0 {
			h.t.Errorf("%s: a page has %d jobs and the next cursor %q", at, len(found), next)
		}
		if cursor = next; next == "" || len(ids) > 1000 {
			return ids
		}
	}
}

// TestContractFoundAtOnce submits and listens from many sides at once: after
// the 202 the job can be found, after its notification it is completed.
func TestContractFoundAtOnce(t *testing.T) {
	t.Parallel()
	const submitters, each = 8, 40
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)}})
	nc := h.dial()
	var told sync.WaitGroup
	told.Add(submitters * each)
	var repeated atomic.Int64
	var heard sync.Map
	for range 4 { // listeners of their own, so that lookups don't wait for each other
		listener := h.dial()
		_, err := listener.QueueSubscribe("job.completed.>", "test", func(m *nats.Msg) {
			id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
			r, err := h.try(t.Context(), http.MethodGet, "/jobs/"+id, "")
			if err != nil || r.code != http.StatusOK || !bytes.Contains(r.body, []byte(`"status":"completed"`)) {
				t.Errorf("after its notification job %s is %+v (%v)", id, r, err)
			}
			if _, again := heard.LoadOrStore(id, true); again {
				repeated.Add(1)
				return
			}
			told.Done()
		})
		mustDo(t, err)
		mustDo(t, listener.Flush())
	}
	var submitting sync.WaitGroup
	for i := range submitters {
		submitting.Go(func() {
			for range each {
				var id string
				if i%2 == 0 {
					r, err := h.try(t.Context(), http.MethodPost, "/jobs", `{"type":"quick"}`)
					if err != nil || r.code != http.StatusAccepted {
						t.Errorf("a submission got %+v, %v", r, err)
						return
					}
					id, _ = idIn(r.body)
				} else {
					m, err := nc.Request("jobstream.submit", []byte(`{"type":"quick"}`), patience)
					if err != nil || m.Header.Get("Nats-Service-Error-Code") != "" {
						t.Errorf("a submission got %+v, %v", m, err)
						return
					}
					id, _ = idIn(m.Data)
				}
				r, err := h.try(t.Context(), http.MethodGet, "/jobs/"+id, "")
				if err != nil || r.code != http.StatusOK {
					t.Errorf("right after its 202 job %s is %+v (%v)", id, r, err)
				}
			}
		})
	}
	submitting.Wait()
	if t.Failed() {
		return
	}
	told.Wait()
	if n := repeated.Load(); n > 0 {
		t.Errorf("%d notifications came twice", n)
	}
}

// TestContractQueueFull fills the queue from all sides: exactly queue_size jobs
// get in by the doors that can refuse, twice that as bare messages.
func TestContractQueueFull(t *testing.T) {
	t.Parallel()
	const size = 20
	p := newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"held": p},
		change:   func(c *config.Config) { c.Worker.QueueSize, c.Worker.MaxWorkers = size, 2 },
	})
	var taken, refused atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			r, err := h.try(t.Context(), http.MethodPost, "/jobs", `{"type":"held"}`)
			switch {
			case err != nil:
				t.Error(err)
			case r.code == http.StatusAccepted:
				taken.Add(1)
			case r.code == http.StatusTooManyRequests && r.header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				t.Errorf("answered %d %v: %s", r.code, r.header, r.body)
			}
		})
	}
	all.Wait()
	if taken.Load() != size || refused.Load() != 50-size {
		t.Errorf("%d were taken and %d refused; want %d and %d", taken.Load(), refused.Load(), size, 50-size)
	}
	h.do(http.MethodPost, "/jobs", `{"type":"held"}`).wantProblem(t, http.StatusTooManyRequests, "queue_full")
	h.do(http.MethodPost, "/jobs", `{"type":"nope"}`).wantProblem(t, http.StatusUnprocessableEntity, "unknown_type")
	nc := h.dial()
	m := h.call(nc, "submit", `{"type":"held"}`)
	if m.Header.Get("Nats-Service-Error-Code") != "429" {
		t.Errorf("the service answered %v %s", m.Header, m.Data)
	}
	wantProblem(t, m.Data, http.StatusTooManyRequests, "queue_full")
	h.awaitStats(func(s *api.Stats) bool { return s.QueuedJobs == size-2 && s.ActiveWorkers == 2 && s.QueueSize == size })
	if found, _ := h.list("?limit=500"); len(found) != size {
		t.Errorf("%d jobs are listed, want %d", len(found), size)
	}

	for i := range size {
		h.accepted(nc, "jobs.held", fmt.Sprintf(`{"n":%d}`, i))
	}
	ack := h.bare(nc, "jobs.held", `{}`)
	if ack.Error == nil || ack.Error.ErrCode != 10077 {
		t.Errorf("bare message %d got %+v", 2*size+1, ack)
	}
	for range 2 * size {
		p.next(t).finish()
	}
	waitUntil(t, func() bool { return h.stats().CompletedJobs == 2*size })
	// The stream, which is full of what has ended, is trimmed by and by.
	waitUntil(t, func() bool {
		r := h.do(http.MethodPost, "/jobs", `{"type":"held"}`)
		if r.code != http.StatusAccepted {
			r.wantProblem(t, http.StatusTooManyRequests, "queue_full")
		}
		return r.code == http.StatusAccepted
	})
	waitUntil(t, func() bool { return h.bare(nc, "jobs.held", `{}`).Error == nil })
	for range 2 {
		p.next(t).finish()
	}
	waitUntil(t, func() bool { return h.stats().CompletedJobs == 2*size+2 })
}
