package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/handlers"
)

// The contract tests check the promises to users, from outside. They start the program
// in this process and use only its ports, its log, its files and its exit code. This
// file has their common parts.

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// house is one life of the server, as its users see it.
type house struct {
	t          *testing.T
	rest, nats string
	log        *logged
	end        func()      // begins the graceful stop
	ended      chan string // what serving returned: "" after a clean stop
	client     *http.Client
	gone       bool
}

// setup is how a server differs from the default one.
type setup struct {
	change   func(*config.Config)
	options  func(*node.Options)
	handlers map[string]jobs.Handler // each becomes a type of that name
	allLines bool                    // its log has also what comes again and again
}

// addKinds makes each handler a kind of its name, before those that are there.
func addKinds(cfg *config.Config, more map[string]jobs.Handler) {
	for name, h := range more {
		k := handlers.Plain(name, nil, func(*handlers.Server) (jobs.Handler, error) { return h, nil })
		cfg.Kinds = append([]*handlers.Kind{k}, cfg.Kinds...)
	}
}

// open starts a server on the data folder dir.
func open(t *testing.T, dir string, s setup) *house {
	t.Helper()
	cfg := config.Default(handlers.Kinds())
	knowAdmin(cfg)
	cfg.Data.Dir = dir
	cfg.Server.Port, cfg.Broker.Port = 0, -1
	cfg.Worker.ShutdownGrace = 10 * time.Second
	for name := range s.handlers {
		cfg.Jobs[name] = config.JobType{
			Run: name, Timeout: time.Minute,
			Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 10 * time.Millisecond},
		}
	}
	if s.change != nil {
		s.change(cfg)
	}
	addKinds(cfg, s.handlers)
	signals := make(chan os.Signal, 2)
	h := newHouse(t, func() { signals <- os.Interrupt })
	log, level := newLogger(cfg.Log, h.log)
	if s.allLines {
		log = slog.New(slog.NewTextHandler(h.log, nil))
	}
	srv := &server{cfg: cfg, log: log, level: level, signals: signals, change: s.options}
	go func() {
		err := srv.serve(context.Background())
		if err != nil {
			h.ended <- err.Error()
		}
		close(h.ended)
	}()
	h.awaitReady()
	return h
}

// openProgram starts the whole program by its run function; env are further
// variables.
func openProgram(t *testing.T, dir string, env ...string) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := newHouse(t, cancel)
	env = append([]string{"JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", "JOBSTREAM_DATA_DIR=" + dir, "JOBSTREAM_SERVER_AUTH_TOKENS_FILE=" + tokensFile(t)}, env...)
	go func() {
		if code := run(ctx, nil, env, io.Discard, h.log); code != 0 {
			h.ended <- fmt.Sprintf("exit code %d", code)
		}
		close(h.ended)
	}()
	h.awaitReady()
	return h
}

func newHouse(t *testing.T, end func()) *house {
	t.Helper()
	description() // its memory is no part of what a test measures
	h := &house{
		t: t, log: newLogged(), end: end, ended: make(chan string, 1),
		client: &http.Client{Transport: &described{t, &http.Transport{MaxIdleConnsPerHost: 64}}, Timeout: patience},
	}
	t.Cleanup(func() {
		h.close()
		if t.Failed() {
			t.Logf("the log of the server at %s:\n%s", h.rest, h.log)
		}
	})
	return h
}

func (h *house) awaitReady() {
	h.t.Helper()
	select {
	case why := <-h.ended:
		h.gone = true
		h.t.Fatalf("the server ended before it was ready: %s\n%s", why, h.log)
	case <-h.log.has("msg=ready"):
		line := h.log.line("msg=ready")
		h.rest, h.nats = attribute(line, "rest="), attribute(line, "nats=")
	case <-h.log.has(`"msg":"ready"`):
		var line struct{ Rest, NATS string }
		mustDo(h.t, json.Unmarshal([]byte(h.log.line(`"msg":"ready"`)), &line))
		h.rest, h.nats = line.Rest, line.NATS
	case <-time.After(patience):
		h.t.Fatalf("the server is not ready\n%s", h.log)
	}
}

// close stops the server gracefully, unless it has been stopped before.
func (h *house) close() {
	h.t.Helper()
	if h.gone {
		return
	}
	h.end()
	h.awaitEnd()
}

// awaitEnd waits for a clean end.
func (h *house) awaitEnd() {
	h.t.Helper()
	h.gone = true
	select {
	case why := <-h.ended:
		if why != "" {
			h.t.Errorf("the stop was not clean: %s", why)
		}
	case <-time.After(patience):
		h.t.Fatalf("the server does not stop\n%s", h.log)
	}
	h.client.CloseIdleConnections()
}

