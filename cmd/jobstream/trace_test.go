package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collected are the spans that a program has sent, as a collector of OTLP over HTTP gets
// them.
type collected struct {
	*httptest.Server
	mu       sync.Mutex
	all      []*spanSeen
	services map[string]bool
	came     chan struct{} // closed when more has come
}

// spanSeen is one span.
type spanSeen struct {
	*spans.Span
	id, trace, parent string // in hex
	about             map[string]string
}

func newCollector(t *testing.T) *collected {
	t.Helper()
	c := &collected{services: map[string]bool{}, came: make(chan struct{})}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Key") != "secret" {
			t.Errorf("the collector got %s %s, %v", r.Method, r.URL, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.take(&req)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collected) take(req *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range req.ResourceSpans {
		c.services[textOf(of.Resource.Attributes)["service.name"]] = true
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.all = append(c.all, &spanSeen{s, hex.EncodeToString(s.SpanId), hex.EncodeToString(s.TraceId), hex.EncodeToString(s.ParentSpanId), textOf(s.Attributes)})
			}
		}
	}
	close(c.came)
	c.came = make(chan struct{})
}

func textOf(all []*common.KeyValue) map[string]string {
	texts := map[string]string{}
	for _, a := range all {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			texts[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			texts[a.Key] = fmt.Sprint(v.IntValue)
		}
	}
	return texts
}

// those are the spans that came so far for which which is true.
func (c *collected) those(which func(*spanSeen) bool) (some []*spanSeen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.all {
		if which(s) {
			some = append(some, s)
		}
	}
	return some
}

// await waits for a span, which comes once.
func (c *collected) await(t *testing.T, what string, which func(*spanSeen) bool) *spanSeen {
	t.Helper()
	late := time.After(patience)
	for {
		c.mu.Lock()
		came := c.came
		c.mu.Unlock()
		if found := c.those(which); len(found) > 1 {
			t.Fatalf("there are %d spans for %s: %v", len(found), what, found)
		} else if len(found) == 1 {
			return found[0]
		}
		select {
		case <-came:
		case <-late:
			t.Fatalf("no span for %s comes; there are %v", what, c.those(func(*spanSeen) bool { return true }))
		}
	}
}

// of finds a span of a job by its name, and by its attempt unless that is 0.
func (c *collected) of(t *testing.T, id, name string, attempt int) *spanSeen {
	t.Helper()
	return c.await(t, fmt.Sprintf("%s of %s, attempt %d", name, id, attempt), func(s *spanSeen) bool {
		return s.Name == name && (s.about["messaging.message.id"] == id || s.about["jobstream.job.id"] == id) &&
			(attempt == 0 || s.about["jobstream.job.attempt"] == fmt.Sprint(attempt))
	})
}

// within complains unless a span is below another one, and not earlier.
func (s *spanSeen) within(t *testing.T, parent *spanSeen) {
	t.Helper()
	if s.trace != parent.trace || s.parent != parent.id {
		t.Errorf("%s is in %s below %s, want %s below %s (%s)", s.Name, s.trace, s.parent, parent.trace, parent.id, parent.Name)
	}
	if s.EndTimeUnixNano < s.StartTimeUnixNano {
		t.Errorf("%s ends before it begins", s.Name)
	}
}

// linksTo complains unless a span begins a trace that links to this place.
func (s *spanSeen) linksTo(t *testing.T, trace, span string) {
	t.Helper()
	if s.trace == trace || s.parent != "" {
		t.Errorf("%s is in %s below %q, want a trace of its own", s.Name, s.trace, s.parent)
	}
	if len(s.Links) != 1 || hex.EncodeToString(s.Links[0].TraceId) != trace || hex.EncodeToString(s.Links[0].SpanId) != span {
		t.Errorf("%s has the links %v, want one to %s %s", s.Name, s.Links, trace, span)
	}
}

func (s *spanSeen) header() string { return "00-" + s.trace + "-" + s.id + "-01" }

// tracedProgram is the built program, which exports to a collector.
type tracedProgram struct {
	*house
	cmd *exec.Cmd
}

func startTraced(t *testing.T, dir string, c *collected, env ...string) *tracedProgram {
	t.Helper()
	bin, err := built()
	mustDo(t, err)
	cmd := exec.Command(bin, "--port=0", "--nats-port=-1") //nolint:noctx // it is stopped by hand
	cmd.Dir, cmd.Env = dir, append(append(cleanEnviron(), "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_HEADERS=x-key=secret", "OTEL_BSP_SCHEDULE_DELAY=50"), env...)
	return &tracedProgram{startServer(t, cmd, os.Interrupt), cmd}
}

// kill ends it with SIGKILL.
func (p *tracedProgram) kill() {
	p.t.Helper()
	mustDo(p.t, p.cmd.Process.Kill())
	<-p.ended
	p.gone = true
}

// post submits a job with a header traceparent, none if that is empty.
func (p *tracedProgram) post(body, trace string) *seen {
	p.t.Helper()
	var header []string
	if trace != "" {
		header = []string{"traceparent", trace}
	}
	r := p.do(http.MethodPost, "/jobs", body, header...)
	if r.code != http.StatusAccepted {
		p.t.Fatalf("%s: %d %s", body, r.code, r.body)
	}
	return readJob(p.t, r.body)
}

