package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// TestContractExport compares exports with the history that REST shows.
func TestContractExport(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"good": jobs.HandlerFunc(nothing), "bad": jobs.HandlerFunc(failing)}})
	for i := range 12 {
		h.submit(`{"type":%q,"priority":%d,"tags":["t%d","=1+1"],"payload":{"text":"=cmd, \"quoted\"\nü %d"}}`, []string{"good", "bad"}[i%2], 1+i%5, i%3, i)
	}
	h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs+s.FailedJobs == 12 })
	year := time.Now().UTC().Format("2006")
	for query, filters := range map[string]string{
		"type=good&type=bad":        `{"type":["good","bad"]}`,
		"type=good":                 `{"type":"good","date":"` + year + `"}`,
		"status=failed":             `{"status":"failed"}`,
		"tag=t0&tag=t1&type=bad":    `{"tag":["t0","t1"],"type":"bad","from":"2020-01-01"}`,
		"type=good&type=none":       `{"type":["good","none"],"to":"2199-12-31"}`,
		"type=nope":                 `{"type":"nope"}`,
		"created_before=2024-01-01": `{"to":"2023-12-31"}`,
	} {
		var want []*seen
		for _, id := range h.pages(query, "asc", 500) {
			want = append(want, h.job(id))
		}
		for _, format := range []string{"csv", "json", "jsonl"} {
			j := h.await(h.submit(`{"type":"export","payload":{"format":%q,"filters":%s,"columns":["id","seq","type","status","priority","attempt","tags","payload","error","created_at","ended_at"]}}`, format, filters).ID, "completed")
			file := h.do(http.MethodGet, "/jobs/"+j.ID+"/result", "")
			checkExport(t, j, file, format, len(want))
			rows := exported(t, format, file.body)
			if len(rows) != len(want) {
				t.Fatalf("%s, %s: %d rows, want %d:\n%s", filters, format, len(rows), len(want), file.body)
			}
			for i, w := range want {
				if format == "csv" {
					compareText(t, rows[i], w)
				} else {
					compareJSON(t, rows[i], w)
				}
			}
		}
	}
}

// checkExport compares an export's result with its file.
func checkExport(t *testing.T, j *seen, file *reply, format string, records int) {
	t.Helper()
	var result struct {
		Format, SHA256, URL string
		Records             int
		Bytes               int
	}
	mustDo(t, json.Unmarshal(j.Result, &result))
	sum := sha256.Sum256(file.body)
	if file.code != http.StatusOK || result.Format != format || result.Records != records || result.Bytes != len(file.body) ||
		result.SHA256 != hex.EncodeToString(sum[:]) || result.URL != "/jobs/"+j.ID+"/result" {
		t.Errorf("the result is %s; the file answers %d with %d bytes", j.Result, file.code, len(file.body))
	}
	types := map[string]string{"csv": "text/csv", "json": "application/json", "jsonl": "application/x-ndjson"}
	if !strings.HasPrefix(file.header.Get("Content-Type"), types[format]) || !strings.Contains(file.header.Get("Content-Disposition"), "."+format) {
		t.Errorf("a file of %s has the headers %v", format, file.header)
	}
}