// logged is a log that can be waited for.
type logged struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	awaits map[string]chan struct{}
}

func newLogged() *logged { return &logged{awaits: make(map[string]chan struct{})} }

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	for text, ch := range l.awaits {
		if bytes.Contains(l.buf.Bytes(), []byte(text)) {
			close(ch)
			delete(l.awaits, text)
		}
	}
	return len(p), nil
}

// has is closed when text has been logged.
func (l *logged) has(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.awaits[text]
	switch {
	case bytes.Contains(l.buf.Bytes(), []byte(text)):
		ch = make(chan struct{})
		close(ch)
	case ch == nil:
		ch = make(chan struct{})
		l.awaits[text] = ch
	}
	return ch
}

func (l *logged) line(text string) string {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// reply is an answer of the REST door.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// try makes a request; header are names and values in turn.
func (h *house) try(ctx context.Context, method, path, body string, header ...string) (*reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.rest+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return &reply{resp.StatusCode, resp.Header, b}, err
}

// code is the status of an answer that need not end.
func (h *house) code(method, path, body string, header ...string) int {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, h.rest+path, strings.NewReader(body))
	mustDo(h.t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := h.client.Do(r)
	mustDo(h.t, err)
	_ = answer.Body.Close()
	return answer.StatusCode
}

func (h *house) do(method, path, body string, header ...string) *reply {
	h.t.Helper()
	r, err := h.try(h.t.Context(), method, path, body, header...)
	mustDo(h.t, err)
	return r
}

// problem is an error as clients see it.
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	Errors                    []struct{ Pointer, Detail string }
	Job                       struct { // of a lost lease
		Status  string
		Attempt int
	}
}

func (p *problem) pointers() []string {
	var all []string
	for _, e := range p.Errors {
		all = append(all, e.Pointer)
	}
	return all
}

// wantProblem checks an error of the REST door.
func (r *reply) wantProblem(t *testing.T, status int, code string) *problem {
	t.Helper()
	if r.code != status {
		t.Fatalf("answered %d, want %d: %s", r.code, status, r.body)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("the problem has Content-Type %q", ct)
	}
	return wantProblem(t, r.body, status, code)
}

func wantProblem(t *testing.T, body []byte, status int, code string) *problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("not a problem: %v: %s", err, body)
	}
	if p.Status != status || p.Code != code || p.Title == "" || p.Type == "" || p.Detail == "" {
		t.Errorf("got the problem %s; want status %d, code %s, and type, title and detail", body, status, code)
	}
	return &p
}

// seen is the job resource as clients see it.
type seen struct {
	ID, Type, Status, Message, Error, Node string
	CreatedBy                              string `json:"created_by"`
	Priority, Progress, Attempt            int
	MaxAttempts                            int `json:"max_attempts"`
	Timeout                                float64
	Payload, Result                        json.RawMessage
	Errors                                 []struct {
		Attempt int
		Error   string
		At      time.Time
	}
	Tags      []string
	Seq       uint64
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	RunAt     *time.Time `json:"run_at"`
	StartedAt *time.Time `json:"started_at"`
	EndedAt   *time.Time `json:"ended_at"`
}

func readJob(t *testing.T, body []byte) *seen {
	t.Helper()
	var j seen
	if err := json.Unmarshal(body, &j); err != nil || j.ID == "" {
		t.Fatalf("not a job: %v: %s", err, body)
	}
	return &j
}

// submit posts a job that must be taken.
func (h *house) submit(format string, args ...any) *seen {
	h.t.Helper()
	body := fmt.Sprintf(format, args...)
	r := h.do(http.MethodPost, "/jobs", body)
	if r.code != http.StatusAccepted {
		h.t.Fatalf("%s was answered with %d: %s", body, r.code, r.body)
	}
	j := readJob(h.t, r.body)
	if at := r.header.Get("Location"); at != "/jobs/"+j.ID {
		h.t.Errorf("Location is %q for job %s", at, j.ID)
	}
	return j
}

// job gets a job by its id or sequence.
func (h *house) job(ref any) *seen {
	h.t.Helper()
	r := h.do(http.MethodGet, fmt.Sprintf("/jobs/%v", ref), "")
	if r.code != http.StatusOK {
		h.t.Fatalf("job %v is answered with %d: %s", ref, r.code, r.body)
	}
	return readJob(h.t, r.body)
}