// TestTraces holds the spans of whole chains against a collector, over a kill of the
// program: from the submission over waits, attempts and an endpoint to the notification.
func TestTraces(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	var mu sync.Mutex
	answers := map[string][]int{"twice": {500}}
	got := map[string][]string{} // traceparents by path
	e := newEndpoint(t, func(w http.ResponseWriter, c *call) {
		mu.Lock()
		defer mu.Unlock()
		name := strings.TrimPrefix(c.path, "/")
		got[name] = append(got[name], strings.Join(c.header["Traceparent"], ","))
		if left := answers[name]; len(left) > 0 {
			answers[name] = left[1:]
			w.WriteHeader(left[0])
		}
	})
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(fmt.Sprintf(`
callbacks: {allow: [127.0.0.1]}
jobs:
  once: {run: http, url: "%[1]s/once"}
  twice: {run: http, url: "%[1]s/twice", retry_count: 1, backoff: {kind: constant, base: 10ms}}
  exec: {run: exec, command: [sh, -c, 'printf %%s "$TRACEPARENT"']}
  far: {run: remote, lease: 5s}
`, e.URL)), 0o600))
	p := startTraced(t, dir, c)
	nc := p.dial()
	notices, err := nc.SubscribeSync("job.completed.once.>")
	mustDo(t, err)
	mustDo(t, nc.Flush())

	// a client's trace, from end to end
	j := p.post(`{"type":"once","callback_url":"`+e.URL+`/callback"}`, traced(1))
	p.await(j.ID, "completed")
	client := &spanSeen{Span: &spans.Span{Name: "the client"}, trace: fmt.Sprintf("%032x", 1), id: fmt.Sprintf("%016x", 1)}
	submission := c.await(t, "the request", func(s *spanSeen) bool { return s.trace == client.trace && s.Kind == spans.Span_SPAN_KIND_SERVER })
	submission.within(t, client)
	if submission.Name != "POST /jobs" || submission.about["http.response.status_code"] != "202" {
		t.Errorf("the submission is %v", submission)
	}
	if stored := traceparent(t, p.do(http.MethodGet, "/jobs/"+j.ID, "").body); stored != submission.header() {
		t.Errorf("the job is in %s, want %s", stored, submission.header())
	}
	wait, attempt, notice := c.of(t, j.ID, "wait once", 1), c.of(t, j.ID, "process once", 1), c.of(t, j.ID, "send job.completed", 0)
	wait.within(t, submission)
	attempt.within(t, submission)
	notice.within(t, attempt)
	if wait.EndTimeUnixNano != attempt.StartTimeUnixNano || attempt.about["jobstream.job.outcome"] != "completed" || attempt.Kind != spans.Span_SPAN_KIND_CONSUMER {
		t.Errorf("the wait is %v, the attempt %v", wait, attempt)
	}
	request := c.await(t, "the endpoint", func(s *spanSeen) bool { return s.Kind == spans.Span_SPAN_KIND_CLIENT && s.trace == client.trace })
	request.within(t, attempt)
	m, err := notices.NextMsg(patience)
	mustDo(t, err)
	if h := m.Header.Get("traceparent"); h != notice.header() {
		t.Errorf("the notification has %q, want %q", h, notice.header())
	}
	mu.Lock()
	if h := got["once"]; !slices.Equal(h, []string{request.header()}) {
		t.Errorf("the endpoint got %q, want %q", h, request.header())
	}
	mu.Unlock()
	callback := c.await(t, "the callback", func(s *spanSeen) bool { return s.Name == "process jobstream-webhook" })
	callback.within(t, submission)

	// a retry
	j = p.post(`{"type":"twice"}`, "")
	p.await(j.ID, "completed")
	failed, again := c.of(t, j.ID, "process twice", 1), c.of(t, j.ID, "process twice", 2)
	if failed.about["jobstream.job.outcome"] != "retrying" || failed.Status.GetCode() != spans.Status_STATUS_CODE_ERROR || !strings.Contains(failed.Status.Message, "500") {
		t.Errorf("the failed attempt is %v", failed)
	}
	again.linksTo(t, failed.trace, failed.parent)
	c.of(t, j.ID, "wait twice", 2).within(t, again)
	c.of(t, j.ID, "send job.completed", 0).within(t, again)

	// over NATS: the service, and a bare message
	msg := nats.NewMsg("jobstream.submit")
	msg.Data = []byte(`{"type":"exec"}`)
	msg.Header.Set("traceparent", traced(2))
	answer, err := nc.RequestMsg(msg, patience)
	mustDo(t, err)
	j = p.await(readJob(t, answer.Data).ID, "completed")
	service := c.await(t, "the request over NATS", func(s *spanSeen) bool { return s.Name == "jobstream.submit" })
	service.within(t, &spanSeen{Span: &spans.Span{}, trace: fmt.Sprintf("%032x", 2), id: fmt.Sprintf("%016x", 2)})
	program := c.of(t, j.ID, "process exec", 1)
	program.within(t, service)
	if string(j.Result) != `"`+program.header()+`"` {
		t.Errorf("the program got %s, want %s", j.Result, program.header())
	}
	j = p.await(p.accepted(nc, "jobs.exec", ""), "completed")
	bare := c.of(t, j.ID, "receive jobs.exec", 0)
	c.of(t, j.ID, "process exec", 1).within(t, bare)
	if bare.parent != "" {
		t.Errorf("a bare message is below %s", bare.parent)
	}

	// whoever does not sample is left alone
	unsampled := strings.TrimSuffix(traced(3), "1") + "0"
	j = p.await(p.post(`{"type":"exec"}`, unsampled).ID, "completed")
	if !strings.HasPrefix(string(j.Result), `"00-`+fmt.Sprintf("%032x", 3)) || !strings.HasSuffix(string(j.Result), `-00"`) {
		t.Errorf("without a sampled trace the program got %s", j.Result)
	}

	// what waits for its time, or has a lease, over a kill
	later := p.post(`{"type":"once","delay":"1h"}`, traced(4))
	leased := p.post(`{"type":"far"}`, traced(5))
	w := restWorker(t, p.rest, "w")
	code, body, err := w.send("next", "", map[string]any{"types": []string{"far"}, "wait": "60s", "worker": "w"})
	mustDo(t, err)
	var next struct {
		Leases []struct{ Lease, Traceparent string }
	}
	mustDo(t, json.Unmarshal(body, &next))
	if code != http.StatusOK || len(next.Leases) != 1 {
		t.Fatalf("the ask is answered with %d %s", code, body)
	}
	stored := c.await(t, "the delayed submission", func(s *spanSeen) bool {
		return s.Name == "POST /jobs" && s.trace == fmt.Sprintf("%032x", 4)
	})
	p.kill()
	p = startTraced(t, dir, c)
	if code, body, err := restWorker(t, p.rest, "w").send("done", next.Leases[0].Lease, map[string]any{}); err != nil || code != http.StatusOK {
		t.Fatalf("the lease ends with %d %s %v", code, body, err)
	}
	lease := c.of(t, leased.ID, "process far", 1)
	if lease.header() != next.Leases[0].Traceparent || lease.trace != fmt.Sprintf("%032x", 5) || lease.about["jobstream.node"] != "w" {
		t.Errorf("the lease had %s; its attempt is %v", next.Leases[0].Traceparent, lease)
	}
	if r := p.do(http.MethodPost, "/jobs/"+later.ID+"/run", ""); r.code != http.StatusAccepted {
		t.Fatalf("%d %s", r.code, r.body)
	}
	p.await(later.ID, "completed")
	c.of(t, later.ID, "process once", 1).linksTo(t, stored.trace, stored.id)
	c.of(t, later.ID, "send job.completed", 0).within(t, c.of(t, later.ID, "process once", 1))

	p.close() // exports the rest
	if bad := c.those(func(s *spanSeen) bool {
		return s.trace == fmt.Sprintf("%032x", 3) || len(s.TraceId) != 16 || s.id == ""
	}); len(bad) > 0 {
		t.Errorf("these spans should not be there: %v", bad)
	}
	ids := map[string]string{}
	for _, s := range c.those(func(*spanSeen) bool { return true }) {
		if ids[s.id] != "" && s.Name != "send job.completed" { // notifications come again after a kill, as the same ones
			t.Errorf("%s and %s are one span", ids[s.id], s.Name)
		}
		ids[s.id] = s.Name
	}
	if !c.services["jobstream"] || len(c.services) != 1 {
		t.Errorf("the spans are those of %v", c.services)
	}
}