// exported reads the rows of an export.
func exported(t *testing.T, format string, body []byte) (rows []map[string]any) {
	t.Helper()
	switch format {
	case "json":
		mustDo(t, json.Unmarshal(body, &rows))
	case "jsonl":
		for line := range bytes.Lines(body) {
			var row map[string]any
			mustDo(t, json.Unmarshal(line, &row))
			rows = append(rows, row)
		}
	case "csv":
		all, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
		mustDo(t, err)
		for _, cells := range all[1:] {
			row := map[string]any{}
			for i, cell := range cells {
				row[all[0][i]] = cell
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func compareJSON(t *testing.T, row map[string]any, w *seen) {
	t.Helper()
	var payload any
	mustDo(t, json.Unmarshal(w.Payload, &payload))
	want := map[string]any{
		"id": w.ID, "seq": w.Seq, "type": w.Type, "status": w.Status, "priority": w.Priority, "attempt": w.Attempt, "tags": w.Tags,
		"payload": payload, "error": row["error"], "created_at": w.CreatedAt.Format(time.RFC3339Nano), "ended_at": w.EndedAt.Format(time.RFC3339Nano),
	}
	if text, _ := row["error"].(string); text != w.Error {
		t.Errorf("the row of %s has the error %q, want %q", w.ID, text, w.Error)
	}
	if a, b := asJSON(t, row), asJSON(t, want); a != b {
		t.Errorf("a row is\n%s, want\n%s", a, b)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	mustDo(t, err)
	return string(b)
}

func compareText(t *testing.T, row map[string]any, w *seen) {
	t.Helper()
	want := map[string]string{
		"id": w.ID, "seq": fmt.Sprint(w.Seq), "type": w.Type, "status": w.Status, "priority": fmt.Sprint(w.Priority), "attempt": fmt.Sprint(w.Attempt), "error": w.Error,
	}
	for name, value := range want {
		if row[name] != value {
			t.Errorf("%s of %s is %q, want %q", name, w.ID, row[name], value)
		}
	}
	at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(row["created_at"]))
	if err != nil || w.CreatedAt.Sub(at).Abs() > time.Millisecond {
		t.Errorf("created_at of %s is %v, want %v", w.ID, row["created_at"], w.CreatedAt)
	}
	for name, cell := range row {
		if text := fmt.Sprint(cell); text != "" && strings.ContainsAny(text[:1], "=+@\t\r") {
			t.Errorf("a spreadsheet would take %s for a formula: %q", name, text)
		}
	}
}

// TestContractDownload gets an artifact in parts.
func TestContractDownload(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	j := h.await(h.submit(`{"type":"export"}`).ID, "completed")
	path := "/jobs/" + j.ID + "/result"
	whole := h.do(http.MethodGet, path, "")
	size := len(whole.body)
	if size < 50 || whole.header.Get("Accept-Ranges") != "bytes" || whole.header.Get("ETag") == "" {
		t.Fatalf("the file has %d bytes and the headers %v", size, whole.header)
	}
	for ask, want := range map[string]struct {
		code int
		part []byte
		says string
	}{
		"bytes=0-9":     {206, whole.body[:10], fmt.Sprintf("bytes 0-9/%d", size)},
		"bytes=10-":     {206, whole.body[10:], fmt.Sprintf("bytes 10-%d/%d", size-1, size)},
		"bytes=-5":      {206, whole.body[size-5:], fmt.Sprintf("bytes %d-%d/%d", size-5, size-1, size)},
		"bytes=0-99999": {206, whole.body, fmt.Sprintf("bytes 0-%d/%d", size-1, size)},
		"rows=1-2":      {200, whole.body, ""}, // a unit that nobody knows
		"bytes=99999-":  {416, nil, fmt.Sprintf("bytes */%d", size)},
	} {
		r := h.do(http.MethodGet, path, "", "Range", ask)
		if r.code != want.code || want.part != nil && !bytes.Equal(r.body, want.part) || want.says != "" && r.header.Get("Content-Range") != want.says {
			t.Errorf("%s is answered with %d, %q: %s", ask, r.code, r.header.Get("Content-Range"), r.body)
		}
		if want.code >= 400 && r.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s is answered with %s", ask, r.header.Get("Content-Type"))
		}
	}
	if r := h.do(http.MethodGet, path, "", "If-None-Match", whole.header.Get("ETag")); r.code != http.StatusNotModified || len(r.body) != 0 {
		t.Errorf("with its ETag it is answered with %d", r.code)
	}
	if r := h.do(http.MethodGet, fmt.Sprintf("/jobs/%d/result", j.Seq), ""); !bytes.Equal(r.body, whole.body) {
		t.Errorf("by its sequence it is answered with %d: %s", r.code, r.body)
	}
}

// TestContractReport looks at the page that the report job draws.
func TestContractReport(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"good": jobs.HandlerFunc(nothing), "bad": jobs.HandlerFunc(failing)}})
	for range 5 {
		h.submit(`{"type":"good"}`)
		h.submit(`{"type":"bad","tags":["<script>"]}`)
	}
	h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs == 5 && s.FailedJobs == 5 })
	for _, payload := range []string{`null`, `{"type":"performance","date_range":"last_7_days"}`, `{"type":"failures","date_range":"today"}`, `{"date_range":{"from":"2024-01-01","to":"2024-02-01"}}`} {
		j := h.await(h.submit(`{"type":"report","payload":%s}`, payload).ID, "completed")
		r := h.do(http.MethodGet, "/jobs/"+j.ID+"/result", "")
		page := strings.ToLower(string(r.body))
		if r.code != http.StatusOK || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || !strings.HasPrefix(page, "<!doctype html") || !strings.Contains(page, "</html>") {
			t.Errorf("%s is answered with %d %v: %s", payload, r.code, r.header, r.body)
		}
		for _, stray := range []string{"<script", "src=\"http", "href=\"http", "@import"} {
			if strings.Contains(page, stray) {
				t.Errorf("%s: the page is not self-contained: it has %s", payload, stray)
			}
		}
		if !strings.Contains(payload, "2024") && (!strings.Contains(page, "<svg") || !strings.Contains(page, "good") && !strings.Contains(page, "bad")) {
			t.Errorf("%s: the page shows neither charts nor types: %s", payload, page)
		}
	}
}