// await waits until a job has a status; any other end of it is an error.
func (h *house) await(ref any, status string) *seen {
	h.t.Helper()
	var j *seen
	waitUntil(h.t, func() bool {
		r := h.do(http.MethodGet, fmt.Sprintf("/jobs/%v", ref), "")
		if r.code == http.StatusNotFound {
			return false // a bare message that has not been seen yet
		}
		j = readJob(h.t, r.body)
		if j.Status != status && j.EndedAt != nil {
			h.t.Fatalf("job %v is %s, want %s: %s", ref, j.Status, status, r.body)
		}
		return j.Status == status
	})
	return j
}

// event is a line of a job's history.
type event struct {
	Seq, Attempt, Progress      int
	Kind, Error, Message, Actor string
	At                          time.Time
	RunAt                       *time.Time `json:"run_at"`
}

func (h *house) events(ref any) (all []event, kinds string) {
	h.t.Helper()
	var answer struct{ Events []event }
	r := h.do(http.MethodGet, fmt.Sprintf("/jobs/%v/events", ref), "")
	mustDo(h.t, json.Unmarshal(r.body, &answer))
	var names []string
	for i, e := range answer.Events {
		if e.At.IsZero() || i > 0 && e.Seq <= answer.Events[i-1].Seq {
			h.t.Errorf("event %d has no time or no rising seq: %s", i, r.body)
		}
		if e.Kind != "progress" {
			names = append(names, e.Kind)
		}
	}
	return answer.Events, strings.Join(names, " ")
}

func (h *house) stats() *api.Stats {
	h.t.Helper()
	var s api.Stats
	r := h.do(http.MethodGet, "/workers/stats", "")
	if r.code != http.StatusOK {
		h.t.Fatalf("stats are answered with %d: %s", r.code, r.body)
	}
	mustDo(h.t, json.Unmarshal(r.body, &s))
	return &s
}

// awaitStats waits for stats: that a job has started is recorded some
// milliseconds after its worker is busy.
func (h *house) awaitStats(cond func(s *api.Stats) bool) {
	h.t.Helper()
	var last *api.Stats
	deadline := time.Now().Add(patience)
	waitUntil(h.t, func() bool {
		last = h.stats()
		if time.Now().After(deadline) {
			h.t.Fatalf("the stats stay at %s", last.AppendJSON(nil))
		}
		return cond(last)
	})
}

// list gets one page of the list.
func (h *house) list(query string) (found []*seen, next string) {
	h.t.Helper()
	var page struct {
		Jobs []*seen
		Next string `json:"next_cursor"`
	}
	r := h.do(http.MethodGet, "/jobs"+query, "")
	if r.code != http.StatusOK {
		h.t.Fatalf("%s is answered with %d: %s", query, r.code, r.body)
	}
	mustDo(h.t, json.Unmarshal(r.body, &page))
	return page.Jobs, page.Next
}

// dial connects to the NATS port until the test ends.
func (h *house) dial() *nats.Conn {
	h.t.Helper()
	nc, err := nats.Connect(h.nats, nats.NoReconnect())
	mustDo(h.t, err)
	h.t.Cleanup(nc.Close)
	return nc
}

// pubAck is what JetStream answers.
type pubAck struct {
	Stream    string
	Seq       uint64
	Duplicate bool
	Error     *struct {
		Code        int
		ErrCode     int `json:"err_code"`
		Description string
	}
}

// bare publishes a bare message and returns the stream's answer; header are
// names and values in turn.
func (h *house) bare(nc *nats.Conn, subject, body string, header ...string) *pubAck {
	h.t.Helper()
	m := nats.NewMsg(subject)
	m.Data = []byte(body)
	for i := 0; i < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	answer, err := nc.RequestMsg(m, patience)
	mustDo(h.t, err)
	var ack pubAck
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		h.t.Fatalf("not a PubAck: %s", answer.Data)
	}
	return &ack
}

// accepted is a bare message that must be taken; it returns its sequence.
func (h *house) accepted(nc *nats.Conn, subject, body string, header ...string) uint64 {
	h.t.Helper()
	ack := h.bare(nc, subject, body, header...)
	if ack.Error != nil || ack.Seq == 0 || ack.Stream != "JOBS" {
		h.t.Fatalf("%s was not taken: %+v %+v", subject, ack, ack.Error)
	}
	return ack.Seq
}

// call makes a request of the service.
func (h *house) call(nc *nats.Conn, endpoint, body string) *nats.Msg {
	h.t.Helper()
	m, err := nc.Request("jobstream."+endpoint, []byte(body), patience)
	mustDo(h.t, err)
	return m
}