// TestTracesOff: nothing is spanSeen unless the environment asks for it, and what it says
// wrongly is logged.
func TestTracesOff(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env  []string
		line string // in the log
	}{
		"disabled": {env: []string{"OTEL_SDK_DISABLED=true"}},
		"none":     {env: []string{"OTEL_TRACES_EXPORTER=none"}},
		"console":  {env: []string{"OTEL_TRACES_EXPORTER=console"}, line: "OTEL_TRACES_EXPORTER=console"},
		"sampler":  {env: []string{"OTEL_TRACES_SAMPLER=always_off"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCollector(t)
			dir := t.TempDir()
			p := startTraced(t, dir, c, tt.env...)
			j := p.await(p.post(`{"type":"report"}`, "").ID, "completed")
			r := p.do(http.MethodGet, "/jobs/"+j.ID, "")
			if got := traceparent(t, r.body); got != "" && !strings.HasSuffix(got, "-00") {
				t.Errorf("the job is in %s", got)
			}
			p.close()
			if all := c.those(func(*spanSeen) bool { return true }); len(all) > 0 {
				t.Errorf("there are spans: %v", all)
			}
			if log := p.log.String(); strings.Contains(log, "OTEL") != (tt.line != "") || !strings.Contains(log, tt.line) {
				t.Errorf("the log should have %q:\n%s", tt.line, log)
			}
		})
	}
}