// TestContractCleanup deletes what has ended with all it left, but not in a dry
// run.
func TestContractCleanup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	h := open(t, dir, setup{handlers: map[string]jobs.Handler{"bad": jobs.HandlerFunc(failing), "held": p}})
	held := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	letterID := h.await(h.submit(`{"type":"email","payload":%s}`, letter).ID, "completed").ID
	export := h.await(h.submit(`{"type":"export"}`).ID, "completed").ID
	failed := h.await(h.submit(`{"type":"bad"}`).ID, "failed").ID
	files := []string{filepath.Join(dir, "outbox", letterID+".eml"), filepath.Join(dir, "artifacts", export+".d")}
	clean := func(payload string) (deleted, freed int) {
		t.Helper()
		j := h.await(h.submit(`{"type":"cleanup","payload":%s}`, payload).ID, "completed")
		var result struct {
			Deleted  int `json:"deleted_count"`
			Freed    int `json:"freed_bytes"`
			Criteria struct {
				OlderThan string `json:"older_than"`
				DryRun    bool   `json:"dry_run"`
			}
		}
		mustDo(t, json.Unmarshal(j.Result, &result))
		if result.Criteria.OlderThan == "" || result.Criteria.DryRun != strings.Contains(payload, "dry_run") {
			t.Errorf("%s: the result is %s", payload, j.Result)
		}
		return result.Deleted, result.Freed
	}
	there := func(want bool, ids ...string) {
		t.Helper()
		for _, id := range ids {
			if code := h.do(http.MethodGet, "/jobs/"+id, "").code; (code == http.StatusOK) != want {
				t.Errorf("job %s answers %d", id, code)
			}
		}
	}
	if n, _ := clean(`{"older_than":"30d"}`); n != 0 {
		t.Errorf("%d young jobs were deleted", n)
	}
	if n, freed := clean(`{"older_than":"0s","dry_run":true}`); n != 4 || freed == 0 { // the cleanup before counts
		t.Errorf("the dry run counted %d jobs, %d bytes", n, freed)
	}
	there(true, letterID, export, failed, held)
	if n, freed := clean(`{"older_than":"0s","status":["failed"]}`); n != 1 || freed == 0 {
		t.Errorf("%d failed jobs were deleted, %d bytes", n, freed)
	}
	there(true, letterID, export, held)
	there(false, failed)
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
	if n, freed := clean(`{"older_than":"0s"}`); n != 5 || freed == 0 {
		t.Errorf("%d jobs were deleted, %d bytes", n, freed)
	}
	there(false, letterID, export, failed)
	there(true, held)
	for _, f := range files {
		if _, err := os.Stat(f); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", f, err)
		}
	}
	h.do(http.MethodGet, "/jobs/"+export+"/result", "").wantProblem(t, http.StatusNotFound, "not_found")
	if found, _ := h.list(""); len(found) != 2 {
		t.Errorf("%d jobs are listed, want the running one and the last cleanup", len(found))
	}
	if s := h.stats(); s.CompletedJobs != 6 || s.FailedJobs != 1 {
		t.Errorf("deleting changed what has been counted: %+v", s)
	}
	pl.finish()
	h.await(held, "completed")
}

// TestContractRetention has old jobs deleted by themselves.
func TestContractRetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir, setup{})
	old := h.await(h.submit(`{"type":"export"}`).ID, "completed").ID
	h.close()
	h = open(t, dir, setup{change: func(c *config.Config) { c.Retention.Finished = time.Nanosecond }})
	waitUntil(t, func() bool { return h.do(http.MethodGet, "/jobs/"+old, "").code == http.StatusNotFound })
	waitUntil(t, func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "artifacts"))
		return err == nil && len(left) == 0
	})
}