// puppet is a handler whose every move is the test's.
type puppet struct{ stage chan *play }

// play is one attempt that waits for its end.
type play struct {
	task *jobs.Task
	ctx  context.Context
	end  chan error
}

func newPuppet() *puppet { return &puppet{stage: make(chan *play, 10_000)} }

// Handle waits for the word of the test, or the end of its context.
func (p *puppet) Handle(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
	pl := &play{task: task, ctx: ctx, end: make(chan error, 1)}
	p.stage <- pl
	select {
	case err := <-pl.end:
		return jobs.Result{Value: map[string]int{"attempt": task.Attempt}}, err
	case <-ctx.Done():
		return jobs.Result{}, context.Cause(ctx)
	}
}

// next is the next attempt that starts.
func (p *puppet) next(t *testing.T) *play {
	t.Helper()
	select {
	case pl := <-p.stage:
		return pl
	case <-time.After(patience):
		t.Fatal("no attempt starts")
		return nil
	}
}

func (p *play) id() string { return p.task.Job.ID.String() }

// finish ends the attempt well.
func (p *play) finish() { p.end <- nil }

// TestContractFirstMinute is what a newcomer does: start the program in an
// empty folder and type the three commands.
func TestContractFirstMinute(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	h := openProgram(t, dir)
	ready := h.log.line("msg=ready")
	for _, want := range []string{"rest=http://127.0.0.1:", "nats=nats://127.0.0.1:", "data=" + dir, "workers=10", "curl " + h.rest + "/jobs -d"} {
		if !strings.Contains(ready, want) {
			t.Errorf("the ready line lacks %q: %s", want, ready)
		}
	}
	if strings.Count(h.log.String(), "\n") != 1 {
		t.Errorf("a first start should log one line:\n%s", h.log)
	}
	bodies := []string{
		`{"type":"email","payload":{"to":"user@example.com","subject":"Hello","body":"Test email"}}`,
		`{"type":"export","payload":{"format":"csv","filters":{"date":"2024-01"}}}`,
		`{"type":"cleanup","payload":{"older_than":"30d"}}`,
	}
	var mail, export *seen
	for _, contentType := range []string{"", "application/x-www-form-urlencoded", "text/plain"} { // curl sends the second
		for i, body := range bodies {
			var header []string
			if contentType != "" {
				header = []string{"Content-Type", contentType}
			}
			r := h.do(http.MethodPost, "/jobs", body, header...)
			if r.code != http.StatusAccepted {
				t.Fatalf("%s is answered with %d: %s", body, r.code, r.body)
			}
			sent := readJob(t, r.body)
			if sent.Status != "pending" || sent.Priority != 3 || sent.Seq == 0 || sent.CreatedAt.IsZero() {
				t.Errorf("the new job is %s", r.body)
			}
			j := h.await(sent.ID, "completed")
			if j.Progress != 100 || j.Attempt != 1 || j.EndedAt == nil || j.StartedAt == nil || j.Node == "" || len(j.Errors) != 0 {
				t.Errorf("the completed job is %+v", j)
			}
			if by := h.job(j.Seq); by.ID != j.ID {
				t.Errorf("seq %d leads to %s, not to %s", j.Seq, by.ID, j.ID)
			}
			switch i {
			case 0:
				mail = j
			case 1:
				export = j
			}
		}
	}
	eml, err := os.ReadFile(filepath.Join(dir, "outbox", mail.ID+".eml"))
	mustDo(t, err)
	for _, want := range []string{"To: <user@example.com>", "Subject: Hello", "Test email", "Message-ID: <" + mail.ID + "@"} {
		if !strings.Contains(strings.ToLower(string(eml)), strings.ToLower(want)) {
			t.Errorf("the mail lacks %q:\n%s", want, eml)
		}
	}
	r := h.do(http.MethodGet, "/jobs/"+export.ID+"/result", "")
	if r.code != http.StatusOK || !strings.HasPrefix(r.header.Get("Content-Type"), "text/csv") || !bytes.HasPrefix(r.body, []byte("id,type,status")) {
		t.Errorf("the export is answered with %d, %s: %s", r.code, r.header.Get("Content-Type"), r.body)
	}
	h.awaitStats(func(s *api.Stats) bool {
		return s.CompletedJobs == 9 && s.QueuedJobs+s.ActiveWorkers+s.RetryingJobs == 0 && s.MaxWorkers == 10
	})
	h.close()
	if !strings.Contains(h.log.String(), "msg=stopped") {
		t.Errorf("the log does not say that it stopped:\n%s", h.log)
	}
}