// mailServer is an SMTP server that keeps its mails. answers are its answers to each
// recipient's attempts, in order. It accepts the mail if they are nil or used up.
type mailServer struct {
	mu      sync.Mutex
	answers map[string][]error
	mails   map[string][]string
}

func (m *mailServer) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailSession{m: m}, nil }

type mailSession struct {
	m  *mailServer
	to []string
}

func (s *mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *mailSession) Reset()                               { s.to = nil }
func (s *mailSession) Logout() error                        { return nil }

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if left := s.m.answers[to]; len(left) > 0 {
		s.m.answers[to] = left[1:]
		if left[0] != nil {
			return left[0]
		}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for _, to := range s.to {
		s.m.mails[to] = append(s.m.mails[to], string(content))
	}
	return err
}

// serve starts the server; env are the variables with which jobstream finds it.
func (m *mailServer) serve(t *testing.T) (srv *smtp.Server, env []string) {
	t.Helper()
	srv = smtp.NewServer(m)
	srv.Domain, srv.AllowInsecureAuth = "localhost", true
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	mustDo(t, err)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	mustDo(t, err)
	return srv, []string{"JOBSTREAM_EMAIL_SMTP_HOST=127.0.0.1", "JOBSTREAM_EMAIL_SMTP_PORT=" + port, "JOBSTREAM_EMAIL_SMTP_TLS=none"}
}

// TestContractSMTP sends mail to a real server that takes it, refuses it for
// the moment, or for good.
func TestContractSMTP(t *testing.T) {
	t.Parallel()
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "come back later"}
	never := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	m := &mailServer{mails: map[string][]string{}, answers: map[string][]error{
		"later@b.example": slices.Repeat([]error{later}, 4), // an attempt may ask twice
		"never@b.example": slices.Repeat([]error{never}, 99),
		"busy@b.example":  slices.Repeat([]error{later}, 99),
	}}
	srv, env := m.serve(t)
	h := openProgram(t, t.TempDir(), append(env, "JOBSTREAM_EMAIL_TRANSPORT=smtp", "JOBSTREAM_EMAIL_FROM=Jobs <jobs@a.example>",
		"JOBSTREAM_JOBS_EMAIL_BACKOFF_BASE=10ms", "JOBSTREAM_JOBS_EMAIL_RETRY_COUNT=5")...)
	send := func(to, more string) *seen {
		return h.submit(`{"type":"email","payload":{"to":%q,"subject":"Grüße","body":"Hällo"}%s}`, to, more)
	}
	good := h.await(send("good@b.example", "").ID, "completed")
	var result struct {
		MessageID string `json:"message_id"`
		Accepted  []string
	}
	mustDo(t, json.Unmarshal(good.Result, &result))
	if good.Attempt != 1 || !slices.Equal(result.Accepted, []string{"good@b.example"}) || !strings.Contains(result.MessageID, good.ID) {
		t.Errorf("it ended as %+v, %s", good, good.Result)
	}
	m.mu.Lock()
	got := m.mails["good@b.example"]
	m.mu.Unlock()
	if len(got) != 1 {
		t.Fatalf("the server has %d mails", len(got))
	}
	read, err := mail.ReadMessage(strings.NewReader(got[0]))
	mustDo(t, err)
	if read.Header.Get("Message-Id") != result.MessageID || !strings.Contains(read.Header.Get("From"), "jobs@a.example") {
		t.Errorf("the mail is:\n%s", got[0])
	}
	j := h.await(send("later@b.example", "").ID, "completed")
	if j.Attempt < 2 || len(j.Errors) != j.Attempt-1 || !strings.Contains(j.Errors[0].Error, "come back later") {
		t.Errorf("refused for the moment, it ended as %+v", j)
	}
	if j = h.await(send("never@b.example", "").ID, "failed"); j.Attempt != 1 || len(j.Errors) != 1 || !strings.Contains(j.Error, "no such user") {
		t.Errorf("refused for good, it ended as %+v", j)
	}
	if j = h.await(send("busy@b.example", `,"retry_count":1`).ID, "failed"); j.Attempt != 2 || len(j.Errors) != 2 {
		t.Errorf("refused for the moment for ever, it ended as %+v", j)
	}
	mustDo(t, srv.Close())
	if j = h.await(send("good@b.example", `,"retry_count":1`).ID, "failed"); j.Attempt != 2 {
		t.Errorf("without a server it ended as %+v", j)
	}
}
